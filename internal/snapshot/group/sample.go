package group

// sampleSize is of a group's live sockets, from which its owners are told.
const sampleSize = 16

// Sample holds inodes of sockets, each seen with the same chance to be in it
// (Vitter's reservoir, algorithm R).
type Sample struct {
	Inodes []uint32
	Seen   uint32 // how many it stands for
}

func (s *Sample) add(inode, draw uint32) {
	s.Seen++
	if len(s.Inodes) < sampleSize {
		s.Inodes = append(s.Inodes, inode)
		return
	}
	if at := draw % s.Seen; at < sampleSize {
		s.Inodes[at] = inode
	}
}
