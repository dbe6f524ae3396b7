package snapshot

// Namespace is the one with a cookie, or, where the kernel has none (0), with an inode
// number; nil where there is no such namespace in the snapshot, and where both are
// unknown.
func (s *Snapshot) Namespace(cookie, inode uint64) *Namespace {
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		if cookie != 0 && ns.Cookie == cookie || cookie == 0 && inode != 0 && ns.Inode == inode {
			return ns
		}
	}
	return nil
}
