package render

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	tableast "github.com/yuin/goldmark/extension/ast"
	source "github.com/yuin/goldmark/text"

	"linger/internal/story"
)

// readable is the width of a line of prose beyond which it is hard to read.
const readable = 100

// Page writes a page of documentation, in Markdown, for a terminal.
func Page(w io.Writer, markdown string, style Style) error {
	p := sheet{source: []byte(markdown), style: style, width: min(style.columns(), readable)}
	parser := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser()
	p.blocks(parser.Parse(source.NewReader(p.source)), 0)
	_, err := io.WriteString(w, p.out.String())
	return err
}

type sheet struct {
	source []byte
	style  Style
	width  int
	out    strings.Builder
}

// blocks writes the blocks below a node, with an empty line between them.
func (p *sheet) blocks(parent ast.Node, indent int) {
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		if n.PreviousSibling() != nil && !(isItem(parent) && n.Kind() == ast.KindList) {
			p.out.WriteByte('\n')
		}
		p.block(n, indent)
	}
}

func isItem(n ast.Node) bool { return n.Kind() == ast.KindListItem }

func (p *sheet) block(n ast.Node, indent int) {
	switch n := n.(type) {
	case *ast.Heading:
		title := p.inline(n)
		if n.Level > 1 {
			title = strings.ToUpper(title)
		}
		for _, line := range wrap(title, p.width) {
			p.out.WriteString(p.style.paint(story.Strong, line) + "\n")
		}
	case *ast.CodeBlock:
		p.code(n.Lines(), indent)
	case *ast.FencedCodeBlock:
		p.code(n.Lines(), indent)
	case *ast.List:
		p.list(n, indent)
	case *tableast.Table:
		p.table(n, indent)
	case *ast.HTMLBlock:
	default:
		p.paragraph(p.inline(n), indent, "")
	}
}

// paragraph writes wrapped text; the first line begins with a mark that the others
// are indented by.
func (p *sheet) paragraph(words string, indent int, mark string) {
	deep := indent + utf8.RuneCountInString(mark)
	for i, line := range wrap(words, p.width-deep) {
		lead := strings.Repeat(" ", deep)
		if i == 0 {
			lead = strings.Repeat(" ", indent) + mark
		}
		p.out.WriteString(lead + line + "\n")
	}
}

func (p *sheet) code(lines *source.Segments, indent int) {
	for i := range lines.Len() {
		line := lines.At(i)
		code := strings.TrimRight(string(line.Value(p.source)), "\n")
		p.out.WriteString(strings.Repeat(" ", indent+4) + p.style.paint(story.ToCopy, p.style.show(story.Clean(code))) + "\n")
	}
}

func (p *sheet) list(list *ast.List, indent int) {
	number := list.Start
	for item := list.FirstChild(); item != nil; item = item.NextSibling() {
		if !list.IsTight && item.PreviousSibling() != nil {
			p.out.WriteByte('\n')
		}
		mark := "- "
		if list.IsOrdered() {
			mark = fmt.Sprintf("%d. ", number)
			number++
		}
		for n := item.FirstChild(); n != nil; n = n.NextSibling() {
			if n.PreviousSibling() == nil {
				p.paragraph(p.inline(n), indent, mark)
				continue
			}
			p.block(n, indent+len(mark))
		}
	}
}

// table writes columns as wide as their widest cell; the last one is wrapped.
func (p *sheet) table(table *tableast.Table, indent int) {
	var rows [][]string
	for row := table.FirstChild(); row != nil; row = row.NextSibling() {
		var cells []string
		for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
			cells = append(cells, p.inline(cell))
		}
		rows = append(rows, cells)
	}
	widths := make([]int, len(table.Alignments))
	for _, cells := range rows {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for at, cells := range rows {
		lead := strings.Repeat(" ", indent+2)
		for i, cell := range cells[:len(cells)-1] {
			lead += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		last := wrap(cells[len(cells)-1], max(p.width-utf8.RuneCountInString(lead), narrowest/2))
		for i, line := range last {
			if i > 0 {
				lead = strings.Repeat(" ", utf8.RuneCountInString(lead))
			}
			if at == 0 {
				p.out.WriteString(p.style.paint(story.Strong, strings.TrimRight(lead+line, " ")) + "\n")
			} else {
				p.out.WriteString(strings.TrimRight(lead+line, " ") + "\n")
			}
		}
	}
}

// inline is the text below a node: a link is its words, code keeps its backquotes.
func (p *sheet) inline(parent ast.Node) string {
	var b strings.Builder
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		switch n := n.(type) {
		case *ast.Text:
			b.WriteString(p.style.show(story.Clean(string(n.Segment.Value(p.source)))))
			if n.SoftLineBreak() || n.HardLineBreak() {
				b.WriteByte(' ')
			}
		case *ast.String:
			b.WriteString(p.style.show(story.Clean(string(n.Value))))
		case *ast.CodeSpan:
			b.WriteString("`" + p.inline(n) + "`")
		default:
			b.WriteString(p.inline(n))
		}
	}
	return b.String()
}
