package process

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestLabelOfAProcessThatIsGone(t *testing.T) {
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Skipf("cannot run true: %v", err)
	}
	if _, err := proc.Label(child.Process.Pid); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("got %v", err)
	}
	if _, err := proc.Process(child.Process.Pid); err == nil {
		t.Error("a process that is gone was described")
	}
}

func TestStartedIsTheStartOfTheProcess(t *testing.T) {
	child := exec.Command("sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	before := time.Now().Unix()
	if err := child.Start(); err != nil {
		t.Skipf("cannot start sleep: %v", err)
	}
	defer func() {
		child.Process.Kill()
		child.Wait()
	}()
	after := time.Now().Unix()
	p, err := proc.Process(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// btime of /proc/stat is rounded to a second.
	if p.Started < before-2 || p.Started > after+2 {
		t.Errorf("started between %d and %d, read was %d", before, after, p.Started)
	}
}

func TestKernelThread(t *testing.T) {
	if proc.kernelThread(os.Getpid()) {
		t.Error("this process is taken for a kernel thread")
	}
	comm, err := os.ReadFile("/proc/2/comm")
	if err != nil || string(comm) != "kthreadd\n" {
		t.Skip("the kernel's threads are not seen here (in a PID namespace)")
	}
	if !proc.kernelThread(2) {
		t.Error("kthreadd is not taken for a kernel thread")
	}
}

func TestDescriptorsIsTheSameByEitherWay(t *testing.T) {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n, err := proc.descriptors(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// ReadDir has the directory itself open.
	if n < int64(len(dir))-1 || n > int64(len(dir))+1 {
		t.Errorf("%d descriptors, the directory lists %d", n, len(dir))
	}
}

func TestStatField(t *testing.T) {
	const line = "7 (a ) b (c) S 1 7 7 0 -1 4194560 1 2 3"
	for number, want := range map[int]string{3: "S", 4: "1", 9: "4194560", 12: "3", 13: "", 2: "", 99: ""} {
		if got := string(statField([]byte(line), number)); got != want {
			t.Errorf("field %d is %q, want %q", number, got, want)
		}
	}
}

func TestDescriptorLimit(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	number := func(n int64) *int64 { return &n }
	for text, want := range map[string]*int64{
		head + "Max open files            1024                 524288               files     \n": number(1024),
		head + "Max open files            unlimited            unlimited            files     \n": nil,
		head + "Max processes             100                  100                  processes \n": nil,
		head + "Max open files": nil,
		"":                      nil,
	} {
		got := descriptorLimit([]byte(text))
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%q gave %v", text, got)
		}
	}
}

func FuzzStatField(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(text, 22)
	}
	f.Add([]byte("1 (a) b) S"), 3)
	f.Fuzz(func(t *testing.T, text []byte, number int) {
		if field := statField(text, number); bytes.ContainsAny(field, " \n") {
			t.Errorf("field %q", field)
		}
	})
}

func FuzzInode(f *testing.F) {
	f.Add("socket:[1234]")
	f.Add("socket:[]")
	f.Add("socket:[18446744073709551616]")
	f.Add("/dev/null")
	f.Fuzz(func(t *testing.T, link string) {
		if n, ok := inode([]byte(link), "socket:["); ok {
			if again, ok := inode([]byte("socket:["+strconv.FormatUint(n, 10)+"]"), "socket:["); !ok || again != n {
				t.Errorf("%q is %d, which is written back as %d", link, n, again)
			}
		}
	})
}

func FuzzDescriptorLimit(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/limits"); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := descriptorLimit(text); n != nil && !bytes.Contains(text, []byte("Max open files")) {
			t.Errorf("%q gave %d", text, *n)
		}
	})
}
