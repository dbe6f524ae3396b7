package story

// Table is rows of cells below their columns.
type Table struct {
	Title   Text
	Columns []Column
	Rows    [][]Cell
	// Below goes on with the table, Foot stands apart from it.
	Below, Foot []Item
}

// Column is a column, whose name is in two words where that makes it narrower.
type Column struct {
	First, Second Text
	Words         bool // and not numbers
	// Most is how many columns of a screen a cell takes at most, 0 for as many as it has.
	Most int
	Give Give
}

// Give is what a column gives up where the screen is narrow.
type Give int

// GiveFirst: its cells are cut short, and then it is left out. GiveLast: its cells are cut
// short when nothing else helps. GiveWord: its cells are signs in place of words, and need
// no name.
const (
	GiveNothing Give = iota
	GiveFirst
	GiveLast
	GiveWord
)

// Cell is a text, or bars and the text beside them.
type Cell struct {
	Text Text
	Sign Text // in place of the text
	Bars *Bars
}

func cells(texts ...string) []Cell {
	out := make([]Cell, len(texts))
	for i, text := range texts {
		out[i].Text = Clean(text)
	}
	return out
}

// words are columns of words with these names.
func words(names ...string) []Column {
	out := make([]Column, len(names))
	for i, name := range names {
		out[i] = Column{Second: Clean(name), Words: true}
	}
	return out
}
