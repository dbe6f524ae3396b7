package render

import (
	"io"

	"linger/internal/deed"
)

// ReapSchema names the form of what linger reap writes (docs/reap.schema.json).
const ReapSchema = "linger.reap/1"

// reaping is a reap as JSON tells it.
type reaping struct {
	Schema  string           `json:"schema"`
	Netns   string           `json:"netns"`
	Matched int              `json:"matched"`
	Sockets int              `json:"sockets"`
	Groups  []caught         `json:"groups"`
	Hazards []string         `json:"hazards"`
	Outcome *deed.ReapResult `json:"outcome"` // null where nothing was done
}

// caught are sockets as JSON tells them.
type caught struct {
	State    string   `json:"state"`
	Local    string   `json:"local"`
	Remote   string   `json:"remote"` // empty for many
	Sockets  int      `json:"sockets"`
	Owners   []string `json:"owners"`
	Inferred bool     `json:"inferred"`
}

// Reap writes what was found, and what became of it (docs/reap.schema.json).
func (JSON) Reap(w io.Writer, r *deed.Reaping) error {
	told := reaping{
		Schema: ReapSchema, Netns: r.Where(), Matched: r.Matched, Sockets: r.Sockets,
		Groups: []caught{}, Hazards: some(r.Hazards()), Outcome: r.Result,
	}
	for _, c := range r.Groups {
		g := caught{State: c.State.String(), Local: c.Local.String(), Sockets: c.Sockets, Owners: []string{}, Inferred: c.Inferred}
		if !c.AtPort() {
			g.Remote = c.Remote.String()
		}
		for _, o := range c.Owners {
			g.Owners = append(g.Owners, o.String())
		}
		told.Groups = append(told.Groups, g)
	}
	e := newEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(told)
}
