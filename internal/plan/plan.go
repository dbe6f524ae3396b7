// Package plan is what to change, as data: each change with its place, old and new
// value, reason, risk and expected effect in numbers. It makes plans from findings,
// refuses what is known to harm, and writes nothing.
package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"linger/internal/diagnose"
	"linger/internal/setting"
	"linger/internal/snapshot"
)

// Schema names the form of a plan's JSON (docs/plan.schema.json).
const Schema = "linger.plan/1"

// Plan is a list of changes of one host, which hold for one boot of it. They are
// applied in their order, and taken back in the opposite one.
type Plan struct {
	Schema string    `json:"schema"`
	MadeAt time.Time `json:"made_at"`
	Host   Host      `json:"host"`
	// Problems are what the changes cure; there are none where they were asked for by
	// key and value.
	Problems []diagnose.Slug `json:"problems"`
	Changes  []Change        `json:"changes"`
	// Notes say what else to heed, and what the plan leaves out.
	Notes []string `json:"notes"`
	// Counters are those of each namespace with a change, when the plan was made: the
	// base line of the guard.
	Counters []Counters `json:"counters"`
}

// Host is the host and the boot that a plan is for.
type Host struct {
	Name   string `json:"name"`
	Kernel string `json:"kernel"`
	// BootID is new with each boot: run-time values do not outlive it.
	BootID string `json:"boot_id"`
}

// Change is one value of one key at one place.
type Change struct {
	Scope Scope  `json:"scope"`
	Key   string `json:"key"`
	Old   string `json:"old"`
	New   string `json:"new"`

	Why       string `json:"why"`
	Mechanism string `json:"mechanism"`
	Risk      string `json:"risk"`
	Kernels   string `json:"kernels"`
	// Effects are what the change moves, in numbers.
	Effects []Effect `json:"effects"`
	// Dependents are what else reads the key or is touched by it.
	Dependents []string `json:"dependents"`
	// Persist is what keeps the value for ever, nil where nothing has to.
	Persist *Persist `json:"persist"`
	// Forced is why linger refuses the change unless it is forced; empty for all that
	// it does not refuse.
	Forced string `json:"forced,omitempty"`
}

// Scope is where a change is made: in one network namespace, or in the one place
// that the whole host shares.
type Scope struct {
	// HostWide: the kernel keeps the key once. All else is then that of the host's own
	// namespace, through which it is written.
	HostWide bool `json:"host_wide"`
	// Cookie is SO_NETNS_COOKIE, never used twice between boots; 0 before kernel 5.14,
	// where Inode has to do, which is used again.
	Cookie uint64 `json:"cookie"`
	Inode  uint64 `json:"inode"`
	Label  Label  `json:"label"`
	// Path opened the namespace when the plan was made. It is a hint: the cookie tells
	// whether it still does.
	Path string `json:"path"`
	// Own: it is the namespace of whoever made the plan.
	Own bool `json:"own"`
}

// Same tells whether two scopes are one place.
func (s Scope) Same(other Scope) bool {
	if s.HostWide || other.HostWide {
		return s.HostWide == other.HostWide
	}
	return s.Cookie == other.Cookie && s.Inode == other.Inode
}

// String names the place for a person.
func (s Scope) String() string {
	if s.HostWide {
		return "the whole host"
	}
	return s.Label.String()
}

// Label says what a namespace belongs to. A plan's JSON has it as people read it.
type Label struct{ snapshot.Label }

// MarshalText is the label as people read it.
func (l Label) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText takes what MarshalText writes.
func (l *Label) UnmarshalText(text []byte) error {
	l.Label = snapshot.ParseLabel(string(text))
	return nil
}

// Effect is a number that a change moves: what it is now, and what it should become.
type Effect struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	// When says how soon it shows.
	When string `json:"when"`
}

// Persist is the line that keeps a value, and where it belongs.
type Persist struct {
	File string `json:"file"`
	Line string `json:"line"`
	Note string `json:"note,omitempty"`
}

// Counters are totals since boot of the namespace, named as nstat(8) names them.
type Counters struct {
	Cookie uint64            `json:"cookie"`
	Inode  uint64            `json:"inode"`
	Total  map[string]uint64 `json:"total"`
	// Traced is nil where connections were not followed.
	Traced *Traced `json:"traced,omitempty"`
}

// Traced are the connections of a namespace while the kernel followed them.
type Traced struct {
	MS     int64  `json:"ms"`
	Opened uint64 `json:"opened"`
	// NoPort are the connect() calls that found no source port, which no counter tells.
	NoPort uint64 `json:"no_port"`
}

// maxSize bounds what Parse reads, in bytes: a thousand changes are below it.
const maxSize = 4 << 20

// Parse reads one plan, and checks it as Check does. A member that it does not know
// is an error: a plan that was written for another version must not lose a part of
// its meaning in silence.
func Parse(r io.Reader) (*Plan, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("the plan is longer than %d bytes", maxSize)
	}
	var form struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return nil, fmt.Errorf("the plan is no JSON: %w", err)
	}
	if form.Schema != Schema {
		return nil, fmt.Errorf("the plan is %q, want %q", form.Schema, Schema)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	p := &Plan{}
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("the plan is not well formed: %w", err)
	}
	return p, p.Check()
}

// Check tells whether a plan can be applied at all: that it is complete, and that
// each key is one that linger changes, with a value that the kernel takes. A change
// that is refused unless forced must say so.
func (p *Plan) Check() error {
	if p.Host.BootID == "" {
		return errors.New("the plan names no boot: make it again with `linger plan`")
	}
	var problems []error
	seen := map[string]bool{}
	for i := range p.Changes {
		c := &p.Changes[i]
		at := fmt.Sprintf("%s\x00%t\x00%d\x00%d", c.Key, c.Scope.HostWide, c.Scope.Cookie, c.Scope.Inode)
		if seen[at] {
			problems = append(problems, fmt.Errorf("%s in %s is changed twice", c.Key, c.Scope))
		}
		seen[at] = true
		problems = append(problems, c.check())
	}
	return errors.Join(problems...)
}

func (c *Change) check() error {
	k, err := keyOf(c.Key)
	if err != nil {
		return err
	}
	if (k.Scope == setting.HostWide) != c.Scope.HostWide {
		return fmt.Errorf("%s: the plan has its scope wrong: the kernel keeps it %s", c.Key, k.Scope)
	}
	if c.Scope.Cookie == 0 && c.Scope.Inode == 0 {
		return fmt.Errorf("%s: the plan names no namespace", c.Key)
	}
	if c.Old == "" && c.Key != setting.LocalReservedPorts {
		return fmt.Errorf("%s: the plan has no old value, which a rollback needs", c.Key)
	}
	if strings.ContainsAny(c.New, "\n\r") { // the kernel takes it, and a file of sysctl.d does not
		return fmt.Errorf("%s: %q has more than one line", c.Key, c.New)
	}
	if err := valid(k, c.New); err != nil {
		return fmt.Errorf("%s: %w", c.Key, err)
	}
	if refusal := Refuse(c.Key, c.Old, c.New); refusal != nil && (!refusal.Legal || c.Forced == "") {
		return refusal
	}
	return nil
}

// Same tells whether two values of a key are the same for the kernel, which prints a
// tab where a person writes a space.
func Same(a, b string) bool {
	return oneLine(a) == oneLine(b)
}

// oneLine is a text with one space between its words, whatever was there.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
