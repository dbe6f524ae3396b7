package process

import (
	"bytes"
	"strings"
)

// ParseCgroup finds the container and the pod in the text of /proc/PID/cgroup: the
// first 12 digits of the container's id, and the pod's uid in its form with dashes.
// Either is empty where the paths name none.
//
// The paths are written by the container runtimes, each in its own way, below a
// cgroupfs or a systemd parent: docker/ID, docker-ID.scope, libpod-ID.scope,
// crio-ID.scope, cri-containerd-ID.scope, kubepods/burstable/podUID/ID,
// kubepods-burstable-podUID.slice:cri-containerd:ID. What they share is the id, 64
// hexadecimal digits at the end of a path element. Of containers within containers
// the innermost is named.
func ParseCgroup(text []byte) (container, pod string) {
	for line := range bytes.Lines(text) {
		// hierarchy:controllers:path, where the path may hold colons too.
		parts := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(parts) < 3 {
			continue
		}
		c, p := parsePath(string(parts[2]))
		if container == "" {
			container = c
		}
		if pod == "" {
			pod = p
		}
	}
	return container, pod
}

func parsePath(path string) (container, pod string) {
	for element := range strings.SplitSeq(path, "/") {
		for part := range strings.SplitSeq(element, ":") {
			if id := containerID(part); id != "" {
				container = id
			}
			if uid := podUID(part); uid != "" {
				pod, container = uid, "" // a container outside of the pod is the node itself
			}
		}
	}
	return container, pod
}

const (
	idLength      = 64
	shortIDLength = 12
)

// containerID is the short id at the end of a path element, after nothing or after
// the name of its runtime and a dash.
func containerID(element string) string {
	element = strings.TrimSuffix(element, ".scope")
	start := len(element) - idLength
	if start < 0 || !isHex(element[start:]) {
		return ""
	}
	runtime := element[:start]
	// The monitor of a container (conmon) runs outside of it.
	if runtime != "" && !strings.HasSuffix(runtime, "-") || strings.Contains(runtime, "conmon") {
		return ""
	}
	return element[start : start+shortIDLength]
}

// podUID is the uid in podUID or in kubepods-burstable-podUID.slice, where systemd's
// driver writes underscores for dashes. Pods of files on the node have a hash of 32
// digits for a uid.
func podUID(element string) string {
	element = strings.TrimSuffix(element, ".slice")
	at := strings.LastIndex(element, "pod")
	if at < 0 || at > 0 && element[at-1] != '-' {
		return ""
	}
	uid := strings.ReplaceAll(element[at+len("pod"):], "_", "-")
	if len(uid) == 32 && isHex(uid) || isUUID(uid) {
		return uid
	}
	return ""
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, group := range strings.Split(s, "-") {
		if i > 4 || len(group) != [...]int{8, 4, 4, 4, 12}[i] || !isHex(group) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for _, r := range []byte(s) {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}
