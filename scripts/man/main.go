// Man writes linger's manual pages, one for each command, from the texts of the
// commands themselves: in man(7), line by line, for the texts are no Markdown.
//
// The pages bear the date of SOURCE_DATE_EPOCH, seconds since 1970, as make man sets it
// to that of the last commit; without it they bear none.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"linger/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY")
		os.Exit(64)
	}
	if err := run(os.Args[1], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// run writes all pages to a directory. The epoch is that of SOURCE_DATE_EPOCH, or "".
func run(dir, epoch string) error {
	date := ""
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0).UTC().Format(time.DateOnly)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeAll(dir, date, cli.Root())
}

// writeAll writes the page of a command, and those of the commands below it.
func writeAll(dir, date string, c *cobra.Command) error {
	if err := os.WriteFile(filepath.Join(dir, pageName(c)+".1"), []byte(page(c, date)), 0o644); err != nil {
		return err
	}
	for _, below := range shown(c) {
		if err := writeAll(dir, date, below); err != nil {
			return err
		}
	}
	return nil
}

// pageName is the name of a command's page, as in linger-lab-run.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// shown are the commands below one that help tells of.
func shown(c *cobra.Command) (list []*cobra.Command) {
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			list = append(list, below)
		}
	}
	return list
}

// roff is a page under way.
type roff struct{ strings.Builder }

// line writes one line of roff, the texts in which are escaped already.
func (r *roff) line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

// item writes a tag, and below it what is said of it.
func (r *roff) item(tag, text string) {
	r.line(".TP\n%s", tag)
	r.text(text)
}

// text writes plain text that is filled, line by line.
func (r *roff) text(text string) {
	for line := range strings.Lines(text) {
		r.line("%s", escape(strings.TrimSpace(line)))
	}
}

// escape makes plain text of what roff would take for its own (groff_char(7), "Portability").
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func bold(text string) string   { return `\fB` + escape(text) + `\fR` }
func italic(text string) string { return `\fI` + escape(text) + `\fR` }

// page is the manual page of a command.
func page(c *cobra.Command, date string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "linger"), " ")
	r := &roff{}
	r.line(`.TH %s 1 "%s" linger linger`, escape(strings.ToUpper(pageName(c))), date)
	r.line(".nh\n.ad l")
	r.line(".SH NAME\n%s \\- %s", escape(pageName(c)), escape(c.Short))
	r.line(".SH SYNOPSIS\n%s%s", bold(c.CommandPath()), escape(strings.TrimPrefix(c.UseLine(), c.CommandPath())))
	if c.HasAvailableSubCommands() {
		r.line(".br\n%s %s ...", bold(c.CommandPath()), italic("COMMAND"))
	}
	r.line(".SH DESCRIPTION")
	if c.Long == "" {
		r.text(c.Short + ".")
	}
	r.paragraphs(strings.TrimSpace(strings.TrimSuffix(c.Long, cli.ExitCodes(name))))
	if c.HasAvailableSubCommands() {
		r.line(".SH COMMANDS")
		for _, below := range shown(c) {
			r.item(reference(below), below.Short+".")
		}
	}
	r.line(".SH OPTIONS")
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	c.LocalFlags().VisitAll(r.option)
	r.line(".SH EXIT STATUS")
	for _, o := range cli.Outcomes(name) {
		r.outcome(o)
	}
	r.line(".SH FILES")
	for _, f := range cli.Files(c) {
		r.item(italic(f.Path), f.Use)
	}
	r.examples(c.Example)
	r.line(".SH SEE ALSO")
	var others []string
	if c.HasParent() {
		others = append(others, reference(c.Parent()))
	}
	for _, below := range shown(c) {
		others = append(others, reference(below))
	}
	r.line("%s", strings.Join(others, ",\n"))
	return r.String()
}

// reference names a command's page, in one line.
func reference(c *cobra.Command) string { return bold(pageName(c)) + "(1)" }

// paragraphs writes a long text: what is set in by spaces stays as it is.
func (r *roff) paragraphs(text string) {
	for i, part := range strings.Split(text, "\n\n") {
		if i > 0 {
			r.line(".PP")
		}
		if strings.HasPrefix(part, "  ") {
			r.line(".EX")
			for line := range strings.Lines(part) {
				r.line("%s", escape(strings.TrimRight(line, "\n")))
			}
			r.line(".EE")
			continue
		}
		r.text(part)
	}
}

// option writes a flag as help does: with the values that it takes, and its default.
func (r *roff) option(f *pflag.Flag) {
	if f.Hidden {
		return
	}
	tag := bold("--" + f.Name)
	if f.Shorthand != "" {
		tag = bold("-"+f.Shorthand) + ", " + tag
	}
	value, usage := pflag.UnquoteUsage(f)
	if words := strings.Split(value, "|"); len(words) > 1 {
		for i := range words {
			words[i] = bold(words[i])
		}
		tag += " " + strings.Join(words, "|")
	} else if value != "" {
		tag += " " + italic(value)
	}
	switch f.DefValue {
	case "", "[]", "false", "0", "0s": // none: the text tells what that means
	default:
		usage += " (default " + f.DefValue + ")"
	}
	r.item(tag, usage)
}

// outcome writes what an exit code tells.
func (r *roff) outcome(o cli.Outcome) {
	means := strings.TrimSuffix(o.Means, ";")
	if means == "" {
		means = "if it was done"
	}
	if o.Flag != "" {
		means = "with " + o.Flag + ", " + means
	}
	r.item(bold(strconv.Itoa(o.Code)), means+".")
}

// examples writes each example with what help says beside it, or in the next line, below.
func (r *roff) examples(examples string) {
	if examples == "" {
		return
	}
	r.line(".SH EXAMPLES")
	for line := range strings.Lines(examples) {
		command, said, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if strings.HasPrefix(line, "      ") {
			command, said = "", command
		}
		if command != "" {
			r.line(".PP\n%s", bold(command))
		}
		if said != "" {
			r.line(".RS 4")
			r.text(strings.TrimSpace(said))
			r.line(".RE")
		}
	}
}
