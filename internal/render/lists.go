package render

import (
	"fmt"
	"io"

	"linger/internal/story"
)

// Lines writes each text on a line of its own, however long it is.
func (t Text) Lines(w io.Writer, texts []story.Text) error {
	l := &lines{style: t.Style}
	for _, text := range texts {
		l.line(t.Style.show(text))
	}
	_, err := io.WriteString(w, l.String())
	return err
}

// Paragraph writes a text, and an empty line below it.
func (t Text) Paragraph(w io.Writer, text story.Text) error {
	l := &lines{style: t.Style}
	l.beneath(0, story.Plain, t.Style.show(text))
	_, err := io.WriteString(w, l.String()+"\n")
	return err
}

// PrintExperiments lists experiments and their variants.
func (t Text) PrintExperiments(w io.Writer, experiments []story.Experiment) error {
	l := &lines{style: t.Style}
	show := t.Style.show
	for _, e := range experiments {
		l.line(show(e.Name) + "\n    " + show(e.Question))
		for _, a := range e.Arms {
			if a.Variant {
				l.line(fmt.Sprintf("    %-20s %-12s %s", show(a.ID), show(a.Kind), show(a.Title)))
			}
		}
	}
	_, err := io.WriteString(w, l.String())
	return err
}

// PrintBounds lists thresholds, and below each its reason.
func (t Text) PrintBounds(w io.Writer, bounds []story.Bound) error {
	const indent = 4
	l := &lines{style: t.Style}
	for _, b := range bounds {
		l.line(pad(t.Style.show(b.Name), 38) + " " + t.Style.show(b.Value))
		l.beneath(indent, story.Plain, t.Style.show(b.Reason))
	}
	_, err := io.WriteString(w, l.String())
	return err
}
