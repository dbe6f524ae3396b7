package plan

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"linger/internal/diagnose"
	"linger/internal/setting"
)

// sample is a plan of one change.
func sample() *Plan {
	return &Plan{
		Schema: Schema, MadeAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Host:     Host{Name: "web1", Kernel: "6.18.0", BootID: "b"},
		Problems: []diagnose.Slug{}, Notes: []string{}, Counters: []Counters{},
		Changes: []Change{{
			Scope: Scope{Cookie: 7, Inode: 4026531840, Label: "netns shop", Path: "/run/netns/shop"},
			Key:   setting.TWReuse, Old: "2", New: "1", Effects: []Effect{}, Dependents: []string{},
		}},
	}
}

func encode(t testing.TB, p *Plan) string {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseReadsWhatWasWritten(t *testing.T) {
	want := sample()
	got, err := Parse(strings.NewReader(encode(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A plan that was edited by hand is read as strictly as one that was made.
func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*Plan)
		want string
	}{
		"another form":          {func(p *Plan) { p.Schema = "linger.plan/2" }, `"linger.plan/2", want "linger.plan/1"`},
		"no boot":               {func(p *Plan) { p.Host.BootID = "" }, "names no boot"},
		"a key that is none":    {func(p *Plan) { p.Changes[0].Key = "kernel.panic" }, "is no key that linger changes"},
		"a path in a key":       {func(p *Plan) { p.Changes[0].Key = "net.ipv4.tcp_tw_reuse/../x" }, "is no key that linger changes"},
		"a value out of bounds": {func(p *Plan) { p.Changes[0].New = "3" }, "want a number from 0 to 2"},
		"a value that is none":  {func(p *Plan) { p.Changes[0].New = "yes" }, "want a number from 0 to 2"},
		"no old value":          {func(p *Plan) { p.Changes[0].Old = "" }, "no old value"},
		"no namespace":          {func(p *Plan) { p.Changes[0].Scope = Scope{Label: "host"} }, "names no namespace"},
		"a scope that is wrong": {func(p *Plan) { p.Changes[0].Scope.HostWide = true }, "for each namespace"},
		"a key twice":           {func(p *Plan) { p.Changes = append(p.Changes, p.Changes[0]) }, "changed twice"},
		"a range that is reversed": {
			func(p *Plan) { p.Changes[0].Key, p.Changes[0].New = setting.LocalPortRange, "60000 1024" }, "the lower first",
		},
		"a range of services": {func(p *Plan) { p.Changes[0].Key, p.Changes[0].New = setting.LocalPortRange, "1 65535" }, "from 1024 on"},
		"a refused change": {func(p *Plan) {
			p.Changes[0].Key, p.Changes[0].Old, p.Changes[0].New = setting.FinTimeout, "60", "30"
		}, "--force overrules it"},
		"one that cannot be forced": {func(p *Plan) {
			p.Changes[0].Key, p.Changes[0].Old, p.Changes[0].New, p.Changes[0].Forced = setting.TWRecycle, "0", "1", "I know"
		}, "behind NAT"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sample()
			test.edit(p)
			if _, err := Parse(strings.NewReader(encode(t, p))); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	for text, want := range map[string]string{
		"":   "is no JSON",
		"{}": `the plan is ""`,
		`{"schema":"linger.plan/1"` + `,"changes":[{"kye":1}]}`: "unknown field",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// What is known to harm is refused, each with what to do instead, and only what the
// kernel takes can be forced.
func TestRefuse(t *testing.T) {
	for _, test := range []struct {
		key, old, new  string
		refused, legal bool
	}{
		{setting.FinTimeout, "60", "59", true, true},
		{setting.FinTimeout, "30", "60", false, false},
		{setting.FinTimeout, "60", "90", false, false},
		{setting.TWRecycle, "0", "1", true, false},
		{setting.MaxTWBuckets, "131072", "131071", true, true},
		{setting.MaxTWBuckets, "131072", "262144", false, false},
		{setting.RFC1337, "0", "1", true, true},
		{setting.RFC1337, "1", "0", false, false},
		{setting.Timestamps, "1", "0", true, true},
		{setting.Timestamps, "0", "1", false, false},
		{setting.TWReuse, "2", "1", false, false},
	} {
		r := Refuse(test.key, test.old, test.new)
		if (r != nil) != test.refused {
			t.Errorf("%s %s → %s: refused %v", test.key, test.old, test.new, r)
			continue
		}
		if r != nil && (r.Legal != test.legal || r.Instead == "" || strings.Contains(r.Error(), "--force") != test.legal) {
			t.Errorf("%s: %v", test.key, r)
		}
	}
}

func TestEachKeyIsDescribed(t *testing.T) {
	for _, name := range Keys() {
		k, err := keyOf(name)
		if err != nil || k.Does == "" || k.Risk == "" || k.Kernels == "" || len(k.Dependents) == 0 {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// FuzzParse: no plan is read that could not be written, and one that is read stays
// the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(encode(f, sample())))
	f.Add([]byte(`{"schema":"linger.plan/1","host":{"boot_id":"b"},"changes":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := Parse(strings.NewReader(encode(t, p)))
		if err != nil {
			t.Fatalf("written and refused: %v", err)
		}
		if encode(t, p) != encode(t, again) {
			t.Fatal("it changed by being written")
		}
	})
}
