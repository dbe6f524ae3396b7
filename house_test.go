package linger_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// ours is a file or folder of ours, as the documents name it in backquotes.
var ours = regexp.MustCompile("`((?:internal|cmd|scripts|docs|kernels|bench)/[a-zA-Z0-9_./-]*)`")

// What the documents on the house name is there.
func TestPathsOfTheHouse(t *testing.T) {
	for _, document := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		found := ours.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names no path", document)
		}
		for _, match := range found {
			if _, err := os.Stat(match[1]); err != nil {
				t.Errorf("%s names %s: %v", document, match[1], err)
			}
		}
	}
}

// From the kernel to a sentence a reader needs seven files at most.
func TestTheWalkIsShort(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## From the kernel to a sentence\n")
	walk, _, _ := strings.Cut(rest, "\n## ")
	files := ours.FindAllStringSubmatch(walk, -1)
	if len(files) == 0 || len(files) > 7 {
		t.Errorf("the walk takes %d files, want 1 to 7", len(files))
	}
}
