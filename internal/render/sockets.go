package render

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"

	"linger/internal/capacity"
	"linger/internal/snapshot"
	"linger/internal/sockets"
	"linger/internal/story"
	"linger/internal/tcp"
)

// SocketsSchema names the form of the JSON of linger sockets
// (docs/sockets.schema.json).
const SocketsSchema = "linger.sockets/1"

// socketRow is a row as JSON tells it.
type socketRow struct {
	Key     any              `json:"key"`
	Netns   any              `json:"netns"`
	Role    any              `json:"role"`
	Local   *tcp.Endpoint    `json:"local"`
	Remote  *tcp.Endpoint    `json:"remote"`
	Groups  int              `json:"groups"`
	Sockets int              `json:"sockets"`
	States  tcp.States       `json:"states"`
	Owners  []snapshot.Owner `json:"owners"`
	Budget  *capacity.Budget `json:"budget"`

	Closes *snapshot.CloseHistory `json:"closes"`
}

func newSocketRow(r *sockets.Row) socketRow {
	told := socketRow{
		Key: orNull(r.Key), Netns: orNull(r.Netns), Role: orNull(r.Role), Groups: r.Groups,
		Sockets: r.States.Total(), States: r.States, Owners: some(r.Owners), Budget: r.Budget, Closes: r.Closes,
	}
	if r.Groups == 1 {
		told.Local, told.Remote = &r.Local, &r.Remote
	}
	return told
}

// Sockets writes a table of groups (docs/sockets.schema.json).
func (JSON) Sockets(w io.Writer, d *story.Groups) error {
	s := newStream(w)
	s.object(func() {
		s.member("schema", SocketsSchema)
		s.member("taken_at", d.Snapshot.TakenAt)
		s.member("elapsed_ms", d.Elapsed.Milliseconds())
		s.member("window_ms", d.Snapshot.WindowMS)
		s.member("by", d.Table.By)
		s.name("rows")
		s.array(func() {
			for i := range d.Table.Rows {
				s.element(newSocketRow(&d.Table.Rows[i]))
			}
		})
		s.member("left", snapshot.Other{Groups: d.Table.Left, States: d.Table.LeftStates})
		s.member("other", d.Table.Other)
		elements(s, "notes", d.Table.Notes)
		elements(s, "gaps", d.Snapshot.Gaps)
	})
	return s.end()
}

// SocketsCSV writes a table of groups with a line of names. What the table leaves out goes
// nowhere: there is no place for it.
func SocketsCSV(w io.Writer, d *story.Groups) error {
	out := csv.NewWriter(w)
	states := statesOf(d.Table)
	header := []string{"key", "netns", "role", "local", "remote", "groups", "sockets"}
	for _, s := range states {
		header = append(header, strings.ToLower(s.String()))
	}
	header = append(header, "owner", "owner_pid", "owner_how", "ports_used", "ports", "closes_last_minute")
	_ = out.Write(header) // kept by the writer, as all its errors
	for i := range d.Table.Rows {
		r := &d.Table.Rows[i]
		row := []string{r.Key, r.Netns, string(r.Role), "", "", strconv.Itoa(r.Groups), strconv.Itoa(r.States.Total())}
		if r.Groups == 1 {
			row[3], row[4] = r.Local.String(), r.Remote.String()
		}
		for _, s := range states {
			row = append(row, strconv.Itoa(r.States[s]))
		}
		row = append(row, "", "", "", "", "", "0")
		last := row[len(row)-6:]
		if len(r.Owners) > 0 {
			o := r.Owners[0]
			last[0], last[1], last[2] = o.Process, strconv.Itoa(o.PID), string(o.How)
		}
		if r.Budget != nil {
			last[3], last[4] = strconv.Itoa(r.Budget.Used), strconv.Itoa(r.Budget.Ports)
		}
		if r.Closes != nil {
			last[5] = strconv.Itoa(sockets.Closes(r.Closes))
		}
		_ = out.Write(harmless(row))
	}
	out.Flush()
	return out.Error()
}

// statesOf are the states that occur in a table.
func statesOf(t sockets.Table) (states []tcp.State) {
	all := t.States()
	for s, n := range all {
		if n > 0 {
			states = append(states, tcp.State(s))
		}
	}
	return states
}

// harmless makes cells that do nothing to the terminal of who looks at a table with cat(1).
func harmless(cells []string) []string {
	for i, cell := range cells {
		cells[i] = story.Clean(cell).String()
	}
	return cells
}
