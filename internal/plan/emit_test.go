package plan

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"linger/internal/setting"
)

func TestEmit(t *testing.T) {
	pod := Scope{Cookie: 7, Label: "pod shop/cart"}
	changes := []Change{
		{Scope: pod, Key: setting.TWReuse, New: "1"},
		{Scope: pod, Key: setting.LocalReservedPorts, New: "8080,9090"},
		{Scope: pod, Key: setting.LocalPortRange, New: "20000 60999"},
	}

	text, err := Emit(EmitSysctl, changes)
	if err != nil || !strings.Contains(text, "\nnet.ipv4.ip_local_port_range = 20000 60999\n") {
		t.Errorf("%s, %v", text, err)
	}

	text, err = Emit(EmitK8s, changes)
	if err != nil {
		t.Fatal(err)
	}
	var patch struct {
		Spec struct {
			Template struct {
				Spec struct {
					SecurityContext struct {
						Sysctls []struct{ Name, Value string }
					} `yaml:"securityContext"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &patch); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	set := patch.Spec.Template.Spec.SecurityContext.Sysctls
	if len(set) != 3 || set[0].Name != setting.TWReuse || set[0].Value != "1" || set[2].Value != "20000 60999" {
		t.Errorf("%+v", set)
	}
	for _, say := range []string{"--allowed-unsafe-sysctls=net.ipv4.tcp_tw_reuse\n", "safe from Kubernetes 1.27 on"} {
		if !strings.Contains(text, say) {
			t.Errorf("%q is not said:\n%s", say, text)
		}
	}
	if strings.Count(text, "--allowed-unsafe-sysctls") != 1 {
		t.Errorf("safe ones are called unsafe:\n%s", text)
	}

	text, err = Emit(EmitAnsible, changes)
	if err != nil {
		t.Fatal(err)
	}
	var tasks []struct {
		Sysctl struct{ Name, Value string } `yaml:"ansible.posix.sysctl"`
	}
	if err := yaml.Unmarshal([]byte(text), &tasks); err != nil || len(tasks) != 3 || tasks[2].Sysctl.Value != "20000 60999" {
		t.Errorf("%v: %+v", err, tasks)
	}
}

func TestCompose(t *testing.T) {
	web := Scope{Label: "container web"}
	text := Compose([]Change{{Scope: web, Key: setting.TWReuse, New: "1"}, {Scope: web, Key: setting.LocalPortRange, New: "20000 60999"}})
	var file struct {
		Services map[string]struct{ Sysctls map[string]string }
	}
	err := yaml.Unmarshal([]byte(text), &file)
	if set := file.Services["SERVICE"].Sysctls; err != nil || set[setting.LocalPortRange] != "20000 60999" || set[setting.TWReuse] != "1" {
		t.Errorf("%v: %+v of:\n%s", err, file, text)
	}
}

func TestEmitRefusesWhatTheFormCannotSay(t *testing.T) {
	host := Change{Scope: Scope{HostWide: true, Label: "host"}, Key: "net.ipv4.tcp_max_orphans", New: "9"}
	a := Change{Scope: Scope{Label: "pod a"}, Key: setting.TWReuse, New: "1"}
	b := Change{Scope: Scope{Label: "pod b"}, Key: setting.TWReuse, New: "1"}
	for _, c := range []struct {
		form    string
		changes []Change
		want    string
	}{
		{EmitK8s, []Change{host}, "no pod can set it"},
		{EmitSysctl, []Change{a, b}, "of pod a and of pod b"},
		{"toml", []Change{a}, "no form"},
	} {
		if _, err := Emit(c.form, c.changes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.form, err)
		}
	}
}
