package stage

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"linger/internal/tcp"
)

// Program is a real server that is run in a node.
type Program struct {
	name, debian string
	// config is the text of its configuration, in which DIR is its directory; args
	// are its arguments with the file of that text.
	config string
	args   func(file, dir string) []string
}

// Nginx listens on one address, with so many worker processes; http and location are what
// its configuration says in these blocks.
func Nginx(listen netip.AddrPort, workers int, http, location string) Program {
	return Program{
		name: "nginx", debian: "nginx-light",
		config: fmt.Sprintf(`
daemon off;
user root;
worker_processes %d;
pid DIR/pid;
error_log stderr crit;
events { worker_connections 2048; }
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	%s
	server { listen %s; location / { %s } }
}
`, workers, http, listen, location),
		args: func(file, dir string) []string { return []string{"-p", dir, "-c", file, "-e", "stderr"} },
	}
}

// HAProxy is in front of a backend; mode is a line of what its configuration says of both.
func HAProxy(listen, backend netip.AddrPort, mode string) Program {
	return Program{
		name: "haproxy", debian: "haproxy",
		config: fmt.Sprintf(`
global
	maxconn 2048
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	%s
listen proxy
	bind %s
	server backend %s
`, mode, listen, backend),
		args: func(file, _ string) []string { return []string{"-db", "-q", "-f", file} },
	}
}

// Run runs a program in the node, under a worker, and waits until it listens on a port.
// Both end with the topology. The error is errors.ErrUnsupported where the program is not
// installed.
func (n *Node) Run(ctx context.Context, p Program, port uint16) error {
	path, err := exec.LookPath(p.name)
	if err != nil {
		path = "/usr/sbin/" + p.name // often outside of PATH
		if !exists(path) {
			return fmt.Errorf("%w: needs %s (Debian package %s)", errors.ErrUnsupported, p.name, p.debian)
		}
	}
	dir := filepath.Join(os.TempDir(), ownName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	n.dirs = append(n.dirs, dir)
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(p.config, "DIR", dir)), 0o600); err != nil {
		return err
	}
	keeper, err := n.Start(ctx, "lab-"+p.name)
	if err != nil {
		return err
	}
	if err := keeper.run(ctx, append([]string{path}, p.args(file, dir)...)...); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; Sleep(ctx, 10*time.Millisecond) {
		listening, err := n.Count(ctx, port, tcp.Listen)
		if err != nil || listening > 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen", p.name)
		}
	}
}
