package render

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"linger/internal/snapshot"
	"linger/internal/story"
	"linger/internal/tcp"
)

func traced() *snapshot.Traced {
	service := tcp.Endpoint{Addr: netip.MustParseAddr("10.9.0.2"), Port: 5432}
	return &snapshot.Traced{Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), MS: 2000, Groups: []snapshot.TracedGroup{
		{
			TracedKey: snapshot.TracedKey{Process: "postgres", Role: tcp.Acceptor, Local: service}, Netns: "netns db",
			TracedCounts: snapshot.TracedCounts{Opens: 900, ClosedThere: 900, Lives: snapshot.Histogram{{Least: 2000, N: 900}}},
		},
		{
			TracedKey: snapshot.TracedKey{
				Process: "check\x1bout",
				Role:    tcp.Connector,
				Remote:  service,
			},
			Container: "0123456789ab",
			Netns:     "netns shop",
			TracedCounts: snapshot.TracedCounts{
				Opens:       901,
				ClosedHere:  899,
				AbortedHere: 1,
				Live:        1,
				Failed:      map[string]uint64{"no-port": 7},
				Lives:       snapshot.Histogram{{Least: 2000, N: 900}},
			},
		},
		{
			TracedKey: snapshot.TracedKey{Process: "other", Role: tcp.Connector, Remote: service}, Container: "0123456789ab", Netns: "netns shop",
			TracedCounts: snapshot.TracedCounts{Opens: 1, ResetThere: 1},
		},
	}}
}

func TestTraceTable(t *testing.T) {
	for by, want := range map[story.TraceBy]string{
		story.ByProcess: `03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 s; per second:
process       where         role       opens  FIN here  FIN there  RST here  RST there  failed  open   p50   p99
check\x1bout  0123456789ab  connector    451       450          0      0.50          0     3.5     1  2 ms  2 ms
postgres      netns db      acceptor     450         0        450         0          0       0     0  2 ms  2 ms
other         0123456789ab  connector   0.50         0          0         0       0.50       0     0     –     –
all                                      901       450        450      0.50       0.50     3.5     1  2 ms  2 ms
`,
		story.ByContainer: `03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 s; per second:
container       where         role       opens  FIN here  FIN there  RST here  RST there  failed  open   p50   p99
0123456789ab    0123456789ab  connector    451       450          0      0.50       0.50     3.5     1  2 ms  2 ms
(no container)  netns db      acceptor     450         0        450         0          0       0     0  2 ms  2 ms
all                                        901       450        450      0.50       0.50     3.5     1  2 ms  2 ms
`,
		story.ByReason: `03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 s; per second:
reason                      number
closed there first             450
closed here first              450
connect() failed: no-port      3.5
dropped here without a FIN    0.50
reset there                   0.50
`,
	} {
		t.Run(string(by), func(t *testing.T) {
			var out bytes.Buffer
			lines, err := Table{}.Print(&out, story.Trace(traced(), story.TraceForm{By: by}))
			if err != nil || lines != strings.Count(want, "\n") {
				t.Errorf("%d lines, %v", lines, err)
			}
			if out.String() != want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
		})
	}
}

func TestTraceTableWide(t *testing.T) {
	of := traced()
	of.Groups = of.Groups[:1]
	of.Groups[0].Sent = snapshot.Histogram{{Least: 2048, N: 899}, {Least: 1 << 20, N: 1}}
	of.Past = snapshot.TracedCounts{Opens: 1, ClosedHere: 1, Received: snapshot.Histogram{{Least: 0, N: 1}}}
	var out bytes.Buffer
	if _, err := (Table{}).Print(&out, story.Trace(of, story.TraceForm{By: story.ByProcess, Wide: true, Total: true})); err != nil {
		t.Fatal(err)
	}
	// What is said of bytes stands to the right of the rest.
	want := "TOTAL  03:04:07  901 opened, 901 ended, 0 failed in 2.0 s; in all:\n" +
		"process     where     role      opens  FIN here  FIN there  RST here  RST there  failed  open   p50   p99" +
		"  sent p50  sent p99  received p50  received p99\n" +
		"postgres    netns db  acceptor    900         0        900         0          0       0     0  2 ms  2 ms" +
		"     2 KiB     2 KiB             –             –\n" +
		"(given up)            –             1         1          0         0          0       0     0     –     –" +
		"         –         –           0 B           0 B\n" +
		"all                               901         1        900         0          0       0     0  2 ms  2 ms" +
		"     2 KiB     2 KiB           0 B           0 B\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// On a screen no line may wrap: a table that is too wide is set narrower, and what is left out is
// counted.
func TestTraceTableFitsTheScreen(t *testing.T) {
	for width, want := range map[int]string{
		80: `TOTAL  03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 s; in all:
                                   FIN   FIN  RST   RST
process      where          opens here there here there failed open  p50  p99
check\x1bout 0123456789ab →   901  899     0    1     0      7    1 2 ms 2 ms
all                         1,802  899   900    1     1      7    1 2 ms 2 ms
2 more rows
`,
		74: `TOTAL  03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 s; in all:
                                FIN   FIN  RST   RST
process      where       opens here there here there failed open  p50  p99
check\x1bout 01234567… →   901  899     0    1     0      7    1 2 ms 2 ms
all                      1,802  899   900    1     1      7    1 2 ms 2 ms
2 more rows
`,
		60: `TOTAL  03:04:07  1,802 opened, 1,801 ended, 7 failed in 2.0 
                  FIN   FIN  RST   RST
process    opens here there here there failed open  p50  p99
check\x… →   901  899     0    1     0      7    1 2 ms 2 ms
all        1,802  899   900    1     1      7    1 2 ms 2 ms
2 more rows
`,
	} {
		var out bytes.Buffer
		if _, err := (Table{Cut: width}).Print(
			&out,
			story.Trace(traced(), story.TraceForm{By: story.ByProcess, Rows: 1, Total: true}),
		); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("on %d columns\n%s\nwant\n%s", width, out.String(), want)
		}
	}
}

func TestTraceEnd(t *testing.T) {
	life := 12.5
	e := &snapshot.EndedConnection{
		Ended: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Process: "check\x1bout", PID: 17, Role: tcp.Connector,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("::1"), Port: 40000}, Remote: tcp.Endpoint{Addr: netip.MustParseAddr("::1"), Port: 80},
		Ending: "aborted-here", Reason: "tcp_state", LifeMS: &life, BytesSent: 3, BytesReceived: 2048, Weight: 64,
	}
	want := `03:04:05.006  check\x1bout (17)        [::1]:40000 -> [::1]:80  aborted-here (tcp_state)  12 ms  sent 3 B, received 2 KiB  x 64`
	if got := (Style{ASCII: true}).show(story.TraceEnd(e)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
