package deed

import (
	"encoding/json"
	"testing"

	"linger/internal/plan"
	"linger/internal/snapshot"
)

// The sentences that journals hold stay as they are: those of years ago are still read,
// each as the kind that it was written for.
func TestReasonsInTheJournal(t *testing.T) {
	for reason, want := range map[Reason]string{
		{}:                      `""`,
		{Kind: ByHand}:          `"asked for"`,
		{Kind: Deadline}:        `"it was not confirmed in time"`,
		{Kind: Unwatched}:       `"it was not confirmed in time, and its watcher was killed"`,
		{Kind: Unreadable}:      `"it was not confirmed in time, and the journal cannot be read"`,
		{Kind: JournalGone}:     `"the journal was removed, so that nobody can confirm it"`,
		{Kind: Killed}:          `"the process that changed it was killed"`,
		{Guarded, "9 of 10"}:    `"the guard: 9 of 10"`,
		{NotApplied, "no room"}: `"it could not be applied: no room"`,
		// No version writes these: a sentence is a value, too.
		{ReasonTold, "asked for by the moon"}: `"asked for by the moon"`,
		{ReasonTold, "the guard slept"}:       `"the guard slept"`,
	} {
		got, err := json.Marshal(reason)
		if err != nil || string(got) != want {
			t.Errorf("%+v is written as %s, %v; want %s", reason, got, err, want)
		}
		var back Reason
		if err := json.Unmarshal([]byte(want), &back); err != nil || back != reason {
			t.Errorf("%s is read as %+v, %v; want %+v", want, back, err, reason)
		}
	}
}

func TestFatesInTheJournal(t *testing.T) {
	const file = "/etc/sysctl.d/90-linger-7.conf"
	for note, want := range map[Note]string{
		{Kind: FileTaken, File: file}:                    file + " is taken away",
		{Kind: FileLeft, File: file}:                     file + ": the file is not what linger wrote: it was changed since, and is left",
		{Kind: FileUnwritten, File: file}:                file + " was not written yet",
		{Kind: FileVanished, File: file}:                 file + " was gone already",
		{Kind: FileFailed, File: file, Detail: "a disk"}: file + " could not be written: a disk",
		{Kind: NoteTold, Detail: file + " sleeps"}:       file + " sleeps",
		{Kind: NoteTold, Detail: "/other is taken away"}: "/other is taken away",
	} {
		if got := note.String(); got != want {
			t.Errorf("%+v is written as %q, want %q", note, got, want)
		}
		if got := FateOf(file, want); got != note {
			t.Errorf("%q is read as %+v, want %+v", want, got, note)
		}
	}
}

func TestNotes(t *testing.T) {
	pod := plan.Scope{Label: plan.Label{Label: snapshot.Label{Kind: snapshot.LabelPod, Name: "shop/cart"}}}
	for want, note := range map[string]Note{
		"k in pod shop/cart is kept by compose.yaml: k: 1": {
			Kind: KeptElsewhere, Key: "k", Scope: pod, File: "compose.yaml", Detail: "k: 1",
		},
		"Salt seems to write /f, which sets k: change it there, or it will come back": {Kind: Managed, Key: "k", File: "/f", Detail: "Salt"},
		"tuned's active profile sets k (/f); it applies sysctl.d after it only while reapply_sysctl is 1 in /etc/tuned/tuned-main.conf": {
			Kind: ByTuned, Key: "k", File: "/f",
		},
		"cloud-init may set k (/f): a new instance begins from there": {Kind: ByCloudInit, Key: "k", File: "/f"},
		"Puppet's catalogue has k (/f): its next run may set it anew": {Kind: ByPuppet, Key: "k", File: "/f"},
	} {
		if got := note.String(); got != want {
			t.Errorf("%+v reads %q, want %q", note, got, want)
		}
	}
}

// What the guard cannot tell is absent from the JSON where it can, and a sentence where it
// cannot.
func TestWhatTheGuardSees(t *testing.T) {
	for want, seen := range map[string]Watched{
		`{"opened_before":10,"failed_before":1,"opened_since":20,"failed_since":2,` +
			`"no_port":{"before":null,"since":null,"worse":false,"unknown":"no watcher lives that would trace"},"worse":false,` +
			`"unknown":"2 resets and failed connects: the guard judges from 20 on"}`: {
			OpenedBefore: 10, FailedBefore: 1, OpenedSince: 20, FailedSince: 2,
			NoPort: NoPort{Unknown: Unknown{Kind: NoWatcher}}, Unknown: Unknown{Kind: TooFew, Few: 2, Least: 20},
		},
		`{"opened_before":0,"failed_before":0,"opened_since":0,"failed_since":0,` +
			`"no_port":{"before":{"opened":1,"failed":0},"since":{"opened":2,"failed":1},"worse":true},"worse":true}`: {
			NoPort: NoPort{Before: &Tally{1, 0}, Since: &Tally{2, 1}, Worse: true}, Worse: true,
		},
	} {
		got, err := json.Marshal(seen)
		if err != nil || string(got) != want {
			t.Errorf("%+v is\n%s, %v; want\n%s", seen, got, err, want)
		}
	}
	seen := Watched{
		OpenedBefore: 10, FailedBefore: 1, OpenedSince: 20, FailedSince: 2,
		NoPort: NoPort{Since: &Tally{20, 3}, Unknown: Unknown{Kind: Untraced}},
	}
	const want = "2 of 20 connections were reset or failed since, 1 of 10 before; " +
		"connects that found no source port: 3 since, unknown before (nothing was traced while the plan was made)"
	if got := seen.String(); got != want {
		t.Errorf("it reads %q, want %q", got, want)
	}
	for text, want := range map[string]Unknown{
		`""`: {}, `"nothing was traced while the plan was made"`: {Kind: Untraced},
		`"BPF is not allowed"`: {Kind: NotSeen, Cause: "BPF is not allowed"},
	} {
		var got Unknown
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v; want %+v", text, got, err, want)
		}
	}
}
