package wire

import (
	"encoding/binary"
	"io"
	"time"
)

// capture writes packets in the format that tcpdump and Wireshark read
// (pcap-savefile(5)), with times in nanoseconds.
type capture struct {
	to  io.Writer
	err error // the first; nothing is written after it
}

const (
	pcapMagic   = 0xa1b23c4d // of nanoseconds
	linkTypeRaw = 101        // packets begin with their IP header
)

func newCapture(to io.Writer) *capture {
	c := &capture{to: to}
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], pcapMagic)
	binary.LittleEndian.PutUint16(h[4:], 2) // version 2.4
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], maxPacket)
	binary.LittleEndian.PutUint32(h[20:], linkTypeRaw)
	c.write(h[:])
	return c
}

func (c *capture) packet(at time.Time, packet []byte) {
	var h [16]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(at.Nanosecond()))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(packet)))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(packet)))
	c.write(h[:])
	c.write(packet)
}

func (c *capture) write(b []byte) {
	if c.err == nil {
		_, c.err = c.to.Write(b)
	}
}
