// Package explain finds the page that explains a problem, a state or a claim. It
// parses the pages and draws nothing.
package explain

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Kind is what a topic is about.
type Kind string

// The kinds of topic, in the order in which to list them.
const (
	State   Kind = "state"
	Problem Kind = "problem"
)

// Topic is one page.
type Topic struct {
	Name  string // time-wait, port-exhaustion
	Kind  Kind
	Title string // in one line, without the name
	Text  string // Markdown
}

// Claim is something that is said about TIME_WAIT, and what is true of it.
type Claim struct {
	Claim string
	// Verdict is one of verdicts; Why the reason, in Markdown.
	Verdict string
	Why     string
}

// verdicts are what a claim may be judged to be.
var verdicts = []string{"right", "half right", "misleading", "outdated", "wrong", "dangerous"}

// states are in the order in which a connection passes through them.
var states = []string{"time-wait", "fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack"}

// Topics are all pages: the states, then the problems by name.
func Topics(pages fs.FS) ([]Topic, error) {
	var topics []Topic
	for _, name := range states {
		t, err := read(pages, "states/"+name+".md", State)
		if err != nil {
			return nil, err
		}
		topics = append(topics, t)
	}
	files, err := fs.Glob(pages, "problems/*.md")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		t, err := read(pages, file, Problem)
		if err != nil {
			return nil, err
		}
		topics = append(topics, t)
	}
	return topics, nil
}

func read(pages fs.FS, file string, kind Kind) (Topic, error) {
	text, err := fs.ReadFile(pages, file)
	if err != nil {
		return Topic{}, fmt.Errorf("explain: %w", err)
	}
	t := Topic{Name: strings.TrimSuffix(path.Base(file), ".md"), Kind: kind, Text: string(text)}
	first, _, _ := strings.Cut(t.Text, "\n")
	var ok bool
	if t.Title, ok = strings.CutPrefix(first, "# "+t.Name+": "); !ok {
		return t, fmt.Errorf("explain: %s begins with %q, not with its name and title", file, first)
	}
	return t, nil
}

// Find is the topic of that name, however it is spelt: time-wait, TIME_WAIT,
// timewait.
func Find(topics []Topic, name string) (Topic, bool) {
	at := slices.IndexFunc(topics, func(t Topic) bool { return plain(t.Name) == plain(name) })
	if at < 0 {
		return Topic{}, false
	}
	return topics[at], true
}

func plain(name string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(name))
}

// Claims are those of claims.md, in its order.
func Claims(pages fs.FS) ([]Claim, error) {
	text, err := fs.ReadFile(pages, "claims.md")
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	var claims []Claim
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		claim, body, _ := strings.Cut(section, "\n")
		verdict, why, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(body), "**"), ".** ")
		verdict = strings.ToLower(verdict)
		if !ok || !slices.Contains(verdicts, verdict) {
			return nil, fmt.Errorf("explain: claim %q has no verdict", claim)
		}
		claims = append(claims, Claim{Claim: strings.TrimSpace(claim), Verdict: verdict, Why: strings.Join(strings.Fields(why), " ")})
	}
	return claims, nil
}
