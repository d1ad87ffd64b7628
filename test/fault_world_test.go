package test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Secrets of the engines: nothing that berth writes may hold one.
const (
	postgresPassword = "pg-Secret-3f9a1c"
	accessKey        = "fault-access"
	secretKey        = "s3-Secret-77b2e0"
)

// within is how long a request may take at most before it is answered, whatever
// is broken, with some room for a machine that is busy with other tests.
const within = 25 * time.Second

// world is a berth between whose process and engines there are proxies.
type world struct {
	*server
	t        *testing.T
	postgres *engine
	s3       *engine
	toPG     *proxy
	toS3     *proxy
	s3Says   *answers // behind toS3
	env      []string
	more     []string // of env: what the test asked for
	data     string
	admin    string
	book     *book
}

// smallDisk, among the settings, gives PostgreSQL a file system of 80 MiB.
const smallDisk = "small disk"

// dataIn, among the settings, is the folder of berth's data.
func dataIn(dir string) string { return "data in " + dir }

// newWorld starts PostgreSQL, an S3 service and a berth. more are settings of
// berth, NAME=VALUE.
func newWorld(t *testing.T, more ...string) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, postgres: newPostgres(t, slices.Contains(more, smallDisk)), s3: newS3(t), data: filepath.Join(t.TempDir(), "data"), book: &book{}}
	w.toPG = newProxy(t, w.postgres.addr)
	w.more = slices.DeleteFunc(slices.Clone(more), func(s string) bool {
		dir, ok := strings.CutPrefix(s, dataIn(""))
		if ok {
			w.data = filepath.Join(dir, "data")
		}
		return ok || s == smallDisk
	})
	w.connect()
	w.start()
	return w
}

// connect puts new proxies between this berth and the engines.
func (w *world) connect() {
	w.toPG = newProxy(w.t, w.postgres.addr)
	w.s3Says = newAnswers(w.t, w.s3.addr)
	w.toS3 = newProxy(w.t, w.s3Says.Host)
	w.env = append([]string{
		"BERTH_METADATA_POSTGRES_URL=" + postgresURL(w.toPG.addr),
		"BERTH_STORAGE_S3_BUCKET=berth", "BERTH_STORAGE_S3_REGION=us-east-1", "BERTH_STORAGE_S3_PATH_STYLE=true",
		"BERTH_STORAGE_S3_ENDPOINT=http://" + w.toS3.addr,
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey,
		"BERTH_ADMIN_LISTEN=127.0.0.1:0", "BERTH_LOG_LEVEL=debug",
	}, w.more...)
}

// twin is another replica on the same engines, with ways to them of its own.
func (w *world) twin() *world {
	w.t.Helper()
	other := &world{t: w.t, postgres: w.postgres, s3: w.s3, more: w.more, data: w.data + "-2", book: &book{}}
	other.connect()
	other.start()
	return other
}

func postgresURL(addr string) string {
	return "postgres://postgres:" + postgresPassword + "@" + addr + "/postgres?sslmode=disable"
}

var adminLine = regexp.MustCompile(`metrics are served" address=(127\.0\.0\.1:\d+)`)

// start runs berth until the test ends, and looks then at all it has written.
func (w *world) start() {
	w.t.Helper()
	s := &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
	s.cmd = berth("serve", "--listen", "127.0.0.1:0", "--data", w.data)
	s.cmd.Env = append(s.cmd.Env, w.env...)
	s.cmd.Stdout, s.cmd.Stderr = io.MultiWriter(s.log, w.book), io.MultiWriter(s.log, w.book)
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { s.err = s.cmd.Wait(); close(s.done) }()
	w.t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGCONT) // of one that a test has frozen
		s.kill()
		w.book.keepsSecrets(w.t)
		if w.t.Failed() {
			w.t.Logf("end of the server's log:\n%s", s.log.tail())
		}
	})
	select {
	case base := <-s.log.ready:
		s.api = newAPI(base)
		s.api.http.Transport = &bodyBook{s.api.http.Transport, w.book}
		s.api.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	case <-s.done:
		w.t.Fatalf("berth serve ended before it was ready: %v\n%s", s.err, s.log.tail())
	case <-time.After(60 * time.Second):
		w.t.Fatalf("berth serve printed no address for 60 s\n%s", s.log.tail())
	}
	w.server = s
	w.admin = "http://" + w.book.find(w.t, adminLine)
}

// book is everything that berth has written, on its streams and to clients.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// find waits for a line and returns its last group.
func (b *book) find(t *testing.T, line *regexp.Regexp) string {
	t.Helper()
	for range 400 {
		if all := line.FindStringSubmatch(b.String()); all != nil {
			return all[len(all)-1]
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("nothing like %q was written", line)
	return ""
}

// says wants a text in the log, where it stands soon after the answer.
func (b *book) says(t *testing.T, text string) {
	t.Helper()
	for range 100 {
		if strings.Contains(b.String(), text) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the log does not say %q", text)
}

// keepsSecrets wants no password, key or signature in what was written.
func (b *book) keepsSecrets(t *testing.T) {
	text := b.String()
	for _, secret := range []string{postgresPassword, secretKey, "X-Amz-Signature", "Signature="} {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret was written: %q", text[max(0, at-300):min(len(text), at+300)])
		}
	}
}

// bodyBook notes the bodies of errors. It fails the test's secrets if one is
// in them; a redirect's target has a signature, and is no body.
type bodyBook struct {
	http.RoundTripper
	book *book
}

func (b *bodyBook) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err != nil || res.StatusCode < 400 {
		return res, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	res.Body.Close()
	fmt.Fprintf(b.book, "%s %s: %d %v %s\n", r.Method, r.URL.Path, res.StatusCode, res.Header, text)
	res.Body = io.NopCloser(bytes.NewReader(text))
	return res, err
}

// CloseIdleConnections lets a client close those of the transport beneath.
func (b *bodyBook) CloseIdleConnections() {
	b.RoundTripper.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

// reply is an answer and how long it took.
type reply struct {
	what   string
	status int
	header http.Header
	body   string
	took   time.Duration
	err    error
}

// ask sends a request and waits for the whole answer.
func (w *world) ask(method, path string, body io.Reader, header ...string) reply {
	begin := time.Now()
	r := reply{what: method + " " + path}
	req, err := http.NewRequest(method, w.api.base+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := w.api.http.Do(req)
	if err == nil {
		var text []byte
		text, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
		res.Body.Close()
		r.status, r.header, r.body = res.StatusCode, res.Header, string(text)
	}
	r.err, r.took = err, time.Since(begin)
	return r
}

// unavailable wants the one answer to whatever cannot be done now: 503 in the
// protocol's form, with when to come back, in bounded time.
func (r reply) unavailable(t *testing.T) {
	t.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	after, err := strconv.Atoi(r.header.Get("Retry-After"))
	head := strings.HasPrefix(r.what, "HEAD ")
	switch {
	case r.err != nil:
		t.Errorf("%s: %v after %v, want an answer", r.what, r.err, r.took)
	case r.status != http.StatusServiceUnavailable:
		t.Errorf("%s: %d after %v, want 503: %s", r.what, r.status, r.took, r.body)
	case err != nil || after < 1:
		t.Errorf("%s: Retry-After %q, want a number of seconds", r.what, r.header.Get("Retry-After"))
	case !head && (json.Unmarshal([]byte(r.body), &body) != nil || len(body.Errors) != 1 || body.Errors[0].Code != "UNAVAILABLE"):
		t.Errorf("%s: no error UNAVAILABLE: %s", r.what, r.body)
	}
	if r.took > within {
		t.Errorf("%s: answered after %v, want at most %v", r.what, r.took, within)
	}
	t.Logf("%s: %d after %v", r.what, r.status, r.took.Round(time.Millisecond))
}

func (r reply) is(t *testing.T, status int) {
	t.Helper()
	if r.err != nil || r.status != status {
		t.Errorf("%s: %d, %v after %v, want %d: %s", r.what, r.status, r.err, r.took, status, r.body)
	}
}

// probe asks a path of the admin listener.
func (w *world) probe(path string) (status int, body string) {
	w.t.Helper()
	client := http.Client{Timeout: 30 * time.Second}
	res, err := client.Get(w.admin + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.book.Write(text)
	return res.StatusCode, string(text)
}

// alive wants the process to say that it is, and to be ready or not for the
// given reason; "" is for none.
func (w *world) alive(reason string) {
	w.t.Helper()
	if status, body := w.probe("/healthz"); status != 200 {
		w.t.Errorf("/healthz: %d %s", status, body)
	}
	status, body := w.probe("/readyz")
	for range 40 { // an answer is good for a second
		if reason != "" || status == 200 {
			break
		}
		time.Sleep(100 * time.Millisecond)
		status, body = w.probe("/readyz")
	}
	if reason == "" && status != 200 || reason != "" && (status != 503 || !strings.Contains(body, reason)) {
		w.t.Errorf("/readyz: %d %s; want the reason %q", status, body, reason)
	}
}

// metric is the sum of a metric's samples.
func (w *world) metric(name string) (sum float64) {
	w.t.Helper()
	_, body := w.probe("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			var v float64
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v)
			sum += v
		}
	}
	return sum
}

// engine is a server that berth stands on, with a fixed port.
type engine struct {
	t     *testing.T
	addr  string
	run   func() *exec.Cmd
	probe func() error
	cmd   *exec.Cmd
	dir   string
}

// start runs the engine until it answers.
func (e *engine) start() {
	e.t.Helper()
	e.cmd = e.run()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	for range 600 {
		if err = e.probe(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	e.t.Fatalf("%s does not answer: %v\n%s", e.cmd.Path, err, text)
}

// stop ends the engine with a signal and waits for its end.
func (e *engine) stop(how syscall.Signal) {
	if e.cmd != nil {
		e.cmd.Process.Signal(how)
		e.cmd.Wait()
		e.cmd = nil
	}
}

// newS3 starts a versitygw with the bucket berth.
func newS3(t *testing.T) *engine {
	t.Helper()
	binary, err := filepath.Abs("../.tools/bin/versitygw")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		t.Fatalf("versitygw is not installed; install it with scripts/install-test-tools: %v", err)
	}
	e := &engine{t: t, addr: freeAddress(t), dir: t.TempDir()}
	for _, dir := range []string{"data/berth", "iam"} {
		if err := os.MkdirAll(filepath.Join(e.dir, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	e.run = func() *exec.Cmd {
		cmd := exec.Command(binary, "--port", e.addr, "--health", "/health", "--iam-dir", filepath.Join(e.dir, "iam"), "posix", filepath.Join(e.dir, "data"))
		cmd.Env = append(os.Environ(), "HOME="+e.dir, "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
		return cmd
	}
	e.probe = func() error {
		res, err := http.Get("http://" + e.addr + "/health")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	e.start()
	t.Cleanup(func() { e.stop(syscall.SIGKILL) })
	return e
}

// newPostgres starts a PostgreSQL server that asks for a password. Its log of
// changes is not on the small disk: without that it can only crash.
func newPostgres(t *testing.T, small bool) *engine {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed; install it with scripts/install-test-tools")
	}
	bin := found[len(found)-1]
	dir, err := os.MkdirTemp("", "berth-fault-")
	if err != nil {
		t.Fatal(err)
	}
	log := dir + "-wal"
	if small {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=80m"); err != nil {
			t.Fatalf("mount a small tmpfs (needs root): %v", err)
		}
	}
	e := &engine{t: t, addr: freeAddress(t), dir: dir}
	as := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // which PostgreSQL refuses to run as
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := errors.Join(os.Mkdir(log, 0o700), os.Chown(log, uid, gid), os.Chown(dir, uid, gid)); err != nil {
			t.Fatal(err)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, as, append(os.Environ(), "PGPASSWORD="+postgresPassword)
		return cmd
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(postgresPassword), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-X", log, "-A", "scram-sha-256", "--pwfile", password, "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	_, port, _ := net.SplitHostPort(e.addr)
	e.run = func() *exec.Cmd {
		return command("postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+dir,
			"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=40")
	}
	e.probe = func() error {
		out, err := command("psql", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-c", "SELECT 1").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	t.Cleanup(func() {
		e.stop(syscall.SIGQUIT)
		if small {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		}
		os.RemoveAll(dir)
		os.RemoveAll(log)
	})
	e.start()
	return e
}

// sql runs statements on the server itself, past the proxy.
func (e *engine) sql(text string) {
	e.t.Helper()
	_, port, _ := net.SplitHostPort(e.addr)
	cmd := exec.Command("psql", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+postgresPassword)
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("%s: %v\n%s", text, err, out)
	}
}

// occupy takes all connections that the server has left, until the function it
// returns is called. They begin to log in and never go on.
func (e *engine) occupy() (giveBack func()) {
	e.t.Helper()
	const start = "user\x00postgres\x00\x00"
	hello := binary.BigEndian.AppendUint32(nil, uint32(8+len(start)))
	hello = append(binary.BigEndian.AppendUint32(hello, 3<<16), start...)
	var all []net.Conn
	for {
		c, err := net.Dial("tcp", e.addr)
		if err != nil {
			e.t.Fatal(err)
		}
		all = append(all, c)
		e.t.Cleanup(func() { c.Close() })
		var answer [1]byte
		if _, err := c.Write(hello); err != nil {
			e.t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			e.t.Fatal(err)
		}
		if answer[0] == 'E' { // the one too many
			return func() {
				for _, c := range all {
					c.Close()
				}
			}
		}
	}
}
