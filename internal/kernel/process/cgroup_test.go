package process

import (
	"strings"
	"testing"
)

const (
	id    = "3f1c9d2b7a6e5f4038271605948372615049382716059483726150493827abcd"
	outer = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
	short = "3f1c9d2b7a6e"
	uid   = "0c8a9d53-1b2f-4f60-9c3e-5a7d8e9f0a1b"
)

func TestParseCgroup(t *testing.T) {
	underscored := strings.ReplaceAll(uid, "-", "_")
	const hash = "d7cb4a3e5f60718293a4b5c6d7e8f901"
	for name, c := range map[string]struct{ text, container, pod string }{
		"nothing":                 {},
		"the host, v2":            {text: "0::/\n"},
		"a service, v2":           {text: "0::/system.slice/nginx.service\n"},
		"a login":                 {text: "0::/user.slice/user-1000.slice/session-3.scope\n"},
		"an id alone is too long": {text: "0::/x/" + id + "0\n"},

		"docker, v1 cgroupfs": {text: "12:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n", container: short},
		"docker, v2 systemd":  {text: "0::/system.slice/docker-" + id + ".scope\n", container: short},
		"docker, v1 hybrid, where only some controllers have it": {
			text: "9:cpuset:/\n4:memory:/docker/" + id + "\n0::/\n", container: short},
		"docker in docker": {text: "0::/docker/" + outer + "/docker/" + id + "\n", container: short},
		"docker with an init cgroup below": {
			text: "0::/system.slice/docker-" + id + ".scope/init\n", container: short},
		"nerdctl":           {text: "0::/system.slice/nerdctl-" + id + ".scope\n", container: short},
		"podman, root":      {text: "0::/machine.slice/libpod-" + id + ".scope/container\n", container: short},
		"podman, v1":        {text: "8:pids:/machine.slice/libpod-" + id + ".scope\n", container: short},
		"podman, rootless":  {text: "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope\n", container: short},
		"podman's cgroupfs": {text: "0::/libpod_parent/libpod-" + id + "\n", container: short},
		"podman's monitor":  {text: "0::/machine.slice/libpod-conmon-" + id + ".scope\n"},
		"amazon ecs":        {text: "7:cpu:/ecs/2a7d9f2e-8f54-4b2b-a6a1-c1f5ab7f1d3c/" + id + "\n", container: short},

		"kubernetes, v1 cgroupfs": {
			text: "11:devices:/kubepods/burstable/pod" + uid + "/" + id + "\n", container: short, pod: uid},
		"kubernetes, guaranteed": {
			text: "0::/kubepods/pod" + uid + "/" + id + "\n", container: short, pod: uid},
		"kubernetes, containerd with systemd": {
			text: "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + underscored +
				".slice/cri-containerd-" + id + ".scope\n", container: short, pod: uid},
		"kubernetes, guaranteed with systemd": {
			text:      "0::/kubepods.slice/kubepods-pod" + underscored + ".slice/cri-containerd-" + id + ".scope\n",
			container: short, pod: uid},
		"kubernetes, containerd whose driver differs": {
			text: "3:cpu:/system.slice/containerd.service/kubepods-besteffort-pod" + underscored +
				".slice:cri-containerd:" + id + "\n", container: short, pod: uid},
		"kubernetes, cri-o": {
			text: "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + underscored +
				".slice/crio-" + id + ".scope/container\n", container: short, pod: uid},
		"kubernetes, cri-o's monitor": {
			text: "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + underscored +
				".slice/crio-conmon-" + id + ".scope\n", pod: uid},
		"kubernetes, docker": {
			text:      "1:name=systemd:/kubepods.slice/kubepods-pod" + underscored + ".slice/docker-" + id + ".scope\n",
			container: short, pod: uid},
		"kubernetes, a pod of a file on the node": {
			text: "0::/kubepods/burstable/pod" + hash + "/" + id + "\n", container: short, pod: hash},
		"kubernetes in docker (kind)": {
			text: "0::/system.slice/docker-" + outer + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" +
				underscored + ".slice/cri-containerd-" + id + ".scope\n", container: short, pod: uid},
		"the pod's own cgroup, in docker": {
			text: "0::/docker/" + outer + "/kubepods/pod" + uid + "\n", pod: uid},
		"a service with pod in its name": {text: "0::/system.slice/podman.service\n"},
		"no cgroup line":                 {text: "kubepods/pod" + uid},
	} {
		t.Run(name, func(t *testing.T) {
			container, pod := ParseCgroup([]byte(c.text))
			if container != c.container || pod != c.pod {
				t.Errorf("container %q, pod %q; want %q, %q", container, pod, c.container, c.pod)
			}
		})
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("0::/system.slice/docker-" + id + ".scope\n"))
	f.Add([]byte("3:cpu:/system.slice/containerd.service/kubepods-besteffort-pod" + uid + ".slice:cri-containerd:" + id))
	f.Add([]byte("0::/pod-----------------------------------/" + outer))
	f.Fuzz(func(t *testing.T, text []byte) {
		container, pod := ParseCgroup(text)
		if container != "" && (len(container) != shortIDLength || !isHex(container)) {
			t.Errorf("container %q", container)
		}
		if pod != "" && !isHex(strings.ReplaceAll(pod, "-", "")) {
			t.Errorf("pod %q", pod)
		}
	})
}
