package process

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A cgroup is found by its number for as long as it is there, with or without processes.
func TestCgroups(t *testing.T) {
	cgroups, err := Tree("/proc").OpenCgroups()
	if err != nil {
		t.Skip("no cgroup2 is mounted: ", err)
	}
	defer cgroups.Close()
	dir := filepath.Join(cgroups.mount.Name(), "docker-"+id+".scope")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("only root can make a cgroup: ", err)
	}
	defer os.Remove(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	container, pod, err := cgroups.Owner(st.Ino)
	if container != short || pod != "" || err != nil {
		t.Errorf("the container is %q in pod %q (%v), want %q", container, pod, err, short)
	}
	if container, pod, err := cgroups.Owner(1); container != "" || pod != "" || err != nil {
		t.Errorf("the root belongs to container %q in pod %q (%v)", container, pod, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cgroups.Owner(st.Ino); !errors.Is(err, unix.ESTALE) {
		t.Errorf("a cgroup that is gone: %v, want %v", err, unix.ESTALE)
	}
}
