package stage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// DialSpec says which connections a worker opens.
type DialSpec struct {
	// To are the destinations, taken in turn.
	To []netip.AddrPort `json:"to"`
	// From are the source addresses, taken in turn, one for each round of To. None
	// leaves the choice to the kernel. They are bound without a port
	// (IP_BIND_ADDRESS_NO_PORT), so that connect() chooses it.
	From []netip.Addr `json:"from,omitempty"`
	// FromPort is the source port of all connections, with SO_REUSEADDR and
	// SO_REUSEPORT; 0 lets connect() choose.
	FromPort uint16 `json:"from_port,omitempty"`

	// BindPort binds a source address and port 0, so that bind() chooses the port.
	BindPort bool `json:"bind_port,omitempty"`
	// ReuseAddress sets SO_REUSEADDR before bind().
	ReuseAddress bool `json:"reuse_address,omitempty"`
	// KeepAliveSeconds sets SO_KEEPALIVE, with a probe after so many idle seconds; below
	// 0, after those of tcp_keepalive_time.
	KeepAliveSeconds int `json:"keep_alive_seconds,omitempty"`
	// Send is how many bytes are sent on each connection before it is closed, in one
	// write that the send buffer takes whole.
	Send int `json:"send,omitempty"`
	// Abort closes by a reset (SO_LINGER with a time-out of zero).
	Abort bool `json:"abort,omitempty"`
	// Latencies asks how long each connect() took.
	Latencies bool `json:"latencies,omitempty"`

	// Count is how many connections to open. For a churn in the background it may
	// be 0: until it is ended.
	Count int `json:"count"`
	// Batch is how many are open at a time; 0 means 64.
	Batch int `json:"batch,omitempty"`
	// Rate is how many to open each second: a batch is then closed when the next
	// one is due. 0 is as fast as possible.
	Rate float64 `json:"rate,omitempty"`

	// PatienceMS bounds connect() in milliseconds; 0 leaves it to the kernel.
	PatienceMS int64 `json:"patience_ms,omitempty"`

	// PeerCloses waits for the other side to close first.
	PeerCloses bool `json:"peer_closes,omitempty"`
	// Request is sent on each connection whose peer closes; the answer is read.
	Request string `json:"request,omitempty"`
}

// Dialed counts what became of the connections.
type Dialed struct {
	Opened int `json:"opened"`
	// NoPort are those that failed with EADDRNOTAVAIL: every source port was taken.
	NoPort int `json:"no_port"`
	// Failed are those that failed otherwise, and FirstFailure says how the first
	// one did.
	Failed       int    `json:"failed"`
	FirstFailure string `json:"first_failure,omitempty"`
	// Errnos counts all that failed by the name of their error.
	Errnos  map[string]int `json:"errnos,omitempty"`
	Seconds float64        `json:"seconds"`
	// Micros is how long each connect() that succeeded took, in µs, if it was asked.
	Micros []float64 `json:"micros,omitempty"`
}

// Plus adds the two up.
func (d Dialed) Plus(o Dialed) Dialed {
	sum := Dialed{
		Opened: d.Opened + o.Opened, NoPort: d.NoPort + o.NoPort, Failed: d.Failed + o.Failed,
		FirstFailure: cmp.Or(d.FirstFailure, o.FirstFailure), Errnos: maps.Clone(d.Errnos), Seconds: d.Seconds + o.Seconds,
		Micros: slices.Concat(d.Micros, o.Micros),
	}
	for errno, count := range o.Errnos {
		if sum.Errnos == nil {
			sum.Errnos = map[string]int{}
		}
		sum.Errnos[errno] += count
	}
	return sum
}

// defaultBatch is small enough for a batch's sockets to stay in a CPU's cache.
const defaultBatch = 64

// dialer opens and closes connections on the thread that calls it, with plain
// blocking system calls: over loopback a handshake is done when connect()
// returns.
type dialer struct {
	spec   DialSpec
	to     []unix.Sockaddr
	from   []unix.Sockaddr
	family int

	next   int // index of the next connection
	open   []int
	done   Dialed
	buffer []byte
}

func newDialer(spec *DialSpec) (*dialer, error) {
	if spec == nil || len(spec.To) == 0 {
		return nil, errors.New("dial: no destination")
	}
	d := &dialer{spec: *spec, family: family(spec.To[0].Addr()), buffer: make([]byte, 64<<10)}
	d.spec.Batch = cmp.Or(spec.Batch, defaultBatch)
	for _, to := range spec.To {
		if family(to.Addr()) != d.family {
			return nil, errors.New("dial: destinations of both IPv4 and IPv6")
		}
		d.to = append(d.to, sockaddr(to))
	}
	for _, from := range spec.From {
		d.from = append(d.from, sockaddr(netip.AddrPortFrom(from, spec.FromPort)))
	}
	if len(d.from) == 0 && spec.FromPort != 0 {
		any := netip.IPv4Unspecified()
		if d.family == unix.AF_INET6 {
			any = netip.IPv6Unspecified()
		}
		d.from = append(d.from, sockaddr(netip.AddrPortFrom(any, spec.FromPort)))
	}
	return d, nil
}

// churn opens and closes connections until the count is reached or ctx ends.
func (d *dialer) churn(ctx context.Context) Dialed {
	start := time.Now()
	for ctx.Err() == nil && (d.spec.Count == 0 || d.next < d.spec.Count) {
		n := d.spec.Batch
		if d.spec.Count > 0 {
			n = min(n, d.spec.Count-d.next)
		}
		for range n {
			d.openOne()
		}
		if d.spec.Rate > 0 {
			due := time.Duration(float64(d.next) / d.spec.Rate * float64(time.Second))
			Sleep(ctx, time.Until(start.Add(due)))
		}
		d.closeAll()
	}
	d.done.Seconds = time.Since(start).Seconds()
	return d.done
}

// hold opens connections and leaves them open.
func (d *dialer) hold(ctx context.Context) Dialed {
	start := time.Now()
	for ctx.Err() == nil && d.next < d.spec.Count {
		d.openOne()
	}
	d.done.Seconds = time.Since(start).Seconds()
	return d.done
}

// talk sends a byte on each open connection and waits for it to come back.
func (d *dialer) talk() error {
	for _, fd := range d.open {
		if err := writeAll(fd, []byte{'.'}); err != nil {
			return fmt.Errorf("talk: send: %w", err)
		}
		n, err := readSome(fd, d.buffer)
		if err != nil {
			return fmt.Errorf("talk: receive: %w", err)
		}
		if n == 0 {
			return errors.New("talk: receive: the peer has closed")
		}
	}
	return nil
}

// flood sends single bytes on each open connection, as fast as it can, until ctx
// ends; what a full buffer does not take is left.
func (d *dialer) flood(ctx context.Context) Dialed {
	for _, fd := range d.open {
		_ = unix.SetNonblock(fd, true)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	for ctx.Err() == nil {
		for _, fd := range d.open {
			_, _ = unix.Write(fd, []byte{'.'})
		}
		Sleep(ctx, time.Millisecond)
	}
	return d.done
}

func (d *dialer) openOne() {
	i := d.next
	d.next++
	fd, err := d.connect(i)
	if err == nil && d.spec.Send > 0 {
		if err = d.send(fd); err != nil {
			unix.Close(fd)
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		if d.done.Errnos == nil {
			d.done.Errnos = map[string]int{}
		}
		d.done.Errnos[unix.ErrnoName(errno)]++
	}
	switch {
	case err == nil:
		d.done.Opened++
		d.open = append(d.open, fd)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		d.done.NoPort++
	default:
		if d.done.Failed == 0 {
			d.done.FirstFailure = err.Error()
		}
		d.done.Failed++
	}
}

func (d *dialer) connect(i int) (int, error) {
	fd, err := unix.Socket(d.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if len(d.from) > 0 {
		if err := d.bind(fd, d.from[i/len(d.to)%len(d.from)]); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind: %w", err)
		}
	}
	if d.spec.PatienceMS > 0 {
		patience := unix.NsecToTimeval(d.spec.PatienceMS * int64(time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("SO_SNDTIMEO: %w", err)
		}
	}
	if err := d.prepare(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	began := time.Now()
	if err := connectTo(fd, d.to[i%len(d.to)], time.Duration(d.spec.PatienceMS)*time.Millisecond); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	if d.spec.Latencies {
		d.done.Micros = append(d.done.Micros, float64(time.Since(began).Nanoseconds())/1000)
	}
	return fd, nil
}

// prepare sets the options that a connection is to have.
func (d *dialer) prepare(fd int) error {
	if d.spec.KeepAliveSeconds < 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
			return fmt.Errorf("SO_KEEPALIVE: %w", err)
		}
	}
	if d.spec.KeepAliveSeconds > 0 {
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, d.spec.KeepAliveSeconds},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, d.spec.KeepAliveSeconds},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return fmt.Errorf("SO_KEEPALIVE: %w", err)
			}
		}
	}
	if d.spec.Send > 0 {
		// The kernel doubles it, at most to twice net.core.wmem_max (socket(7)).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*d.spec.Send); err != nil {
			return fmt.Errorf("SO_SNDBUF: %w", err)
		}
	}
	if d.spec.Abort {
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fmt.Errorf("SO_LINGER: %w", err)
		}
	}
	return nil
}

// send writes what is to be sent, in parts that the buffer takes.
func (d *dialer) send(fd int) error {
	for left := d.spec.Send; left > 0; {
		n := min(left, len(d.buffer))
		if err := writeAll(fd, d.buffer[:n]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		left -= n
	}
	return nil
}

// probe sends a byte on each open connection and counts those on which it comes back
// in time; if asked, it opens the others anew and tries once more.
func (d *dialer) probe(patience time.Duration, again bool) (alive, dead int) {
	silent := d.echo(d.open, patience)
	if again {
		var anew []int
		for range silent {
			if fd, err := d.connect(d.next); err == nil {
				anew = append(anew, fd)
			}
			d.next++
		}
		d.open = append(d.open, anew...)
		failed := len(silent) - len(anew) + len(d.echo(anew, patience))
		return len(d.open) - len(anew) - failed, failed
	}
	return len(d.open) - len(silent), len(silent)
}

// echo sends a byte on each of these connections, and returns those on which it does
// not come back in time.
func (d *dialer) echo(open []int, patience time.Duration) (silent []int) {
	polled := make([]unix.PollFd, 0, len(open))
	for _, fd := range open {
		if writeAll(fd, []byte{'.'}) == nil {
			polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		} else {
			silent = append(silent, fd)
		}
	}
	for deadline := time.Now().Add(patience); len(polled) > 0 && time.Now().Before(deadline); {
		if _, err := unix.Poll(polled, int(time.Until(deadline).Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		polled = slices.DeleteFunc(polled, func(p unix.PollFd) bool {
			if p.Revents == 0 {
				return false
			}
			if n, err := readSome(int(p.Fd), d.buffer); n <= 0 || err != nil {
				silent = append(silent, int(p.Fd))
			}
			return true
		})
	}
	for _, p := range polled {
		silent = append(silent, int(p.Fd))
	}
	return silent
}

// AskSpec says what is asked on connections that stay open, and how an answer ends.
type AskSpec struct {
	Request   string `json:"request"`
	AnswerEnd string `json:"answer_end"`
	Rounds    int    `json:"rounds"`
}

// ask sends the request on each open connection in turn, and reads the answer.
func (d *dialer) ask(spec AskSpec) (answered, failed int) {
	for range spec.Rounds {
		for _, fd := range d.open {
			if d.exchange(fd, spec) {
				answered++
			} else {
				failed++
			}
		}
	}
	return answered, failed
}

func (d *dialer) exchange(fd int, spec AskSpec) bool {
	if writeAll(fd, []byte(spec.Request)) != nil {
		return false
	}
	var answer []byte
	for !bytes.HasSuffix(answer, []byte(spec.AnswerEnd)) {
		n, err := readSome(fd, d.buffer)
		if n <= 0 || err != nil {
			return false
		}
		answer = append(answer, d.buffer[:n]...)
	}
	return true
}

func (d *dialer) bind(fd int, from unix.Sockaddr) error {
	options := []struct{ level, name int }{{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT}}
	if d.spec.BindPort {
		options = nil
	}
	if d.spec.ReuseAddress {
		options = append(options, struct{ level, name int }{unix.SOL_SOCKET, unix.SO_REUSEADDR})
	}
	if d.spec.FromPort != 0 {
		options = []struct{ level, name int }{{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_REUSEPORT}}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, from)
}

func (d *dialer) closeAll() {
	for _, fd := range d.open {
		if d.spec.PeerCloses {
			d.awaitEnd(fd)
		}
		unix.Close(fd)
	}
	d.open = d.open[:0]
}

// awaitEnd reads to the end, so that close() sends a FIN and no RST. The peer's
// reset ends the connection as well.
func (d *dialer) awaitEnd(fd int) {
	if d.spec.Request != "" {
		if writeAll(fd, []byte(d.spec.Request)) != nil {
			return
		}
	}
	for {
		if n, err := readSome(fd, d.buffer); n == 0 || err != nil {
			return
		}
	}
}

// connectTo goes on where a signal interrupted: the handshake does, too
// (connect(2)). Patience is that of SO_SNDTIMEO, which poll() does not know; 0 is the
// kernel's own.
func connectTo(fd int, to unix.Sockaddr, patience time.Duration) error {
	began := time.Now()
	err := unix.Connect(fd, to)
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	for {
		wait := -1
		if patience > 0 {
			wait = int(max(0, patience-time.Since(began)).Milliseconds())
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, wait)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EINPROGRESS // as connect() says it
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if code != 0 {
			return unix.Errno(code)
		}
		return nil
	}
}

func readSome(fd int, buffer []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buffer)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func Sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
