package render

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestEveryMemberIsDocumented: docs/output.md names each member of the schemas.
func TestEveryMemberIsDocumented(t *testing.T) {
	for _, schema := range []string{"diagnosis", "sockets"} {
		t.Run(schema, func(t *testing.T) { everyMemberIsDocumented(t, schema) })
	}
}

func everyMemberIsDocumented(t *testing.T, name string) {
	text, err := os.ReadFile("../../docs/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema.Defs, "states") // the words of ss and netstat
	seen := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			members, _ := v["properties"].(map[string]any)
			for name := range members {
				if !seen[name] && !strings.Contains(string(page), "`"+name+"`") && !strings.Contains(string(page), "`"+name+"[]`") {
					t.Errorf("docs/output.md does not name %s", name)
				}
				seen[name] = true
			}
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(schema.Defs)
	if len(seen) < 40 {
		t.Errorf("the schema has %d members only", len(seen))
	}
}

// TestUnknownIsNoZero: what a snapshot holds as zero because it is unknown is null.
func TestUnknownIsNoZero(t *testing.T) {
	d := incident()
	ns := &d.Snapshot.Namespaces[0]
	ns.Cookie, ns.PID = 0, 0
	d.Diagnosis.Findings[0].Netns.Cookie = 0
	var told struct {
		Namespaces []map[string]any
		Findings   []struct{ Netns map[string]any }
	}
	if err := json.Unmarshal([]byte(jsonOf(t, d)), &told); err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{told.Namespaces[0]["cookie"], told.Namespaces[0]["pid"], told.Namespaces[0]["path"],
		told.Findings[0].Netns["cookie"]} {
		if v != nil {
			t.Errorf("unknown is %v, want null", v)
		}
	}
}
