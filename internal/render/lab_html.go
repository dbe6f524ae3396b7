package render

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"linger/internal/proof"
)

//go:embed lab.html
var labPage embed.FS

// HTML writes one file that needs no other: no script, no link to the outside.
type HTML struct{}

// PrintLab writes the page.
func (HTML) PrintLab(w io.Writer, l Lab) error {
	t, err := template.New("lab.html").Funcs(template.FuncMap{
		"class":    func(v proof.Verdict) string { return strings.ReplaceAll(string(v), " ", "-") },
		"icon":     func(v proof.Verdict) string { return verdictMark(v).icon },
		"tiles":    tilesOf,
		"knobs":    knobsOf,
		"cures":    curesOf,
		"answers":  answersOf,
		"bars":     bars,
		"plots":    plots,
		"folklore": folkloreOf,
		"ladders":  laddersOf,
		"said":     said,
		"spread": func(r proof.Result, q proof.Quantity) string {
			if i, ok := r.Spread(q.Name); ok {
				return i.String()
			}
			return "–"
		},
	}).ParseFS(labPage, "lab.html")
	if err != nil {
		return err
	}
	return t.Execute(w, map[string]any{"Lab": l, "Headline": l.headline(), "Where": l.where(), "Day": l.TakenAt.UTC().Format("2 January 2006")})
}

// bar is one arm's goal in percent of the largest, beside that of the base line.
type bar struct {
	proof.Result
	Width, Low, Span, Base float64
	Value                  string
}

func bars(p proof.Proof) (all []bar) {
	most := scale(p)
	before, _ := goal(p, p.Base)
	for _, r := range p.All() {
		g, ok := goal(p, r)
		if !ok {
			continue
		}
		b := bar{Result: r, Value: g.String()}
		if most > 0 {
			b.Width, b.Low, b.Span, b.Base = 100*g.Median/most, 100*g.Low/most, 100*(g.High-g.Low)/most, 100*before.Median/most
		}
		all = append(all, b)
	}
	return all
}

// plot is a chart of the same curve in several arms.
type plot struct {
	Name, XUnit, YUnit string
	XMost, YMost       string
	Lines              []line
}

type line struct {
	Label  string
	Points string
	Hue    int
	// Dash tells it from others without colour.
	Dash string
}

var dashes = []string{"none", "9 5", "3 4", "14 4 3 4"}

// The inside of a plot, in its own units.
const plotWidth, plotHeight = 640.0, 150.0

func plots(p proof.Proof) (all []plot) {
	byName := map[string]int{}
	xMost, yMost := map[string]float64{}, map[string]float64{}
	for _, pass := range []bool{true, false} {
		for _, r := range p.All() {
			if len(r.Runs) == 0 {
				continue
			}
			for _, c := range r.Runs[0].Series {
				if pass {
					for i := range c.X {
						xMost[c.Name], yMost[c.Name] = max(xMost[c.Name], c.X[i]), max(yMost[c.Name], c.Y[i])
					}
					continue
				}
				at, known := byName[c.Name]
				if !known {
					at = len(all)
					byName[c.Name] = at
					all = append(all, plot{Name: c.Name, XUnit: c.XUnit, YUnit: c.YUnit, XMost: proof.Number(xMost[c.Name]), YMost: proof.Number(yMost[c.Name])})
				}
				var points strings.Builder
				for i := range c.X {
					fmt.Fprintf(&points, "%.1f,%.1f ", plotWidth*c.X[i]/max(xMost[c.Name], 1e-9), plotHeight-plotHeight*c.Y[i]/max(yMost[c.Name], 1e-9))
				}
				n := len(all[at].Lines)
				all[at].Lines = append(all[at].Lines, line{Label: r.Title, Points: points.String(), Hue: (210 + 67*n) % 360, Dash: dashes[n%len(dashes)]})
			}
		}
	}
	return all
}

func laddersOf(r proof.Result) []proof.Ladder {
	if len(r.Runs) == 0 {
		return nil
	}
	return r.Runs[0].Ladders
}
