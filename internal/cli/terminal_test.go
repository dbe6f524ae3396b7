package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"linger/internal/render"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, found := strings.CutPrefix(pair, name+"="); found {
				return value
			}
		}
		return ""
	}
}

func TestColour(t *testing.T) {
	tty, pipe := terminal{is: true, columns: 100}, terminal{}
	for _, c := range []struct {
		name  string
		out   terminal
		env   []string
		color string
		want  bool
	}{
		{"terminal", tty, nil, colorAuto, true},
		{"pipe", pipe, nil, colorAuto, false},
		{"NO_COLOR", tty, []string{"NO_COLOR=1"}, colorAuto, false},
		{"empty NO_COLOR says nothing", tty, []string{"NO_COLOR="}, colorAuto, true},
		{"TERM=dumb", tty, []string{"TERM=dumb"}, colorAuto, false},
		{"CLICOLOR_FORCE", pipe, []string{"CLICOLOR_FORCE=1"}, colorAuto, true},
		{"CLICOLOR_FORCE=0", pipe, []string{"CLICOLOR_FORCE=0"}, colorAuto, false},
		{"NO_COLOR is stronger than CLICOLOR_FORCE", tty, []string{"NO_COLOR=1", "CLICOLOR_FORCE=1"}, colorAuto, false},
		{"the flag is stronger than NO_COLOR", pipe, []string{"NO_COLOR=1"}, colorAlways, true},
		{"the flag is stronger than CLICOLOR_FORCE", tty, []string{"CLICOLOR_FORCE=1"}, colorNever, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := styleFor(c.out, environment(c.env...), c.color, false).Colour; got != c.want {
				t.Errorf("colour is %v, want %v", got, c.want)
			}
		})
	}
}

func TestWidthAndLocale(t *testing.T) {
	for _, c := range []struct {
		name string
		out  terminal
		env  []string
		want render.Style
	}{
		{"pipe without locale", terminal{}, nil, render.Style{Width: 80, ASCII: true}},
		{"pipe, UTF-8", terminal{}, []string{"LANG=C.UTF-8"}, render.Style{Width: 80}},
		{"LC_ALL decides first", terminal{}, []string{"LC_ALL=C", "LANG=de_DE.UTF-8"}, render.Style{Width: 80, ASCII: true}},
		{"LC_CTYPE before LANG", terminal{}, []string{"LC_CTYPE=en_US.utf8", "LANG=C"}, render.Style{Width: 80}},
		{"terminal's width", terminal{is: true, columns: 132}, []string{"LANG=C.UTF-8"}, render.Style{Width: 132, Colour: true}},
		{"COLUMNS is stronger", terminal{is: true, columns: 132}, []string{"COLUMNS=60", "LANG=C.UTF-8"}, render.Style{Width: 60, Colour: true}},
		{"COLUMNS that is no number", terminal{}, []string{"COLUMNS=wide", "LANG=C.UTF-8"}, render.Style{Width: 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, styleFor(c.out, environment(c.env...), colorAuto, false)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestProgressNeedsATerminalThatErases(t *testing.T) {
	for _, c := range []struct {
		stream terminal
		env    string
		want   bool
	}{
		{terminal{is: true}, "TERM=xterm", true},
		{terminal{is: true}, "TERM=dumb", false},
		{terminal{}, "TERM=xterm", false},
	} {
		if got := canErase(c.stream, environment(c.env)); got != c.want {
			t.Errorf("%+v with %s: %v, want %v", c.stream, c.env, got, c.want)
		}
	}
}
