package render

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"linger/internal/diagnose"
	"linger/internal/snapshot"
	"linger/internal/story"
	"linger/internal/tcp"
)

// follows is why a document does not follow docs/NAME.schema.json, nil where it does.
func follows(t *testing.T, name, document string) error {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(parsed)
}

func TestJSONKeepsItsSchema(t *testing.T) {
	empty := func() *story.Document { return story.NewDocument(&snapshot.Snapshot{}, diagnose.Diagnosis{}, 0) }
	for name, document := range map[string]func() *story.Document{
		"incident": incident, "incident-v6": incidentV6, "trouble": trouble, "calm": calm, "empty": empty, "judged": judged,
	} {
		t.Run(name, func(t *testing.T) {
			if err := follows(t, "diagnosis", jsonOf(t, document())); err != nil {
				t.Error(err)
			}
		})
	}
}

// judged is what the rules make of busyHost: real findings and remedies.
func judged() *story.Document {
	s := busyHost()
	return story.NewDocument(s, diagnose.Judge(s, diagnose.DefaultThresholds()), time.Second)
}

// TestSchemaRefuses: a schema that takes anything would prove nothing.
func TestSchemaRefuses(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"null for an array", `"owners":[]`, `"owners":null`},
		{"another schema", "linger.diagnosis/1", "linger.diagnosis/2"},
		{"an unknown severity", `"severity":"critical"`, `"severity":"bad"`},
		{"an unknown state", `"ESTABLISHED"`, `"ESTAB"`},
		{"an unknown member", `"elapsed_ms"`, `"elapsed"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := jsonOf(t, incident())
			spoilt := strings.Replace(out, c.old, c.new, 1)
			if spoilt == out {
				t.Fatalf("the document has no %s", c.old)
			}
			if follows(t, "diagnosis", spoilt) == nil {
				t.Error("the schema takes it")
			}
		})
	}
}

// TestNewDocumentHasNoNullArrays walks the JSON of a bare finding.
func TestNewDocumentHasNoNullArrays(t *testing.T) {
	d := story.NewDocument(busyHost(), diagnose.Diagnosis{Findings: []diagnose.Finding{{Related: []diagnose.Finding{{}}}}}, 0)
	out := jsonOf(t, d)
	for _, name := range []string{"owners", "evidence", "ruled_out", "unsure", "remedies", "will_not_help", "related", "held",
		"unknown", "gaps", "clients"} {
		if strings.Contains(out, `"`+name+`":null`) {
			t.Errorf("%s is null", name)
		}
	}
}

// TestJSONIsWrittenInPieces: a document of many groups needs no more memory than
// one of few. The bound is far below the size of the document.
func TestJSONIsWrittenInPieces(t *testing.T) {
	s := busyHost()
	group := s.Namespaces[0].Groups[0]
	s.Namespaces[0].Groups = make([]snapshot.Group, 50_000)
	for i := range s.Namespaces[0].Groups {
		g := group
		g.Remote.Port = uint16(i + 1)
		s.Namespaces[0].Groups[i] = g
	}
	d := &story.Document{Snapshot: s}

	peak := &peakWriter{}
	if err := (JSON{}).Print(peak, d); err != nil {
		t.Fatal(err)
	}
	const bound = 4 << 20
	if peak.written < 10*bound {
		t.Fatalf("the document has %d bytes: too few to show anything", peak.written)
	}
	if peak.largest > 128<<10 {
		t.Errorf("a write has %d bytes", peak.largest)
	}
	if grown := int64(peak.live) - int64(peak.base); grown > bound {
		t.Errorf("writing %d bytes keeps %d bytes alive, want at most %d", peak.written, grown, bound)
	}
}

// peakWriter measures the live heap now and then while it is written to.
type peakWriter struct {
	written, largest int
	writes           int
	base, live       uint64
}

func (p *peakWriter) Write(data []byte) (int, error) {
	p.written += len(data)
	p.largest = max(p.largest, len(data))
	if p.writes++; p.writes%256 == 1 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if p.base == 0 {
			p.base = m.HeapAlloc
		}
		p.live = max(p.live, m.HeapAlloc)
	}
	return len(data), nil
}

func TestStream(t *testing.T) {
	var out strings.Builder
	s := newStream(&out)
	s.object(func() {
		s.member("a", "<&>\x1b\xff")
		s.name("none")
		s.array(func() {})
		elements(s, "some", []int{1, 2})
		s.name("nested")
		s.array(func() {
			for range 2 {
				s.separate()
				s.object(func() { s.member("x", nil) })
			}
		})
	})
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := map[string]any{
		"a": "<&>\x1b\ufffd", "none": []any{}, "some": []any{1.0, 2.0},
		"nested": []any{map[string]any{"x": nil}, map[string]any{"x": nil}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !strings.Contains(out.String(), "<&>") {
		t.Error("signs of HTML are escaped")
	}
}

type full struct{ room int }

var errFull = errors.New("no space left on device")

func (w *full) Write(data []byte) (int, error) {
	if w.room -= len(data); w.room < 0 {
		return 0, errFull
	}
	return len(data), nil
}

func TestAFailureToWriteIsToldByEachPrinter(t *testing.T) {
	d := incident()
	for name, err := range map[string]error{
		"JSON":     JSON{}.Print(&full{}, d),
		"text":     Text{Style: Style{Width: 80}}.Print(&full{}, story.Diagnosis(d, false)),
		"Markdown": Markdown{}.Print(&full{}, story.Diagnosis(d, true)),
	} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: got %v, want %v", name, err, errFull)
		}
	}
}

func TestAValueThatJSONLacksIsAnError(t *testing.T) {
	d := incident()
	d.Diagnosis.Findings[0].Evidence[0].Value = math.NaN()
	var unsupported *json.UnsupportedValueError
	if err := (JSON{}).Print(io.Discard, d); !errors.As(err, &unsupported) {
		t.Errorf("got %v", err)
	}
}

func TestBudgetStandsBesideItsGroup(t *testing.T) {
	var got struct {
		Namespaces []struct {
			Groups []struct {
				Role   tcp.Role
				Budget *struct{ Ports, Used int }
			}
		}
	}
	s := busyHost()
	s.Namespaces[0].Groups = append(s.Namespaces[0].Groups, snapshot.Group{Role: tcp.Acceptor, Local: endpoint("*:8080")})
	if err := json.Unmarshal([]byte(jsonOf(t, &story.Document{Snapshot: s})), &got); err != nil {
		t.Fatal(err)
	}
	groups := got.Namespaces[0].Groups
	if b := groups[0].Budget; b == nil || b.Ports != 28_232 || b.Used != 28_190 {
		t.Errorf("the connector's budget is %+v", b)
	}
	if groups[1].Budget != nil {
		t.Errorf("the acceptor has a budget")
	}
}
