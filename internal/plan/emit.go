package plan

import (
	"fmt"
	"strings"

	"linger/internal/remedy"
	"linger/internal/setting"
)

// The forms in which a plan's settings are written for others to keep.
const (
	EmitSysctl  = "sysctl"
	EmitK8s     = "k8s"
	EmitAnsible = "ansible"
)

// Emit writes the settings of a plan as a snippet for a file of sysctl.d(5), for a
// pod's manifest, or for Ansible. One snippet is for one place: where the plan's
// changes are of several namespaces, or of a place that the form cannot set, it is an
// error that says so.
func Emit(form string, changes []Change) (string, error) {
	var label Label
	for _, c := range changes {
		switch {
		case form == EmitK8s && c.Scope.HostWide:
			return "", fmt.Errorf("%s is the whole host's: no pod can set it; use --emit %s on the node", c.Key, EmitSysctl)
		case c.Scope.HostWide:
		case label != Label{} && label != c.Scope.Label:
			return "", fmt.Errorf("the changes are of %s and of %s: name one with --netns", label, c.Scope.Label)
		default:
			label = c.Scope.Label
		}
	}
	var b strings.Builder
	switch form {
	case EmitSysctl:
		b.WriteString("# " + remedy.HandFile + "\n")
		for _, c := range changes {
			fmt.Fprintf(&b, "%s = %s\n", c.Key, c.New)
		}
	case EmitK8s:
		b.WriteString("# a patch of a Deployment, StatefulSet or DaemonSet: kubectl patch deployment NAME --patch-file FILE\n" +
			"spec:\n  template:\n    spec:\n      securityContext:\n        sysctls:\n")
		for _, c := range changes {
			if from := setting.PodsFrom(c.Key); from == "" {
				fmt.Fprintf(&b, "        # not among the safe sysctls: the kubelet must allow it, --allowed-unsafe-sysctls=%s\n", c.Key)
			} else if from != setting.PodsFirst {
				fmt.Fprintf(&b, "        # safe from Kubernetes %s on\n", from)
			}
			fmt.Fprintf(&b, "        - name: %s\n          value: %q\n", c.Key, c.New)
		}
	case EmitAnsible:
		for _, c := range changes {
			fmt.Fprintf(&b, "- name: %s\n  ansible.posix.sysctl:\n    name: %s\n    value: %q\n"+
				"    sysctl_file: %s\n    sysctl_set: true\n    state: present\n",
				c.Key, c.Key, c.New, remedy.HandFile)
		}
	default:
		return "", fmt.Errorf("%q is no form of a snippet: %s, %s or %s", form, EmitSysctl, EmitK8s, EmitAnsible)
	}
	return b.String(), nil
}

// Compose writes the settings of containers for the file that starts them, where that is
// no pod's manifest (compose-spec, services.sysctls).
func Compose(changes []Change) string {
	var b strings.Builder
	b.WriteString("# a part of compose.yaml; with docker run or podman run: --sysctl KEY=VALUE\nservices:\n")
	var label Label
	for _, c := range changes {
		if c.Scope.Label != label {
			label = c.Scope.Label
			fmt.Fprintf(&b, "  SERVICE: # of %s\n    sysctls:\n", oneLine(label.String())) // a comment ends with its line
		}
		fmt.Fprintf(&b, "      %s: %q\n", c.Key, c.New)
	}
	return b.String()
}
