package render

import (
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	source "github.com/yuin/goldmark/text"

	"linger/internal/deed"
	"linger/internal/diagnose"
	"linger/internal/plan"
	"linger/internal/proof"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/sockets"
	"linger/internal/story"
	"linger/internal/tcp"
)

// hostile is what a process, a pod, a file or a plan may hold: sequences that a terminal
// obeys, lines, marks that turn the direction of writing, bytes that are no UTF-8, and
// the markup of each face.
const hostile = "a\x1b[2J\x9b\a\r\nb\tc\u202e\u2066\u200b\u2028\u0085\xff<script>alert(1)</script>|`d`&*e*_f_[g](h)"

// choices are the values of types that decide what is said; any of them, and none of them.
var choices = map[reflect.Type][]string{
	reflect.TypeFor[tcp.Role]():          {string(tcp.Connector), string(tcp.Acceptor), string(tcp.RoleUnknown), hostile, ""},
	reflect.TypeFor[snapshot.How]():      {string(snapshot.Seen), string(snapshot.Listening), string(snapshot.Inferred), hostile},
	reflect.TypeFor[diagnose.Severity](): {string(diagnose.Critical), string(diagnose.Info), hostile},
	reflect.TypeFor[proof.Kind]():        {string(proof.Remedy), string(proof.Folklore), string(proof.Observation), hostile, ""},
	reflect.TypeFor[proof.Verdict](): {
		string(proof.Works),
		string(proof.Harmful),
		string(proof.NoEffect),
		string(proof.NotShown),
		hostile,
		"",
	},
	reflect.TypeFor[deed.State]():       {string(deed.Pending), string(deed.Confirmed), string(deed.Undone), hostile},
	reflect.TypeFor[deed.GuardMode]():   {string(deed.GuardWarn), string(deed.GuardRollback), hostile},
	reflect.TypeFor[deed.ReasonKind]():  {string(deed.Guarded), string(deed.ByHand), string(deed.ReasonTold), hostile},
	reflect.TypeFor[deed.NoteKind]():    {string(deed.FileFailed), string(deed.Managed), string(deed.ByTuned), string(deed.NoteTold), hostile},
	reflect.TypeFor[deed.UnknownKind](): {string(deed.NotSeen), string(deed.TooFew), hostile},
	reflect.TypeFor[sockets.By]():       {string(sockets.ByGroup), string(sockets.ByProcess), hostile},
}

// filler fills every field of a value: each text is hostile, each list has an item, each
// pointer leads somewhere.
type filler struct {
	seed int
	// cannot fills the fields that say why something could not be done, in place of what came
	// of it.
	cannot bool
}

func (f *filler) fill(v reflect.Value, depth int) {
	f.seed++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.1")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		text := hostile
		if words := choices[v.Type()]; words != nil {
			text = words[f.seed%len(words)]
		}
		v.SetString(text)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth-1)
		}
	case reflect.Slice:
		n := 1 + f.seed%2
		if depth <= 0 {
			n = 0
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), depth)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, depth)
		f.fill(value, depth)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Field(i).CanSet() && (f.cannot || name != "Cannot" && name != "Absent") {
				f.fill(v.Field(i), depth)
			}
		}
		if curve, ok := v.Addr().Interface().(*proof.Series); ok {
			curve.Y = curve.X
		}
	case reflect.Bool:
		v.SetBool(f.seed%2 == 0)
	case reflect.Float64:
		v.SetFloat(1.5)
	default:
		if v.CanInt() {
			v.SetInt(3)
		} else if v.CanUint() {
			v.SetUint(3)
		}
	}
}

// filled is a value of which every field is filled.
func filled[T any](seed int) *T {
	v := new(T)
	f := &filler{seed: seed, cannot: seed%3 == 0}
	f.fill(reflect.ValueOf(v).Elem(), 9)
	return v
}

// TestNothingHostileIsShown: whatever stands in any text of any document, no face lets a
// sign through that does more than show, and no word of it is markup.
func TestNothingHostileIsShown(t *testing.T) {
	for seed := range 30 {
		stories := map[string]any{}
		tell := func(name string, told any, faces map[string]func(io.Writer) error) {
			stories[name] = told
			for face, write := range faces {
				checkShown(t, fmt.Sprintf("%s as %s, seed %d", name, face, seed), face, written(t, write))
			}
		}

		s := filled[snapshot.Snapshot](seed)
		d := &story.Document{
			Snapshot: s, Diagnosis: *filled[diagnose.Diagnosis](seed), Elapsed: time.Second,
			Remedies: func(diagnose.Finding) []remedy.Remedy { return *filled[[]remedy.Remedy](seed) },
		}
		// A finding about a group of the snapshot has its history.
		g := s.Namespaces[0].Groups[0]
		d.Diagnosis.Findings[0].Netns.Cookie = s.Namespaces[0].Cookie
		d.Diagnosis.Findings[0].Subject = diagnose.Subject{Role: g.Role, Local: g.Local, Remote: g.Remote}
		for _, whole := range []bool{false, true} {
			told := story.Diagnosis(d, whole)
			tell(fmt.Sprintf("diagnosis %v", whole), told, map[string]func(io.Writer) error{
				"text":     func(w io.Writer) error { return Text{Style{Width: 80, Verbose: whole}}.Print(w, told) },
				"ASCII":    func(w io.Writer) error { return Text{Style{Width: 60, Verbose: whole, ASCII: true}}.Print(w, told) },
				"Markdown": func(w io.Writer) error { return Markdown{}.Print(w, told) },
			})
		}
		planned := story.Plan(filled[plan.Plan](seed))
		tell("plan", planned, map[string]func(io.Writer) error{
			"text": func(w io.Writer) error { return Text{Style{Width: 80, Verbose: true}}.Print(w, planned) },
		})
		tellDeeds(seed, tell)
		groups := &story.Groups{Snapshot: s, Table: *filled[sockets.Table](seed)}
		table := story.Sockets(groups)
		tell("sockets", table, map[string]func(io.Writer) error{
			"text": func(w io.Writer) error { _, err := Table{}.Print(w, table); return err },
			"CSV":  func(w io.Writer) error { return SocketsCSV(w, groups) },
		})
		socket := filled[snapshot.Socket](seed)
		list := func(l SocketList) error {
			if err := l.Begin(time.Time{}); err != nil {
				return err
			}
			if err := l.Socket(socket); err != nil {
				return err
			}
			return l.End(s.Gaps, time.Second)
		}
		tell("a socket", story.SocketRow(socket), map[string]func(io.Writer) error{
			"text": func(w io.Writer) error { return list(SocketListText(w, Style{})) },
			"CSV":  func(w io.Writer) error { return list(SocketListCSV(w)) },
		})
		for _, by := range []story.TraceBy{story.ByProcess, story.ByContainer, story.ByDestination, story.ByReason} {
			traced := story.Trace(filled[snapshot.Traced](seed), story.TraceForm{By: by, Wide: true})
			tell("trace by "+string(by), traced, map[string]func(io.Writer) error{
				"text": func(w io.Writer) error { _, err := Table{Cut: 60}.Print(w, traced); return err },
			})
		}
		end := []story.Text{story.TraceEnd(filled[snapshot.EndedConnection](seed))}
		tell("the end of a connection", end, map[string]func(io.Writer) error{
			"text": func(w io.Writer) error { return Text{}.Lines(w, end) },
		})
		for name, r := range map[string]*story.Report{"lab": story.Lab(filled[proof.Lab](seed)),
			"prove": story.Prove(filled[proof.Proved](seed))} {
			tell(name, r, map[string]func(io.Writer) error{
				"text":     func(w io.Writer) error { return Text{Style{Width: 80}}.PrintReport(w, r) },
				"ASCII":    func(w io.Writer) error { return Text{Style{Width: 80, ASCII: true}}.PrintReport(w, r) },
				"Markdown": func(w io.Writer) error { return Markdown{}.PrintReport(w, r) },
				"HTML":     func(w io.Writer) error { return HTML{}.PrintReport(w, r) },
			})
		}
		exam := story.Score(filled[proof.Scores](seed))
		tell("score", exam, map[string]func(io.Writer) error{
			"text":     func(w io.Writer) error { return Text{Style{Width: 80}}.PrintExam(w, exam) },
			"Markdown": func(w io.Writer) error { return Markdown{}.PrintExam(w, exam) },
		})
		for name, told := range stories {
			walkTexts(reflect.ValueOf(told), name, func(path, text string) {
				if bad := obeyed(text, ""); bad != "" {
					t.Errorf("seed %d: %s holds %s: %q", seed, path, bad, text)
				}
			})
		}
	}
}

// tellDeeds tells what linger did.
func tellDeeds(seed int, tell func(name string, told any, faces map[string]func(io.Writer) error)) {
	pending, settled := filled[deed.Report](seed), filled[deed.Report](seed)
	settled.SecondsLeft = nil
	reports := []deed.Report{*pending, *settled}
	reaping := filled[deed.Reaping](seed)
	reaping.States = []tcp.State{tcp.TimeWait, tcp.CloseWait}
	for name, told := range map[string]*story.Story{
		"a change": story.Change(settled), "pending": story.Pending(reports), "in force": story.InForce(reports),
		"changes": story.Changes(reports), "reap": story.Reap(reaping), "reaped": story.Reaped(filled[deed.ReapResult](seed)),
		"nothing to reap": story.Reap(&deed.Reaping{Netns: hostile}),
	} {
		tell(name, told, map[string]func(io.Writer) error{
			"text":     func(w io.Writer) error { return Text{Style{Width: 80}}.Print(w, told) },
			"verbose":  func(w io.Writer) error { return Text{Style{Width: 80, Verbose: true}}.Print(w, told) },
			"ASCII":    func(w io.Writer) error { return Text{Style{Width: 60, ASCII: true}}.Print(w, told) },
			"Markdown": func(w io.Writer) error { return Markdown{}.Print(w, told) },
		})
	}
	why := *filled[deed.Reason](seed)
	lines := append(story.Reaps([]deed.Reap{*filled[deed.Reap](seed), {ID: hostile, Netns: hostile, User: hostile}}),
		story.Settled(hostile, deed.Undone, why), story.Settled(hostile, deed.Lost, why), story.Settled(hostile, hostile, why))
	tell("reaps, and what was settled", lines, map[string]func(io.Writer) error{
		"text": func(w io.Writer) error { return Text{}.Lines(w, lines) },
	})
}

// obeyed is the first sign in a text that does more than show, but for those allowed.
func obeyed(text, allowed string) string {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") {
			return fmt.Sprintf("a byte that is no UTF-8 at %d", i)
		}
		if !unicode.IsGraphic(r) && !strings.ContainsRune(allowed, r) {
			return fmt.Sprintf("%U at %d", r, i)
		}
	}
	return ""
}

// walkTexts calls visit with each text below a value.
func walkTexts(v reflect.Value, path string, visit func(path, text string)) {
	switch v.Kind() {
	case reflect.String:
		visit(path, v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			walkTexts(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walkTexts(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			walkTexts(v.Field(i), path+"."+v.Type().Field(i).Name, visit)
		}
	}
}

func checkShown(t *testing.T, name, face, text string) {
	t.Helper()
	if bad := obeyed(text, "\n"); bad != "" {
		t.Errorf("%s lets %s through:\n%q", name, bad, text)
	}
	switch face {
	case "ASCII":
		if i := strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
			t.Errorf("%s has other signs: %q", name, text[max(0, i-20):min(len(text), i+20)])
		}
	case "Markdown":
		checkMarkdown(t, name, text)
	case "HTML":
		if strings.Contains(text, "<script") || !strings.Contains(text, "&lt;script&gt;") {
			t.Errorf("%s has a script, or no name at all", name)
		}
	}
}

var pipe = regexp.MustCompile(`(^|[^\\])\|`)

// checkMarkdown: no name is markup, and no name ends a cell of a table.
func checkMarkdown(t *testing.T, name, text string) {
	t.Helper()
	columns := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		n := len(pipe.FindAllString(strings.ReplaceAll(line, "||", "| |"), -1))
		if columns != 0 && n != columns {
			t.Errorf("%s: a row has %d columns, want %d: %s", name, n, columns, line)
		}
		columns = n
	}
	document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(source.NewReader([]byte(text)))
	_ = ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n.Kind() {
		case ast.KindRawHTML, ast.KindHTMLBlock, ast.KindLink, ast.KindImage:
			if entering {
				t.Errorf("%s is read as having %s", name, n.Kind())
			}
		}
		return ast.WalkContinue, nil
	})
}
