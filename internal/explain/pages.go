package explain

import (
	"fmt"
	"strings"
)

// Index is a page that lists the topics.
func Index(topics []Topic) string {
	var b strings.Builder
	b.WriteString("# What linger explains: `linger explain TOPIC`\n")
	for _, part := range []struct {
		kind  Kind
		title string
	}{{State, "The states in which connections end"}, {Problem, "The problems"}} {
		fmt.Fprintf(&b, "\n## %s\n\n| topic | |\n|---|---|\n", part.title)
		for _, t := range topics {
			if t.Kind == part.kind {
				fmt.Fprintf(&b, "| %s | %s |\n", t.Name, t.Title)
			}
		}
	}
	b.WriteString("\nWhat people say about them, and what is true of it: `linger explain --claims`\n")
	return b.String()
}

// ClaimsOf are the claims that hold the words.
func ClaimsOf(all []Claim, words string) (some []Claim) {
	for _, c := range all {
		if strings.Contains(strings.ToLower(c.Claim+c.Why), strings.ToLower(words)) {
			some = append(some, c)
		}
	}
	return some
}

// ClaimsPage is a page of claims.
func ClaimsPage(claims []Claim) string {
	var b strings.Builder
	b.WriteString("# What people say about TIME_WAIT\n")
	for _, c := range claims {
		fmt.Fprintf(&b, "\n- \"%s\"\n\n  **%s.** %s\n", c.Claim, strings.ToUpper(c.Verdict), c.Why)
	}
	return b.String()
}
