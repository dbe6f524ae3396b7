package render

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"linger/internal/proof"
	"linger/internal/story"
)

//go:embed lab.html
var labPage embed.FS

// HTML writes one file that needs no other: no script, no link to the outside.
type HTML struct{}

// PrintReport writes the page.
func (HTML) PrintReport(w io.Writer, r *story.Report) error {
	t, err := template.New("lab.html").Funcs(template.FuncMap{
		"class": func(m story.Mark) string { return strings.ReplaceAll(m.Word.String(), " ", "-") },
		"sign":  func(m story.Mark) string { return string(m.Sign) },
		"bars":  barsOf,
		"plots": plotsOf,
	}).ParseFS(labPage, "lab.html")
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// bar is one arm's goal in percent of the largest, beside that of the base line.
type bar struct {
	story.Arm
	Width, Low, Span, Base float64
}

func barsOf(e story.Experiment) (all []bar) {
	for _, a := range e.Arms {
		if a.Goal == nil {
			continue
		}
		b := bar{Arm: a}
		if g := a.Goal; g.Most > 0 {
			b.Width, b.Low, b.Span, b.Base = 100*g.Median/g.Most, 100*g.Low/g.Most, 100*(g.High-g.Low)/g.Most, 100*g.Base/g.Most
		}
		all = append(all, b)
	}
	return all
}

// plot is a chart of the same curve in several arms.
type plot struct {
	Name, XUnit, YUnit story.Text
	XMost, YMost       string
	Lines              []plotLine
}

type plotLine struct {
	Label  story.Text
	Points string
	Hue    int
	// Dash tells it from others without colour.
	Dash string
}

var dashes = []string{"none", "9 5", "3 4", "14 4 3 4"}

// The inside of a plot, in its own units.
const plotWidth, plotHeight = 640.0, 150.0

func plotsOf(e story.Experiment) (all []plot) {
	byName := map[story.Text]int{}
	xMost, yMost := map[story.Text]float64{}, map[story.Text]float64{}
	for _, a := range e.Arms {
		for _, c := range a.Curves {
			for i := range c.X {
				xMost[c.Name], yMost[c.Name] = max(xMost[c.Name], c.X[i]), max(yMost[c.Name], c.Y[i])
			}
		}
	}
	for _, a := range e.Arms {
		for _, c := range a.Curves {
			at, known := byName[c.Name]
			if !known {
				at = len(all)
				byName[c.Name] = at
				all = append(all, plot{
					Name: c.Name, XUnit: c.XUnit, YUnit: c.YUnit, XMost: proof.Number(xMost[c.Name]), YMost: proof.Number(yMost[c.Name]),
				})
			}
			var points strings.Builder
			for i := range c.X {
				x, y := c.X[i]/max(xMost[c.Name], 1e-9), c.Y[i]/max(yMost[c.Name], 1e-9)
				fmt.Fprintf(&points, "%.1f,%.1f ", plotWidth*x, plotHeight-plotHeight*y)
			}
			n := len(all[at].Lines)
			all[at].Lines = append(all[at].Lines, plotLine{
				Label: a.Title, Points: points.String(), Hue: (210 + 67*n) % 360, Dash: dashes[n%len(dashes)],
			})
		}
	}
	return all
}
