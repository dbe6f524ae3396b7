package render

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"linger/internal/figure"
	"linger/internal/snapshot"
	"linger/internal/tcp"
)

// TraceTable writes what was traced for a person.
type TraceTable struct {
	Style Style
	By    TraceBy
	// Wide adds what single connections have sent and received.
	Wide bool
	// Rows is how many are written, the busiest; 0 is all.
	Rows int
	// Cut is the width of a screen on which no line may wrap: a table that is wider is set
	// narrower, and at last cut. 0 leaves lines whole.
	Cut int
}

// Print writes one table: of an interval the numbers per second, of a whole trace the numbers
// themselves. It returns how many lines it wrote.
func (t TraceTable) Print(w io.Writer, traced *snapshot.Traced, total bool) (lines int, err error) {
	out := bufio.NewWriter(w)
	for _, line := range t.lines(traced, total) {
		fmt.Fprintln(out, line)
		lines++
	}
	return lines, out.Flush()
}

func (t TraceTable) lines(traced *snapshot.Traced, total bool) []string {
	per := float64(traced.MS) / 1000
	unit := "per second"
	if total {
		per, unit = 1, "in all"
	}
	n := func(v uint64) string { return figure.Number(roundTo(float64(v)/per, 2)) }
	sum := traced.Total()
	left := 0
	var cells [][]string
	var all []traceRow
	columns := t.columns()
	if t.By == ByReason {
		columns = []traceColumn{{second: "reason", words: true}, {second: "number"}}
		for _, r := range reasons(&sum) {
			cells = append(cells, []string{r.name, n(r.n)})
		}
	} else {
		all = rows(traced, t.By)
		if t.Rows > 0 && len(all) > t.Rows {
			all, left = all[:t.Rows], len(all)-t.Rows
		}
		for _, r := range all {
			cells = append(cells, append([]string{r.name, r.where, roleWord(r.role)}, t.numbers(&r.TracedCounts, n)...))
		}
		if len(cells) > 1 || left > 0 {
			cells = append(cells, append([]string{"all", "", ""}, t.numbers(&sum, n)...))
		}
	}
	lines := []string{t.Style.paint(strong, t.cut(t.title(traced, &sum, total, unit)))}
	if len(cells) > 0 {
		lines = append(lines, t.layOut(columns, cells)...)
	}
	if left > 0 {
		lines = append(lines, t.Style.paint(faint, figure.Of(left, "more row", "more rows")))
	}
	if missed := traced.Missed; missed != nil && *missed > 0 {
		lines = append(lines, t.Style.paint(toneWarning, t.cut(clean(figure.Of(int(*missed), "event was missed", "events were missed")+
			" by the kernel: a row may lack that many (docs/tracing.md)", t.Style.ASCII))))
	}
	return lines
}

func (t TraceTable) title(traced *snapshot.Traced, sum *snapshot.TracedCounts, total bool, unit string) string {
	at := traced.Began.Add(time.Duration(traced.MS) * time.Millisecond).Format("15:04:05")
	text := fmt.Sprintf("%s  %s opened, %s ended, %s failed in %s", at, figure.Count(sum.Opens), figure.Count(sum.Ended()),
		figure.Count(sum.Failures()), figure.Elapsed(time.Duration(traced.MS)*time.Millisecond))
	if total {
		text = "TOTAL  " + text
	}
	return clean(text+"; "+unit+":", t.Style.ASCII)
}

// traceColumn is a column, whose name is in two words where that makes it narrower.
type traceColumn struct {
	first, second string
	words         bool // and not numbers
}

func (t TraceTable) columns() []traceColumn {
	columns := []traceColumn{
		{second: string(t.By), words: true}, {second: "where", words: true}, {second: "role", words: true}, {second: "opens"},
		{first: "FIN", second: "here"}, {first: "FIN", second: "there"}, {first: "RST", second: "here"}, {first: "RST", second: "there"},
		{second: "failed"}, {second: "open"}, {second: "p50"}, {second: "p99"},
	}
	if t.Wide {
		columns = append(columns, traceColumn{first: "sent", second: "p50"}, traceColumn{first: "sent", second: "p99"},
			traceColumn{first: "received", second: "p50"}, traceColumn{first: "received", second: "p99"})
	}
	return columns
}

// numbers are the cells of all columns but the words.
func (t TraceTable) numbers(c *snapshot.TracedCounts, n func(uint64) string) []string {
	life := func(q float64) string {
		us, known := c.Lives.Quantile(q)
		if !known {
			return "–"
		}
		return figure.Elapsed(time.Duration(us) * time.Microsecond)
	}
	size := func(h snapshot.Histogram, q float64) string {
		bytes, known := h.Quantile(q)
		if !known {
			return "–"
		}
		return figure.Size(int64(bytes))
	}
	cells := []string{n(c.Opens), n(c.ClosedHere), n(c.ClosedThere), n(c.AbortedHere), n(c.ResetThere + c.TimedOut),
		n(c.Failures()), figure.Count(c.Live), life(0.5), life(0.99)}
	if t.Wide {
		cells = append(cells, size(c.Sent, 0.5), size(c.Sent, 0.99), size(c.Received, 0.5), size(c.Received, 0.99))
	}
	return cells
}

func roleWord(role tcp.Role) string {
	if role == tcp.RoleUnknown {
		return "–"
	}
	return string(role)
}

func roundTo(v float64, digits int) float64 {
	scale := 1.0
	for range digits {
		scale *= 10
	}
	return float64(int64(v*scale+0.5)) / scale
}

// The columns of words, but in a table of reasons.
const (
	nameColumn = iota
	whereColumn
	roleColumn
)

// Of a namespace's label a table shows so many columns at most; of a name and a label on a narrow
// screen so many at least.
const (
	widestWhere   = 24
	narrowestName = 8
)

// layOut makes columns, the words to the left and the numbers to the right. Where they are too
// wide for the screen, names of columns take two lines, and roles are arrows; then namespaces are
// cut short or left out, and then names are cut.
func (t TraceTable) layOut(columns []traceColumn, rows [][]string) []string {
	for _, row := range rows {
		for i := range row {
			row[i] = clean(row[i], t.Style.ASCII)
		}
		if t.By != ByReason {
			row[whereColumn] = t.shorten(row[whereColumn], widestWhere)
		}
	}
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = strings.TrimSpace(c.first + " " + c.second)
	}
	table, gap := append([][]string{head}, rows...), 2
	if t.Cut == 0 || t.By == ByReason || lineWidth(widths(table), gap) <= t.Cut {
		return t.align(table, columns, 1, gap)
	}

	first, second := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		first[i], second[i] = c.first, c.second
	}
	second[roleColumn] = ""
	table, gap = append([][]string{first, second}, rows...), 1
	arrows := map[string]string{string(tcp.Connector): clean("→", t.Style.ASCII), string(tcp.Acceptor): clean("←", t.Style.ASCII)}
	for _, row := range rows {
		row[roleColumn] = cmp.Or(arrows[row[roleColumn]], row[roleColumn])
	}
	wide := widths(table)
	room := wide[whereColumn] + t.Cut - lineWidth(wide, gap)
	if room < narrowestName {
		for i, row := range table {
			table[i] = append(row[:whereColumn:whereColumn], row[whereColumn+1:]...)
		}
		columns = append(columns[:whereColumn:whereColumn], columns[whereColumn+1:]...)
		wide = widths(table)
		name := max(narrowestName, wide[nameColumn]+t.Cut-lineWidth(wide, gap))
		for _, row := range table {
			row[nameColumn] = t.shorten(row[nameColumn], name)
		}
	} else {
		for _, row := range table {
			row[whereColumn] = t.shorten(row[whereColumn], room)
		}
	}
	return t.align(table, columns, 2, gap)
}

// align pads the cells of a table, whose first lines are its head.
func (t TraceTable) align(table [][]string, columns []traceColumn, head, gap int) []string {
	wide := widths(table)
	var lines []string
	for at, row := range table {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			if columns[i].words {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
		}
		line := t.cut(strings.TrimRight(b.String(), " "))
		if at < head {
			line = t.Style.paint(faint, line)
		}
		lines = append(lines, line)
	}
	return lines
}

func widths(table [][]string) []int {
	wide := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	return wide
}

func lineWidth(widths []int, gap int) int {
	sum := gap * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

func (t TraceTable) shorten(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	mark := clean("…", t.Style.ASCII)
	return string([]rune(text)[:most-utf8.RuneCountInString(mark)]) + mark
}

func (t TraceTable) cut(line string) string {
	if t.Cut > 0 && utf8.RuneCountInString(line) > t.Cut {
		return string([]rune(line)[:t.Cut])
	}
	return line
}
