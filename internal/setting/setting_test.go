package setting_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"linger/internal/kernel/netns/netnstest"
	"linger/internal/kernel/sysctl"
	"linger/internal/setting"
)

func TestEachSettingIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range setting.All() {
		if seen[s.Name] {
			t.Errorf("%s has two entries", s.Name)
		}
		seen[s.Name] = true
		if setting.Of(s.Name) == nil || setting.Of(s.Name).Name != s.Name {
			t.Errorf("%s is not found by its name", s.Name)
		}
		if s.Scope != setting.PerNamespace && s.Scope != setting.HostWide {
			t.Errorf("%s has no scope", s.Name)
		}
		if s.Does == "" || strings.HasSuffix(s.Mechanism(), "..") || s.Kernels == "" {
			t.Errorf("%s is not said to do anything, or in which kernels: %q, %q", s.Name, s.Mechanism(), s.Kernels)
		}
		if bounded := s.Legal.Low < s.Legal.High; bounded == (s.Legal.Unbounded != "") {
			t.Errorf("%s wants legal values, or a reason for none: %+v", s.Name, s.Legal)
		}
		for _, b := range s.Beliefs {
			if b.Advice == "" || b.Why == "" {
				t.Errorf("%s: a belief that says nothing: %+v", s.Name, b)
			}
		}
		if r := s.Refused; r != nil && (r.Reason == "" || r.Instead == "") {
			t.Errorf("%s is refused without a reason or an alternative: %+v", s.Name, r)
		}
	}
}

func TestKernelsAreInOrder(t *testing.T) {
	for _, s := range setting.All() {
		if known(s.Since) && known(s.Until) && !before(s.Since, s.Until) {
			t.Errorf("%s came with %s and went with %s", s.Name, s.Since, s.Until)
		}
		if known(s.Own) && before(s.Own, s.Since) {
			t.Errorf("%s is one for each namespace from %s on, before it came with %s", s.Name, s.Own, s.Since)
		}
		// What a person reads is what a program reads.
		told := func(k setting.Kernel, before, after string) {
			if known(k) && !strings.Contains(s.Kernels, before+k.String()+after) {
				t.Errorf("%s: %q does not tell of %s", s.Name, s.Kernels, k)
			}
		}
		told(s.Since, "", " and later")
		told(s.Until, "through ", "")
		if s.Own != s.Since && s.Own != s.Until {
			told(s.Own, "from ", "")
		}
		if len(s.Defaults) == 0 {
			t.Errorf("%s has no default", s.Name)
			continue
		}
		for i, d := range s.Defaults {
			if i > 0 && !before(s.Defaults[i-1].From, d.From) {
				t.Errorf("%s: the defaults are not in the order of their kernels: %+v", s.Name, s.Defaults)
			}
			if d.By != setting.Compiled && d.Value != "" {
				t.Errorf("%s: the default %q is said to be reckoned", s.Name, d.Value)
			}
		}
	}
}

func known(k setting.Kernel) bool { return k != setting.Kernel{} }

func before(a, b setting.Kernel) bool {
	return a.Major < b.Major || a.Major == b.Major && a.Minor < b.Minor
}

// The running kernel agrees with the catalogue about what it has.
func TestTheKernelAgrees(t *testing.T) {
	var name unix.Utsname
	var here setting.Kernel
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &here.Major, &here.Minor); err != nil {
		t.Fatal(err)
	}
	h := netnstest.New(t)
	for _, s := range setting.All() {
		t.Run(s.Name, func(t *testing.T) {
			host, err := sysctl.Read(s.Name)
			if errors.Is(err, sysctl.ErrAbsent) {
				if known(s.Since) && !before(here, s.Since) {
					t.Errorf("%s has it from %s on, and %s has not", s.Name, s.Since, here)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if known(s.Until) && before(s.Until, here) {
				t.Errorf("it is %s in %s, and is said to have gone with %s", host, here, s.Until)
			}
			err = h.Do(func() error {
				if s.Scope == setting.HostWide {
					return elsewhere(s, host)
				}
				return agrees(s, here)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// elsewhere tells whether a setting of the host cannot be written in the namespace of
// the calling thread; what is not of the network has no namespace here.
func elsewhere(s setting.Setting, host string) error {
	if !strings.HasPrefix(s.Name, "net.") {
		return nil
	}
	if err := sysctl.Write(s.Name, host); !errors.Is(err, sysctl.ErrAbsent) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("a new namespace may write it, and it is said to be kept %s: %v", s.Scope, err)
	}
	return nil
}

// agrees tells whether the namespace of the calling thread, which is new, has the
// default of a setting, and takes what is legal.
func agrees(s setting.Setting, here setting.Kernel) error {
	value, err := sysctl.Read(s.Name)
	if err != nil {
		return fmt.Errorf("it is said to be kept %s: %w", s.Scope, err)
	}
	var want setting.Default
	for _, d := range s.Defaults {
		if !before(here, d.From) {
			want = d
		}
	}
	if want.By == setting.Compiled && value != want.Value {
		return fmt.Errorf("it begins with %q, want %q", value, want.Value)
	}
	for _, legal := range legalOf(s.Legal) {
		if err := sysctl.Write(s.Name, legal); err != nil {
			return fmt.Errorf("%q is said to be legal: %w", legal, err)
		}
		if now, err := sysctl.Read(s.Name); err != nil || now != legal {
			return fmt.Errorf("%q was written, and %q read, %v", legal, now, err)
		}
	}
	return nil
}

// legalOf are the ends of what is legal.
func legalOf(l setting.Legal) []string {
	low, high := strconv.FormatInt(l.Low, 10), strconv.FormatInt(l.High, 10)
	switch {
	case l.Unbounded != "":
		return nil
	case l.Form == setting.Range:
		return []string{low + " " + high}
	case l.Form == setting.List:
		return []string{low + "," + high, ""}
	}
	return []string{low, high}
}

// The states of connection tracking are those of settings that there are.
func TestTrackedStates(t *testing.T) {
	for _, test := range []struct {
		name, state string
		tracked     bool
	}{
		{setting.TrackedTimeWait, "time_wait", true},
		{"net.netfilter.nf_conntrack_tcp_timeout_syn_sent", "syn_sent", true},
		{"net.netfilter.nf_conntrack_tcp_timeout_asleep", "asleep", false},
		{setting.FinTimeout, "", false},
	} {
		state, tracked := setting.TrackedState(test.name)
		if tracked != test.tracked || tracked && state != test.state {
			t.Errorf("%s: state %q, %t", test.name, state, tracked)
		}
		there := slices.ContainsFunc(setting.All(), func(s setting.Setting) bool { return s.Name == test.name })
		if tracked && !there {
			t.Errorf("%s is no setting", test.name)
		}
	}
}
