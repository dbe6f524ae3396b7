package diagnose

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// form is what each page of a problem holds, in this order.
var form = []string{
	"In plain words",
	"What is true when this is reported",
	"Why it happens",
	"Check by hand",
	"What helps, in this order",
	"What does not help",
	"When to leave it alone",
	"What linger cannot see",
}

// sections are those of a problem's page, by title, and the titles in order.
func sections(t *testing.T, slug Slug) (titles []string, text map[string]string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/problems/" + string(slug) + ".md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "# " + string(slug) + ": "; !strings.HasPrefix(string(page), want) {
		t.Errorf("the page of %s does not begin with %q", slug, want)
	}
	text = map[string]string{}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		titles = append(titles, title)
		text[title] = strings.TrimSpace(body)
	}
	return titles, text
}

func TestPagesHaveOneForm(t *testing.T) {
	for _, rule := range Rules() {
		titles, text := sections(t, rule.Slug)
		if diff := cmp.Diff(form, titles); diff != "" {
			t.Errorf("%s: %s", rule.Slug, diff)
		}
		for title, body := range text {
			if body == "" {
				t.Errorf("%s: %q is empty", rule.Slug, title)
			}
		}
		// Plain words are prose, without the names of counters, functions and settings.
		if code := regexp.MustCompile("`[^`]*_[^`]*`|/proc|RFC").FindString(text["In plain words"]); code != "" {
			t.Errorf("%s: its plain words say %s", rule.Slug, code)
		}
	}
}

// The numbers from which on a problem is reported are those of the thresholds.
func TestPagesNameTheThresholds(t *testing.T) {
	for _, threshold := range ThresholdTable() {
		slug, _, _ := strings.Cut(threshold.Name, ".")
		_, text := sections(t, Slug(slug))
		number := strconv.FormatFloat(threshold.Default, 'f', -1, 64)
		if threshold.Unit == percentUnit {
			number += " %"
		}
		said := regexp.MustCompile(`(^|[^\d.,])` + number + `($|[^\d,])`)
		if !said.MatchString(strings.Join(strings.Fields(text["What is true when this is reported"]), " ")) {
			t.Errorf("the page of %s does not say %s, which is %s", slug, number, threshold.Name)
		}
	}
}

// remedyWords are how the pages name the remedies.
var remedyWords = map[RemedyID]string{
	KeepConnections:        `(?i)keep connections|a pool in the client`,
	PeerClosesFirst:        `(?i)let the (server|client|other side) close first`,
	KeepAlive:              `(?i)keep-alive in the serv(er|ice)`,
	MoreAddresses:          `(?i)more addresses`,
	BindAddressNoPort:      `IP_BIND_ADDRESS_NO_PORT`,
	WidenPortRange:         `(?i)a wider range|widen the range`,
	ReuseOn:                `tcp_tw_reuse=1`,
	ReuseDelayDefault:      `tcp_tw_reuse|the delay back at 1000`,
	TimestampsOn:           `time stamps`,
	RaiseBuckets:           `(?i)raise .*tcp_max_tw_buckets|raise the limit`,
	FinTimeoutDefault:      `(?i)put (it|tcp_fin_timeout) back`,
	CloseSockets:           `(?i)close (them )?in the program`,
	AcceptSooner:           `(?i)accept connections sooner`,
	RaiseBacklog:           `(?i)ask listen\(\) for a longer queue`,
	RaiseSomaxconn:         `somaxconn`,
	PeerCloses:             `(?i)let the peer close`,
	BoundHalfClose:         `(?i)within a bounded time`,
	ReachPeer:              `(?i)what became of the peer`,
	FewerOrphanRetries:     `tcp_orphan_retries`,
	RaiseMaxOrphans:        `(?i)raise the limit of orphans`,
	RecycleOff:             `(?i)take tcp_tw_recycle out`,
	CloseWithFIN:           `(?i)with a FIN`,
	ReadToEnd:              `(?i)read to the end`,
	ProbeIdle:              `(?i)probe idle connections`,
	IdleBelowPeer:          `(?i)give idle connections up`,
	LongerConntrack:        `(?i)connection tracking remember for longer`,
	RFC1337Off:             `tcp_rfc1337`,
	NATMemory:              `(?i)let the NAT remember`,
	ReadFaster:             `(?i)take the data in time`,
	RaiseTCPMem:            `(?i)let TCP have more memory`,
	SpreadSoftirq:          `(?i)let more CPUs receive`,
	RaiseNetdevBacklog:     `(?i)lengthen the CPUs' queues`,
	RaiseTracked:           `(?i)raise the limit of tracked connections`,
	ShorterTrackedTimeWait: `(?i)forget closed connections after 60 s`,
	NoTrack:                `(?i)do not track`,
	MoreNATAddresses:       `(?i)translate to more addresses`,
	WiderNATPorts:          `(?i)let the translation use all ports`,
	ReservePort:            `(?i)reserve the port`,
	ReuseAddress:           `SO_REUSEADDR`,
	EndBlocker:             `(?i)end the connection that sits`,
	RestartProcess:         `(?i)restart it`,
	LingerZero:             `SO_LINGER`,
}

// beginHere are the remedies with which a finding may begin although its page
// has others before: the page says in which case.
var beginHere = map[Slug]RemedyID{
	AcceptQueueOverflow: RaiseBacklog,
	VanishedConnections: IdleBelowPeer,
}

var item = regexp.MustCompile(`(?m)^\d+\. `)

// helpsInOrder tells how a finding's remedies and its page disagree, "" for not at all.
func helpsInOrder(f Finding, helps string) string {
	items := item.Split(helps, -1)[1:]
	last := 0
	for i, id := range f.Remedies {
		words := regexp.MustCompile(remedyWords[id])
		at := slices.IndexFunc(items, func(text string) bool { return words.MatchString(strings.Join(strings.Fields(text), " ")) })
		switch {
		case remedyWords[id] == "" || at < 0:
			return "the page does not name " + string(id)
		case i == 0 && beginHere[f.Problem] == id && strings.Contains(items[at], "begin here"):
			continue
		case at < last:
			return "the page has " + string(id) + " before another that the finding names first"
		}
		last = at
	}
	return ""
}

// Whatever is found, its remedies are on its page, in the same order.
func TestPagesHaveTheRemediesInTheirOrder(t *testing.T) {
	helps := map[Slug]string{}
	for _, rule := range Rules() {
		_, text := sections(t, rule.Slug)
		helps[rule.Slug] = text["What helps, in this order"]
		for _, id := range rule.Remedies {
			if why := helpsInOrder(Finding{Problem: rule.Slug, Remedies: []RemedyID{id}}, helps[rule.Slug]); why != "" {
				t.Errorf("%s: %s", rule.Slug, why)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		for _, trouble := range drawTroubles(t) {
			if len(s.Namespaces) > 0 && s.Namespaces[0].Sockstat != nil {
				trouble(s)
			}
		}
		for _, f := range everyFinding(Judge(s, DefaultThresholds())) {
			if why := helpsInOrder(f, helps[f.Problem]); why != "" {
				t.Fatalf("%s, %v: %s", f.Problem, f.Remedies, why)
			}
		}
	})
	for _, f := range everyFinding(Judge(allAtOnce(), DefaultThresholds())) {
		if why := helpsInOrder(f, helps[f.Problem]); why != "" {
			t.Errorf("%s, %v: %s", f.Problem, f.Remedies, why)
		}
	}
}

func everyFinding(d Diagnosis) []Finding {
	var all []Finding
	for _, f := range d.Findings {
		all = append(append(all, f), f.Related...)
	}
	return all
}

// drawTroubles are some of the changes that make a problem.
func drawTroubles(t *rapid.T) []func(*snapshot.Snapshot) {
	some := func(name string) uint64 { return rapid.SampledFrom([]uint64{0, 9, 300}).Draw(t, name) }
	rises := map[string]uint64{
		estabResets: some("resets"), listenOverflows: some("overflows"), listenDrops: some("drops"), pawsTimeWait: some("PAWS"),
	}
	for _, a := range aborts {
		rises[a.counter] = some(a.counter)
	}
	backlog := rapid.SampledFrom([]uint32{16, 4096}).Draw(t, "backlog")
	silent := connector(client, service, 200, 0, nil)
	silent.Unanswered[tcp.Established] = int(some("silent"))
	all := []func(*snapshot.Snapshot){
		rose(rises),
		listening(rapid.SampledFrom([]uint32{0, backlog + 1}).Draw(t, "queued"), backlog),
		with(silent),
		with(halfClosed(int(some("orphaned")), int(some("owned")))),
		with(dying(int(some("dying")), 0)),
		with(leaking(int(some("leaking")), 0, owner("curl", 7, 10, 1000))),
		with(odd(400, int(some("odd")))),
		tracking(rapid.SampledFrom([]int64{10, 80, 95}).Draw(t, "tracked"), 100,
			map[string]uint64{"insert_failed": some("failed")}, sampled(30, 60, 90, true)),
		wanting(rapid.Bool().Draw(t, "asked"), int(some("remains")), rapid.IntRange(0, 1).Draw(t, "outgoing")),
		set(keyRFC1337, "1"), set(keyRecycle, "1"),
		host(func(h *snapshot.Host) {
			n, pages := int64(some("orphans")), int64(some("pages"))
			h.Orphans, h.TCPMemoryPages = &n, &pages
			h.Settings[keyMaxOrphans] = "100"
		}),
	}
	left := rapid.Bool()
	return slices.DeleteFunc(all, func(func(*snapshot.Snapshot)) bool { return left.Draw(t, "left out") })
}
