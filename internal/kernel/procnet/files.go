package procnet

import (
	"errors"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// Files are the counters' files of one network namespace, held open. They tell of the
// namespace of the thread that opened them, whichever thread reads them, and keep it alive
// (seq_open_net of fs/proc/proc_net.c). To open a file below /proc/thread-self/net costs
// ten times as much as to read it.
type Files struct {
	netstat, snmp, sockstat4, sockstat6 file
}

// Open opens the files of the calling thread's namespace, below the proc file system that is
// mounted there. What cannot be opened fails when it is read.
func Open(proc string) *Files {
	below := proc + threadNet
	return &Files{
		netstat: openFile(below + "netstat"), snmp: openFile(below + "snmp"),
		sockstat4: openFile(below + "sockstat"), sockstat6: openFile(below + "sockstat6"),
	}
}

// Close closes them.
func (f *Files) Close() {
	for _, file := range []file{f.netstat, f.snmp, f.sockstat4, f.sockstat6} {
		if file.err == nil {
			unix.Close(file.fd)
		}
	}
}

// Counters is ParseCounters of netstat and snmp as they are now.
func (f *Files) Counters() (map[string]uint64, error) {
	buffers := texts.Get().(*[2]contents)
	defer texts.Put(buffers)
	netstat, err1 := f.netstat.read(&buffers[0])
	snmp, err2 := f.snmp.read(&buffers[1])
	counters, err3 := ParseCounters(netstat, snmp)
	return counters, errors.Join(err1, err2, err3)
}

// Sockstat is ParseSockstat of both files as they are now.
func (f *Files) Sockstat() (Sockstat, error) {
	buffers := texts.Get().(*[2]contents)
	defer texts.Put(buffers)
	four, err4 := f.sockstat4.read(&buffers[0])
	six, err6 := f.sockstat6.read(&buffers[1])
	if err4 == nil && errors.Is(err6, fs.ErrNotExist) {
		err6 = nil // a kernel without IPv6
	}
	s, err := ParseSockstat(four, six)
	return s, errors.Join(err4, err6, err)
}

// contents hold the longest file many times.
type contents [32 << 10]byte

// texts are reused.
var texts = sync.Pool{New: func() any { return new([2]contents) }}

// file is open where err is nil.
type file struct {
	fd   int
	path string
	err  error
}

// openFile does without os.File, which asks the poller about each file that it opens.
func openFile(path string) file {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return file{fd, path, err}
}

// read returns the text of the file, in the buffer.
func (f *file) read(buffer *contents) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	for length := 0; ; {
		n, err := unix.Pread(f.fd, buffer[length:], int64(length))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: f.path, Err: err}
		case n == 0:
			return buffer[:length], nil
		default:
			length += n
		}
	}
}
