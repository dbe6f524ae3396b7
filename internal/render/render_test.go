package render

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/story"
)

var update = flag.Bool("update", false, "write the golden files anew")

var documents = map[string]func() *story.Document{
	"incident":    incident,
	"incident-v6": incidentV6,
	"notes":       incidentAndNotes,
	"unread":      unread,
	"trouble":     trouble,
	"calm":        calm,
}

func TestTextGolden(t *testing.T) {
	styles := map[string]Style{
		"80":         {Width: 80},
		"120":        {Width: 120},
		"80-colour":  {Width: 80, Colour: true},
		"80-ascii":   {Width: 80, ASCII: true},
		"80-verbose": {Width: 80, Verbose: true},
	}
	for name, document := range documents {
		for form, style := range styles {
			t.Run(name+"-"+form, func(t *testing.T) {
				golden(t, name+"-"+form+".txt", laidOut(t, document(), style))
			})
		}
	}
}

func TestJSONGolden(t *testing.T) {
	for name, document := range documents {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".json", jsonOf(t, document()))
		})
	}
}

func TestMarkdownGolden(t *testing.T) {
	for name, document := range documents {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".md", markdownOf(t, document()))
		})
	}
}

// TestOneProblemFitsAPage: an incident's terminal shows one problem whole.
func TestOneProblemFitsAPage(t *testing.T) {
	documents := map[string]func() *story.Document{
		"incident":    incident,
		"incident-v6": incidentV6,
		"notes":       incidentAndNotes,
		"judged":      judged,
		"stranger":    stranger,
	}
	for name := range documents {
		for _, width := range []int{80, 100, 120} {
			if n := strings.Count(laidOut(t, documents[name](), Style{Width: width}), "\n"); n > pageLines {
				t.Errorf("%s at %d columns has %d lines, want at most %d", name, width, n, pageLines)
			}
		}
	}
}

// TestVerboseTellsNothingTwice: what a related finding shares with those above it
// is not told again, and its remedies are named.
func TestVerboseTellsNothingTwice(t *testing.T) {
	d := incident()
	related := exhaustion()
	related.Problem, related.Related = "client-closes-first", nil
	related.Evidence = append(
		related.Evidence,
		diagnose.Evidence{Name: "began", Value: 48, Unit: "s ago", Source: "sock_diag", Check: "ss -Htano"},
	)
	d.Diagnosis.Findings[0].Related = []diagnose.Finding{related}
	d.Remedies = func(diagnose.Finding) []remedy.Remedy { return remedies(exhaustion()) }

	out := laidOut(t, d, Style{Width: 80, Verbose: true})
	for _, once := range []string{
		"api-server (pid 4242", "60 s ago", "memory of TIME_WAIT", "accept queue", "now       sysctl -w net.ipv4.tcp_tw_reuse=1",
		"lower tcp_fin_timeout",
		"The kernel forgets", "ss -Htano", "3. Widen the ephemeral port range: as above",
	} {
		if n := strings.Count(out, once); n != 1 {
			t.Errorf("%q is told %d times, want once:\n%s", once, n, out)
		}
	}
}

// TestMissingInALine: what is missing is named where a line has room for it.
func TestMissingInALine(t *testing.T) {
	d := incidentAndNotes()
	for width, want := range map[int]string{
		80: "owners of sockets, pressure: `linger -v`",
		40: "2 things were not read: `linger -v`",
	} {
		if got := laidOut(t, d, Style{Width: width}); !strings.Contains(strings.Join(strings.Fields(got), " "), "GAPS "+want) {
			t.Errorf("at %d columns no %q:\n%s", width, want, got)
		}
	}
}

// TestACommandStandsBeforeItsWords: the words of a remedy with a command say when
// the command is not enough.
func TestACommandStandsBeforeItsWords(t *testing.T) {
	d := incident()
	d.Remedies = func(diagnose.Finding) []remedy.Remedy {
		return []remedy.Remedy{{Title: "Restart the program", Now: "systemctl restart unit", Change: "Where no unit runs it, restart it."}}
	}
	out := laidOut(t, d, Style{Width: 80})
	if now, words := strings.Index(out, "now "), strings.Index(out, "Where no unit"); now < 0 || words < now {
		t.Errorf("the command does not stand first:\n%s", out)
	}
}

// TestNothingIsCut: whatever the width, what a person copies is there whole, and
// a line that is too long holds one such thing alone.
func TestNothingIsCut(t *testing.T) {
	d := incidentV6()
	for _, width := range []int{40, 60, 80, 100} {
		out := laidOut(t, d, Style{Width: width, Verbose: true})
		for _, whole := range []string{
			d.Diagnosis.Findings[0].Subject.Local.String(),
			d.Diagnosis.Findings[0].Subject.Remote.String(),
			"sysctl -w net.ipv4.tcp_tw_reuse=1",
			"/etc/sysctl.d/90-local.conf",
			"net.ipv4.ip_local_port_range = 10240 60999",
			"ss -Htan src 10.0.0.5 dst 10.0.0.9 dport = :5432 | wc -l",
		} {
			if !strings.Contains(out, whole) {
				t.Errorf("at %d columns %q is cut", width, whole)
			}
		}
	}
	for line := range strings.Lines(laidOut(t, incident(), Style{Width: 80})) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
}

// TestColourAddsNothing: what colour shows is said in words too.
func TestColourAddsNothing(t *testing.T) {
	escape := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for name, document := range documents {
		plain := laidOut(t, document(), Style{Width: 80})
		coloured := laidOut(t, document(), Style{Width: 80, Colour: true})
		if plain == coloured {
			t.Errorf("%s has no colour", name)
		}
		if diff := cmp.Diff(plain, escape.ReplaceAllString(coloured, "")); diff != "" {
			t.Errorf("%s: -plain +colour\n%s", name, diff)
		}
	}
}

func TestHostileNamesDoNotReachTheTerminal(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		out := laidOut(t, trouble(), Style{Width: 80, Verbose: verbose})
		if strings.Contains(out, "\x1b") || !strings.Contains(out, `bill\x1b[2Jing`) {
			t.Errorf("verbose %v: the name of a process reaches the terminal unchanged", verbose)
		}
	}
}

func TestASCIIIsASCII(t *testing.T) {
	for name, document := range documents {
		out := laidOut(t, document(), Style{Width: 80, ASCII: true, Verbose: true})
		if i := strings.IndexFunc(out, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
			t.Errorf("%s holds %q", name, out[i:min(len(out), i+8)])
		}
	}
}

func laidOut(t *testing.T, d *story.Document, style Style) string {
	t.Helper()
	return written(t, func(w io.Writer) error { return Text{Style: style}.Print(w, story.Diagnosis(d, style.Verbose)) })
}

func jsonOf(t *testing.T, d *story.Document) string {
	t.Helper()
	return written(t, func(w io.Writer) error { return JSON{}.Print(w, d) })
}

func markdownOf(t *testing.T, d *story.Document) string {
	t.Helper()
	return written(t, func(w io.Writer) error { return Markdown{}.Print(w, story.Diagnosis(d, true)) })
}

// written is what something writes.
func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./internal/render -update writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got\n%s", name, diff)
	}
}
