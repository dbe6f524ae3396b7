package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"linger/internal/deed"
	"linger/internal/journal"
	"linger/internal/plan"
	"linger/internal/proof"
	"linger/internal/render"
	"linger/internal/setting"
	"linger/internal/story"
)

// unclean is what nobody wants on a terminal: an escape sequence, a new line with
// something that looks like linger's, marks that turn the direction of text, a carriage
// return, a bell and a control character of eight bits. Between the quotes no line is
// wrapped, so that a new line is one that was put in.
const unclean = "`x\x1b[31m\nFORGED\u202e\u2066\r\x07\u009b`"

// soil puts it into every string of a value, and one element into each list that has none.
func soil(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(unclean)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		soil(v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			soil(v.Index(i))
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf(unclean).Convert(v.Type().Key()), reflect.New(v.Type().Elem()).Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				soil(v.Field(i))
			}
		}
	}
}

// soiled is a value of a type with nothing clean in it.
func soiled[T any]() T {
	var v T
	soil(reflect.ValueOf(&v).Elem())
	return v
}

// begins is a line that a new line of unclean began.
var begins = regexp.MustCompile(`(?m)^\s*FORGED`)

// wantClean fails where a text has anything of unclean as it is.
func wantClean(t *testing.T, what, text string) {
	t.Helper()
	if strings.ContainsAny(text, "\x1b\u202e\u2066\r\x07\u009b") || begins.MatchString(text) {
		t.Errorf("%s is not clean: %q", what, text)
	}
}

// wantTold fails, too, where a text has nothing of it, which would show nothing.
func wantTold(t *testing.T, what, text string) {
	t.Helper()
	wantClean(t, what, text)
	if text != "" && !strings.Contains(text, "FORGED") {
		t.Errorf("%s has nothing of what was put in: %q", what, text)
	}
}

// typed is a command line: its output and its errors.
func typed(t *testing.T, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	Run(t.Context(), args, Streams{In: strings.NewReader(""), Out: &o, Err: &e, Getenv: func(name string) string {
		return map[string]string{"COLUMNS": "120"}[name]
	}})
	return o.String(), e.String()
}

func TestAPlanIsMadeClean(t *testing.T) {
	p := soiled[plan.Plan]()
	for _, style := range []render.Style{{Width: 120, Verbose: true}, {Width: 120, ASCII: true}} {
		var b bytes.Buffer
		if err := (render.Text{Style: style}).Print(&b, story.Plan(&p)); err != nil {
			t.Fatal(err)
		}
		wantTold(t, "plan", b.String())
	}

	changes, experiments := proofsOf(&p)
	proved := soiled[proof.Proved]()
	measured := &proved.Changes[0]
	measured.Proof.Base.Runs, measured.Proof.Variants[0].Runs = nil, nil
	for i := range changes {
		take(&changes[i], proof.Proof{Title: experiments[i].Title, Cannot: experiments[i].Cannot})
	}
	could := *measured
	could.Cannot, could.Proof.Base.Cannot, could.Proof.Variants = "", "", slices.Clone(could.Proof.Variants)
	could.Proof.Variants[0].Cannot, could.Proof.Variants[0].Verdict = "", proof.Harmful
	proved.Changes = append(append(proved.Changes, changes...), could)
	told := story.Prove(&proved)
	for name, print := range map[string]func(io.Writer, *story.Report) error{
		"prove":           render.Text{Style: render.Style{Width: 120}}.PrintReport,
		"prove, ASCII":    render.Text{Style: render.Style{Width: 120, ASCII: true}}.PrintReport,
		"prove, Markdown": render.Markdown{}.PrintReport,
	} {
		var b bytes.Buffer
		if err := print(&b, told); err != nil {
			t.Fatal(err)
		}
		wantTold(t, name, b.String())
	}

	// Each member on its own makes another error, or none: what could be applied is of
	// another boot.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	good := plan.Plan{Schema: plan.Schema, Host: plan.Host{Name: host, BootID: "another"}, Changes: []plan.Change{{
		Scope: plan.Scope{Cookie: 7, Inode: 7}, Key: setting.TWReuse, Old: "2", New: "1",
	}}}
	state := t.TempDir()
	for _, member := range []string{"schema", "host.name", "scope.label", "key", "old", "new", "forced", "extra"} {
		bad := good
		bad.Changes = []plan.Change{good.Changes[0]}
		c := &bad.Changes[0]
		for name, at := range map[string]*string{
			"schema": &bad.Schema, "host.name": &bad.Host.Name, "scope.label": &c.Scope.Label.Name,
			"key": &c.Key, "old": &c.Old, "new": &c.New, "forced": &c.Forced,
		} {
			if name == member {
				*at = unclean
			}
		}
		if member == "scope.label" { // twice the same, which is told with its place
			bad.Changes = append(bad.Changes, *c)
		}
		text, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if member == "extra" {
			name, _ := json.Marshal(unclean)
			text = append([]byte("{"+string(name)+":1,"), text[1:]...)
		}
		file := filepath.Join(state, member)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs := typed(t, "apply", file, "--state-dir", state)
		if out != "" || errs == "" {
			t.Errorf("%s: it was applied: %q", member, out)
		}
		if member == "old" || member == "forced" { // told by nobody here
			wantClean(t, "apply with "+member, errs)
		} else {
			wantTold(t, "apply with "+member, errs)
		}
	}
}

func TestAJournalIsMadeClean(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, now, err := journal.Clock()
	if err != nil {
		t.Fatal(err)
	}
	p := soiled[plan.Plan]()
	for i := range p.Changes {
		p.Changes[i].Scope.Cookie, p.Changes[i].Scope.Inode = 1<<62, 1 // no namespace has it
	}
	write := func(id string, kind journal.Kind, detail any) {
		t.Helper()
		if err := j.Append(kind, id, detail); err != nil {
			t.Fatal(err)
		}
	}
	said := map[string]string{"reason": unclean}
	undone := map[string]any{"outcomes": []deed.Outcome{soiled[deed.Outcome]()}}
	file := map[string]any{"path": unclean, "root": dir, "warnings": []string{unclean}}
	const pending, taken, kept, reaped = "pending" + unclean, "taken" + unclean, "kept" + unclean, "reaped" + unclean
	for _, id := range []string{pending, taken, kept} {
		write(id, "pending", map[string]any{
			"plan": p, "deadline_ns": int64(now + time.Hour), "deadline": time.Now(), "guard": "warn", "user": unclean,
			"traced": map[string]string{"unknown": unclean},
		})
		write(id, "written", map[string]any{"key": unclean, "scope": p.Changes[0].Scope, "value": unclean})
		write(id, "applied", nil)
		write(id, "warned", said)
	}
	write(taken, "keeping", file)
	write(taken, "confirmed", nil)
	write(taken, "filed", nil)
	write(taken, "undoing", said)
	write(taken, "stuck", undone)
	write(taken, "forgotten", said)
	write(taken, "undone", undone)
	write(kept, "keeping", file)
	write(kept, "confirmed", nil)
	write(kept, "filed", nil)
	write(reaped, "reaping", map[string]any{"netns": unclean, "process": unclean, "user": unclean, "sockets": 1})
	write(reaped, "reaped", map[string]any{"id": unclean, "cause": unclean})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// This test stands for the watcher, so that none is started.
	lock, err := os.Create(filepath.Join(dir, "watch-"+pending))
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	seen := []byte(`{"unknown":"\u001b[31m\nFORGED\u202e"}`)
	if err := os.WriteFile(filepath.Join(dir, "seen-"+pending), seen, 0o600); err != nil {
		t.Fatal(err)
	}

	for _, args := range [][]string{
		{"status"}, {"history"}, {"diff"}, {"rollback", taken}, {"confirm", taken}, {"rollback", "none" + unclean},
	} {
		out, errs := typed(t, append(args, "--state-dir", dir)...)
		if out+errs == "" {
			t.Errorf("%v says nothing", args)
		}
		wantTold(t, args[0], out)
		wantTold(t, args[0]+"'s errors", errs)
	}
	if out, _ := typed(t, "history", "--state-dir", dir); !strings.Contains(out, "REAPED") || strings.Count(out, "FORGED") < 40 {
		t.Errorf("history tells too little: %s", out)
	}
}
