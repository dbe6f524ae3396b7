// Package journal keeps the list of all that linger did to this host, so that it can be
// told and taken back after any crash. It knows how records are written, read back and
// locked, and not what they are about: that is for the rooms whose deeds they tell.
package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the journal is kept, unless --state-dir says otherwise.
const DefaultDir = "/var/lib/linger"

// Record is one line of the journal: what was done, or is about to be.
type Record struct {
	// Seq counts from 1 without a gap, so that a line that was lost is missed.
	Seq int `json:"seq"`
	// At is by the wall clock, for people. Boot and BoottimeNS are what counts: the
	// boot, and CLOCK_BOOTTIME in it, which no one sets and which goes on in suspend.
	At         time.Time `json:"at"`
	Boot       string    `json:"boot"`
	BoottimeNS int64     `json:"boottime_ns"`
	// Kind says what Detail holds, ID which change or reap it is about.
	Kind   Kind            `json:"kind"`
	ID     string          `json:"id"`
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Kind is what a record says.
type Kind string

// ErrCorrupt means that a record of the journal is not what linger wrote.
var ErrCorrupt = errors.New("the journal is damaged")

// castagnoli is the polynomial of CRC-32C (RFC 3720, appendix B.4).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// room is what is set aside on disk before anything is changed, in bytes: a rollback
// must be able to say what it did on a disk that has filled since.
const room = 64 << 10

// Journal is the list of all that linger did to this host, in one file that only
// grows. Each line is the CRC-32C of the record in eight hexadecimal digits, a space,
// and the record as JSON. A line is on disk before Append returns.
//
// The last line may be cut, by a crash while it was written: what it would have said
// has then not been done, as every step is written down before it is taken. Any other
// line that does not have its checksum, or its number, is ErrCorrupt.
type Journal struct {
	file    *os.File
	size    int64 // of the whole records
	written []Record
}

// ErrBusy means that somebody else has the journal open.
var ErrBusy = errors.New("the journal is in use")

// Path is that of the file in a state directory.
func Path(dir string) string { return filepath.Join(dir, "journal") }

// Open opens the journal to read it and to append to it, and makes it where there is
// none. Nobody else can until it is closed: it waits for whoever has it open.
func Open(dir string) (*Journal, error) { return openLocked(dir, unix.LOCK_EX) }

// TryOpen is Open that waits for nobody: a journal that is open elsewhere is ErrBusy.
func TryOpen(dir string) (*Journal, error) { return openLocked(dir, unix.LOCK_EX|unix.LOCK_NB) }

func openLocked(dir string, how int) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	path := Path(dir)
	_, missing := os.Stat(path)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	j := &Journal{file: file}
	if err := j.prepare(dir, how, errors.Is(missing, fs.ErrNotExist)); err != nil {
		file.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) prepare(dir string, how int, isNew bool) error {
	switch err := flock(j.file, how); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrBusy
	case err != nil:
		return fmt.Errorf("lock the journal: %w", err)
	}
	if isNew {
		if err := SyncDirectory(dir); err != nil {
			return fmt.Errorf("make the journal durable: %w", err)
		}
	}
	text, err := io.ReadAll(j.file)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	j.written, j.size, err = parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", j.file.Name(), err)
	}
	return nil
}

// Read reads the journal without a lock and without making one: no file is no
// record. Of a damaged one it returns the records before the damage, with the error.
func Read(dir string) ([]Record, error) {
	path := Path(dir)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	records, _, err := parse(text)
	if err != nil {
		return records, fmt.Errorf("%s: %w", path, err)
	}
	return records, nil
}

// NewID names what is begun by the day, so that a history can be read, and by chance.
func NewID() string {
	random := make([]byte, 4)
	rand.Read(random)
	return time.Now().UTC().Format("20060102") + "-" + hex.EncodeToString(random)
}

// User is who runs this process: SUDO_USER, or the user id.
func User() string {
	if name := os.Getenv("SUDO_USER"); name != "" && !strings.ContainsAny(name, "\n\x1b") {
		return name
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// Records are those that are on disk, in their order.
func (j *Journal) Records() []Record { return j.written }

// Reserve sets room aside for the records to come. File systems that cannot are left
// as they are.
func (j *Journal) Reserve() error {
	err := unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, room)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("set room aside for the journal %s: %w", j.file.Name(), err)
	}
	return nil
}

// Append writes one record and waits until it is on disk. On an error the journal is
// as it was.
func (j *Journal) Append(kind Kind, id string, detail any) error {
	boot, boottime, err := Clock()
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	r := Record{
		Seq: len(j.written) + 1, At: time.Now().UTC().Truncate(time.Millisecond),
		Boot: boot, BoottimeNS: int64(boottime), Kind: kind, ID: id,
	}
	if detail != nil {
		if r.Detail, err = json.Marshal(detail); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	line, err := encode(r)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	// What a crash left of a last line goes first, or the new one would end it.
	err = j.file.Truncate(j.size)
	if err == nil {
		_, err = j.file.WriteAt(line, j.size)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		err = j.isThere()
	}
	if err != nil {
		// A record that may or may not be on disk must not be found later.
		return errors.Join(fmt.Errorf("write the journal: %w", err), j.file.Truncate(j.size), j.Reserve())
	}
	j.size += int64(len(line))
	j.written = append(j.written, r)
	return nil
}

// isThere tells whether the file still has a name: what is written to one that was
// removed is read by nobody.
func (j *Journal) isThere() error {
	var s unix.Stat_t
	if err := unix.Fstat(int(j.file.Fd()), &s); err != nil {
		return err
	}
	if s.Nlink == 0 {
		return errors.New("the file was removed meanwhile")
	}
	return nil
}

// Close lets others at the journal.
func (j *Journal) Close() error { return j.file.Close() }

func encode(r Record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text), nil
}

// parse returns the whole records and how many bytes they take.
func parse(text []byte) (records []Record, size int64, err error) {
	for int(size) < len(text) {
		line, _, whole := bytes.Cut(text[size:], []byte("\n"))
		if !whole {
			break // cut by a crash
		}
		r, err := decode(line)
		if err == nil && r.Seq != len(records)+1 {
			err = fmt.Errorf("record %d where %d belongs", r.Seq, len(records)+1)
		}
		if err != nil {
			return records, size, fmt.Errorf("%w: line %d: %w; keep the file, and see docs/change.md", ErrCorrupt, len(records)+1, err)
		}
		records = append(records, r)
		size += int64(len(line)) + 1
	}
	return records, size, nil
}

func decode(line []byte) (Record, error) {
	var r Record
	sum, text, found := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !found || len(sum) != 8 || err != nil {
		return r, errors.New("it does not begin with a checksum")
	}
	if got := crc32.Checksum(text, castagnoli); got != uint32(want) {
		return r, fmt.Errorf("its checksum is %08x and not %08x", got, want)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	return r, nil
}

// Clock is the boot and the time in it (CLOCK_BOOTTIME), which no one sets and which goes
// on in suspend.
func Clock() (string, time.Duration, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0, err
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0, err
	}
	return string(bytes.TrimSpace(id)), time.Duration(t.Nano()), nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SyncDirectory waits until the names in a directory are on disk.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
