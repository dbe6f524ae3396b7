package render

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"linger/internal/story"
)

// Table lays a table out in columns.
type Table struct {
	Style Style
	// Cut is the width of a screen on which no line may wrap: a table that is wider is set
	// narrower, and at last cut. 0 leaves lines whole.
	Cut int
}

// narrowestName is how many columns of a name and a label a narrow screen shows at least.
const narrowestName = 8

// Print writes a table. It returns how many lines it wrote.
func (t Table) Print(w io.Writer, table *story.Table) (n int, err error) {
	b := &block{style: t.Style}
	if !table.Title.IsZero() {
		b.lines = append(b.lines, t.Style.paint(story.Strong, t.clip(t.Style.show(table.Title))))
	}
	if len(table.Rows) > 0 || table.Title.IsZero() {
		b.lines = append(b.lines, t.layOut(table)...)
	}
	for _, item := range table.Below {
		b.lines = append(b.lines, t.Style.paint(item.Tone, t.clip(t.Style.show(item.Text))))
	}
	b.foot(table.Foot)
	return len(b.lines), b.print(w)
}

// foot adds lines after an empty one, each with its name in the margin.
func (b *block) foot(items []story.Item) {
	for i, item := range items {
		if i == 0 {
			b.lines = append(b.lines, "")
		}
		lead := ""
		if !item.Name.IsZero() {
			lead = pad(b.style.show(item.Name), margin)
		}
		b.lines = append(b.lines, lead+b.style.show(item.Text))
	}
}

// layOut makes columns, the words to the left and the numbers to the right. Where they are
// too wide for the screen, their names take two lines, and signs stand for words; then
// the column that gives first is cut short or left out, and then the one that gives last is
// cut.
func (t Table) layOut(table *story.Table) []string {
	columns := table.Columns
	rows := make([][]string, len(table.Rows))
	for at, row := range table.Rows {
		for i, cell := range row {
			text := t.cell(cell)
			if columns[i].Most > 0 {
				text = t.shorten(text, columns[i].Most)
			}
			rows[at] = append(rows[at], text)
		}
	}
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = strings.TrimSpace(t.Style.show(c.First) + " " + t.Style.show(c.Second))
	}
	whole, gap := append([][]string{head}, rows...), 2
	first := at(columns, story.GiveFirst)
	if t.Cut == 0 || first < 0 || lineWidth(widths(whole), gap) <= t.Cut {
		return t.align(whole, columns, 1, gap)
	}

	above, below := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		above[i], below[i] = t.Style.show(c.First), t.Style.show(c.Second)
		if c.Give != story.GiveWord {
			continue
		}
		below[i] = ""
		for n, row := range rows {
			if sign := table.Rows[n][i].Sign; !sign.IsZero() {
				row[i] = t.Style.show(sign)
			}
		}
	}
	whole, gap = append([][]string{above, below}, rows...), 1
	wide := widths(whole)
	if room := wide[first] + t.Cut - lineWidth(wide, gap); room >= narrowestName {
		t.shortenColumn(whole, first, room)
		return t.align(whole, columns, 2, gap)
	}
	for i, row := range whole {
		whole[i] = append(row[:first:first], row[first+1:]...)
	}
	columns = append(columns[:first:first], columns[first+1:]...)
	wide = widths(whole)
	if last := at(columns, story.GiveLast); last >= 0 {
		t.shortenColumn(whole, last, max(narrowestName, wide[last]+t.Cut-lineWidth(wide, gap)))
	}
	return t.align(whole, columns, 2, gap)
}

// at is the column that gives so, -1 for none.
func at(columns []story.Column, give story.Give) int {
	return slices.IndexFunc(columns, func(c story.Column) bool { return c.Give == give })
}

func (t Table) cell(c story.Cell) string {
	text := t.Style.show(c.Text)
	if c.Bars == nil {
		return strings.TrimRight(text, " ")
	}
	return t.Style.sparkline(c.Bars.Values) + " " + text
}

// align pads the cells of a table, whose first lines are its head.
func (t Table) align(table [][]string, columns []story.Column, head, gap int) []string {
	wide := widths(table)
	var lines []string
	for at, row := range table {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			if columns[i].Words {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
		}
		line := t.clip(strings.TrimRight(b.String(), " "))
		if at < head {
			line = t.Style.paint(story.Faint, line)
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

func (t Table) shortenColumn(table [][]string, column, most int) {
	for _, row := range table {
		row[column] = t.shorten(row[column], most)
	}
}

func (t Table) shorten(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	mark := t.Style.spell("…")
	return string([]rune(text)[:most-utf8.RuneCountInString(mark)]) + mark
}

func (t Table) clip(line string) string {
	if t.Cut > 0 && utf8.RuneCountInString(line) > t.Cut {
		return string([]rune(line)[:t.Cut])
	}
	return line
}
