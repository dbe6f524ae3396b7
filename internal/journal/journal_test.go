package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type note struct {
	Text string `json:"text"`
}

func TestJournalKeepsWhatWasAppended(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	for i, text := range []string{"first", "second\nwith a line break", ""} {
		j, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(j.Records()) != i {
			t.Fatalf("%d records, want %d", len(j.Records()), i)
		}
		if err := j.Append("noted", "a1", note{text}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	records, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 3 || records[2].Seq != 3 || records[1].Kind != "noted" || records[1].ID != "a1" {
		t.Fatalf("got %+v", records)
	}
	if want := `{"text":"second\nwith a line break"}`; string(records[1].Detail) != want {
		t.Errorf("detail %s, want %s", records[1].Detail, want)
	}
	if records[0].Boot == "" || records[0].BoottimeNS <= 0 || records[1].BoottimeNS < records[0].BoottimeNS {
		t.Errorf("the records have no monotonic time: %+v", records)
	}
	info, err := os.Stat(Path(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestNoJournalIsNoRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if records, err := Read(dir); err != nil || records != nil {
		t.Errorf("got %v, %v", records, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading made the state directory: %v", err)
	}
}

// three is a journal of three records.
func three(t testing.TB) (dir string, text []byte) {
	t.Helper()
	dir = t.TempDir()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, text := range []string{"one", "two", "three"} {
		if err := j.Append("noted", "id", note{text}); err != nil {
			t.Fatal(err)
		}
	}
	text, err = os.ReadFile(Path(dir))
	if err != nil {
		t.Fatal(err)
	}
	return dir, text
}

// A cut last line is left out, wherever it was cut, and the next record takes its
// place.
func TestACutTail(t *testing.T) {
	dir, text := three(t)
	path := Path(dir)
	lines := bytes.SplitAfter(text, []byte("\n"))
	whole := len(lines[0]) + len(lines[1])
	for cut := whole; cut < len(text); cut++ {
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if len(j.Records()) != 2 {
			t.Fatalf("cut at %d: %d records, want 2", cut, len(j.Records()))
		}
		if err := j.Append("noted", "id", note{"again"}); err != nil {
			t.Fatal(err)
		}
		j.Close()
		if records, err := Read(dir); err != nil || len(records) != 3 {
			t.Fatalf("cut at %d, then appended: %d records, %v", cut, len(records), err)
		}
	}
}

// Whatever else is changed in a journal is told, with the line.
func TestCorruption(t *testing.T) {
	dir, text := three(t)
	path := Path(dir)
	lines := bytes.SplitAfter(text, []byte("\n"))
	damaged := map[string][]byte{
		"a line is missing":  slices.Concat(lines[0], lines[2]),
		"the first is gone":  slices.Concat(lines[1], lines[2]),
		"lines out of order": slices.Concat(lines[1], lines[0], lines[2]),
		"a line twice":       slices.Concat(lines[0], lines[0], lines[1]),
		"an empty line":      slices.Concat(lines[0], []byte("\n"), lines[1]),
		"prose":              slices.Concat(lines[0], []byte("hello\n"), lines[1]),
	}
	for i := range bytes.TrimSuffix(text, []byte("\n")) {
		flipped := slices.Clone(text)
		flipped[i] ^= 1
		if bytes.Count(flipped, []byte("\n")) == 3 {
			damaged["byte "+string(rune('0'+i%10))+" of "+strings.Repeat("x", i)] = flipped
		}
	}
	for name, text := range damaged {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: opened: %v", name, err)
		}
		if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A second user waits for the first.
func TestJournalIsHeldByOne(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		second, err := Open(dir)
		if err == nil {
			if len(second.Records()) != 1 {
				err = errors.New("the second does not see what the first wrote")
			}
			second.Close()
		}
		opened <- err
	}()
	if err := first.Append("noted", "id", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-opened:
		t.Fatalf("the second did not wait: %v", err)
	default:
	}
	first.Close()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the second waits for ever")
	}
}

// On a full disk nothing half-written stays, and a journal that set room aside can
// still be written.
func TestAFullDiskUnderTheJournal(t *testing.T) {
	dir := tinyDisk(t, "256k")
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append("noted", "id", note{"before"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Reserve(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, dir)
	for i := range 20 {
		if err := j.Append("noted", "id", note{strings.Repeat("x", 1000)}); err != nil {
			t.Fatalf("record %d after the disk was full: %v", i, err)
		}
	}
	var full error
	for i := 0; i < 1000 && full == nil; i++ {
		full = j.Append("noted", "id", note{strings.Repeat("y", 1000)})
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatalf("the disk never was full: %v", full)
	}
	records, err := Read(dir)
	if err != nil || len(records) != len(j.Records()) {
		t.Errorf("%d records on disk and %d known, %v", len(records), len(j.Records()), err)
	}
}

// tinyDisk mounts a tmpfs of that size, and takes it away with the test.
func tinyDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fillDisk takes all the room that is left.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
}

// FuzzJournal: what is read from any bytes can be written and read again, and nothing
// is made up.
func FuzzJournal(f *testing.F) {
	_, text := three(f)
	f.Add(text)
	f.Add(text[:len(text)-5])
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, size, err := parse(text)
		if size > int64(len(text)) || size < 0 {
			t.Fatalf("%d bytes of %d", size, len(text))
		}
		if err == nil && bytes.Contains(text[size:], []byte("\n")) {
			t.Fatal("a whole line was left out without an error")
		}
		var again []byte
		for _, r := range records {
			line, err := encode(r)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, line...)
		}
		second, _, err := parse(again)
		if err != nil || len(second) != len(records) {
			t.Fatalf("%d records became %d: %v", len(records), len(second), err)
		}
	})
}
