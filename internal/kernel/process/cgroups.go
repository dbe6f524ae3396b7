package process

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Cgroups finds cgroups by their numbers, which a socket keeps when its process has
// ended. They are those of the second version, for sockets belong to no other.
type Cgroups struct{ mount *os.File }

// OpenCgroups looks for where the hierarchy is mounted. It fails with fs.ErrNotExist where it
// is nowhere.
func (t Tree) OpenCgroups() (*Cgroups, error) {
	tree, err := procfs.NewFS(string(t))
	if err != nil {
		return nil, fmt.Errorf("find cgroup2: %w", err)
	}
	mounts, err := tree.GetMounts()
	if err != nil {
		return nil, fmt.Errorf("find cgroup2: %w", err)
	}
	for _, m := range mounts {
		if m.FSType != "cgroup2" {
			continue
		}
		f, err := os.Open(m.MountPoint)
		if err != nil {
			return nil, fmt.Errorf("find cgroup2: %w", err)
		}
		return &Cgroups{f}, nil
	}
	return nil, fmt.Errorf("find cgroup2: %w", os.ErrNotExist)
}

// Close ends the use of the mount.
func (c *Cgroups) Close() error { return c.mount.Close() }

// kernfsHandle is the type of a file handle that is the number of a node of kernfs
// (FILEID_KERNFS of include/linux/exportfs.h, kernel 5.5).
const kernfsHandle = 0xfe

// Owner tells which container and pod a cgroup belongs to; both are empty where it belongs to
// none. It takes CAP_DAC_READ_SEARCH, and fails with unix.ESTALE when the cgroup is gone.
func (c *Cgroups) Owner(number uint64) (container, pod string, err error) {
	handle := unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, number))
	fd, err := unix.OpenByHandleAt(int(c.mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", "", fmt.Errorf("open cgroup %d: %w", number, err)
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", "", fmt.Errorf("name cgroup %d: %w", number, err)
	}
	container, pod = parsePath(path)
	return container, pod, nil
}
