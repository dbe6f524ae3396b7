package snapshot

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"linger/internal/tcp"
)

func at(second int, boot string, namespaces ...Namespace) *Snapshot {
	return &Snapshot{
		TakenAt: time.Unix(int64(second), 0), Host: Host{BootID: boot, Softnet: Counters{Total: map[string]uint64{"dropped": uint64(second)}}},
		Namespaces: namespaces,
	}
}

func counted(cookie, inode, opens uint64) Namespace {
	return Namespace{Cookie: cookie, Inode: inode, Counters: Counters{Total: map[string]uint64{"TcpActiveOpens": opens, "TcpExtTW": 7}}}
}

func opened(t *testing.T, i *Interval, cookie, inode uint64) (rise uint64, known bool) {
	t.Helper()
	ns := i.Namespace(cookie, inode)
	if ns == nil {
		t.Fatalf("namespace %d, %d is not in both", cookie, inode)
	}
	return ns.Counters.Rose("TcpActiveOpens")
}

func cookies(all []*Namespace) (out []uint64) {
	for _, ns := range all {
		out = append(out, ns.Cookie)
	}
	return out
}

// An inode is used again, a cookie is not: the namespace that has the inode of one that is gone
// is another.
func TestBetweenNamespaces(t *testing.T) {
	i := Between(
		at(10, "b", counted(1, 100, 5), counted(2, 200, 5)),
		at(15, "b", counted(3, 200, 9), counted(1, 100, 25)),
	)
	if rise, known := opened(t, i, 1, 100); rise != 20 || !known {
		t.Errorf("rose by %d (known: %v), want 20", rise, known)
	}
	if diff := cmp.Diff([][]uint64{{3}, {2}}, [][]uint64{cookies(i.Came), cookies(i.Gone)}); diff != "" {
		t.Errorf("came and gone (-want +got):\n%s", diff)
	}
	if rise, known := i.Softnet.Rose("dropped"); rise != 5 || !known {
		t.Errorf("softnet rose by %d (known: %v), want 5", rise, known)
	}
}

// Before kernel 5.14 there is only the inode.
func TestBetweenNamespacesWithoutCookies(t *testing.T) {
	i := Between(at(10, "b", counted(0, 100, 5)), at(15, "b", counted(0, 100, 6)))
	if rise, known := opened(t, i, 0, 100); rise != 1 || !known {
		t.Errorf("rose by %d (known: %v), want 1", rise, known)
	}
}

// What was not read did not rise by zero.
func TestBetweenUnknownCounters(t *testing.T) {
	for _, unread := range [][2]Namespace{
		{{Cookie: 1}, counted(1, 0, 5)}, {counted(1, 0, 5), {Cookie: 1}},
	} {
		i := Between(at(10, "b", unread[0]), at(15, "b", unread[1]))
		if rise, known := opened(t, i, 1, 0); known {
			t.Errorf("rose by %d, though it was read once", rise)
		}
	}
}

// After a boot numbers begin anew, and a cookie may mean another namespace.
func TestBetweenBoots(t *testing.T) {
	i := Between(at(10, "b", counted(1, 100, 5)), at(15, "c", counted(1, 100, 25)))
	if len(i.Namespaces) != 0 || len(i.Came) != 1 || len(i.Gone) != 1 {
		t.Errorf("%d in both, %d came, %d gone; want none in both", len(i.Namespaces), len(i.Came), len(i.Gone))
	}
	if rise, known := i.Softnet.Rose("dropped"); known {
		t.Errorf("softnet rose by %d over a boot", rise)
	}
}

func TestBetweenGroupsAndListeners(t *testing.T) {
	group := func(role tcp.Role, remote string) Group {
		g := Group{Role: role}
		if err := g.Remote.UnmarshalText([]byte(remote)); err != nil {
			t.Fatal(err)
		}
		return g
	}
	listener := func(local string) (l Listener) {
		if err := l.Local.UnmarshalText([]byte(local)); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before, after := counted(1, 100, 0), counted(1, 100, 0)
	before.Groups = []Group{group(tcp.Connector, "192.0.2.1:443"), group(tcp.RoleUnknown, "192.0.2.2:443")}
	after.Groups = []Group{group(tcp.Connector, "192.0.2.2:443"), group(tcp.Connector, "192.0.2.3:443")}
	before.Listeners = []Listener{listener("10.0.0.1:80"), listener("10.0.0.1:80"), listener("10.0.0.1:81")}
	after.Listeners = []Listener{listener("10.0.0.1:80"), listener("10.0.0.1:82")}

	i := Between(at(10, "b", before), at(15, "b", after)).Namespaces[0]
	if diff := cmp.Diff([]string{"192.0.2.2:443 stayed", "192.0.2.3:443 came", "192.0.2.1:443 went"},
		fates(i.Groups, func(g *Group) tcp.Endpoint { return g.Remote })); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.0.0.1:80 stayed", "10.0.0.1:82 came", "10.0.0.1:81 went"},
		fates(i.Listeners, func(l *Listener) tcp.Endpoint { return l.Local })); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(i.Groups, func(p Pair[Group]) bool {
		return p.Before != nil && p.After != nil && p.Before.Role == tcp.RoleUnknown && p.After.Role == tcp.Connector
	}) {
		t.Error("a group whose role became known is not the same")
	}
}

func fates[T any](pairs []Pair[T], name func(*T) tcp.Endpoint) (all []string) {
	for _, p := range pairs {
		switch {
		case p.Before == nil:
			all = append(all, fmt.Sprint(name(p.After), " came"))
		case p.After == nil:
			all = append(all, fmt.Sprint(name(p.Before), " went"))
		default:
			all = append(all, fmt.Sprint(name(p.After), " stayed"))
		}
	}
	return all
}
