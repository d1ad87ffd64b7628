// Package pgtest gives tests a PostgreSQL server of their own: one for each test
// binary, from the programs of Debian's package, and a database for each test.
package pgtest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Main is the body of TestMain: it runs the tests and ends the server that
// they have started. The result is for os.Exit.
func Main(m *testing.M) int {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		shared.server.Close()
	}
	return code
}

// shared is the test binary's server. It starts with the first test that asks
// for it.
var shared struct {
	mu      sync.Mutex
	server  *Server
	failed  error
	counter atomic.Int64
}

// Database makes an empty database and returns its URL. It goes with the test.
// Where PostgreSQL is not installed the test is skipped.
func Database(t testing.TB) (url string) {
	t.Helper()
	s := common(t)
	name := s.create(t, "template0")
	t.Cleanup(func() { s.exec(t, "postgres", `DROP DATABASE `+name+` WITH (FORCE)`) })
	return s.URL(name)
}

func (s *Server) create(t testing.TB, template string) (name string) {
	t.Helper()
	name = fmt.Sprintf("test_%d", shared.counter.Add(1))
	s.exec(t, "postgres", `CREATE DATABASE `+name+` TEMPLATE `+template)
	return name
}

// Template is a database whose copies tests get. Making one takes long, so that
// a test that ends hands its own on, with the rows of the beginning.
type Template struct {
	// Fill makes its tables and rows; no test changes the former.
	Fill func(url string) error

	mu   sync.Mutex
	name string
	free []string
}

// Database is a copy for the test.
func (tpl *Template) Database(t testing.TB) (url string) {
	t.Helper()
	s := common(t)
	tpl.mu.Lock()
	defer tpl.mu.Unlock()
	if tpl.name == "" {
		name := s.create(t, "template0")
		if err := tpl.Fill(s.URL(name)); err != nil {
			t.Fatalf("fill the database that others are copied from: %v", err)
		}
		s.exec(t, name, remember)
		tpl.name = name
	}
	if n := len(tpl.free); n > 0 {
		name := tpl.free[n-1]
		tpl.free = tpl.free[:n-1]
		return tpl.lend(t, s, name)
	}
	return tpl.lend(t, s, s.create(t, tpl.name))
}

func (tpl *Template) lend(t testing.TB, s *Server, name string) (url string) {
	t.Cleanup(func() {
		s.exec(t, name, restore)
		tpl.mu.Lock()
		defer tpl.mu.Unlock()
		tpl.free = append(tpl.free, name)
	})
	return s.URL(name)
}

// remember keeps a copy of all rows, to which restore goes back.
const (
	remember = `CREATE SCHEMA beginning; DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
			EXECUTE format('CREATE TABLE beginning.%I AS TABLE public.%I', t, t);
		END LOOP; END $$`
	restore = `SET session_replication_role = replica; DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
			EXECUTE format('DELETE FROM public.%I', t);
			EXECUTE format('INSERT INTO public.%I SELECT * FROM beginning.%I', t, t);
		END LOOP; END $$`
)

func common(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.failed == nil {
		shared.server, shared.failed = start(settings("-c", "fsync=off", "-c", "full_page_writes=off"))
	}
	if errors.Is(shared.failed, errAbsent) {
		t.Skip(shared.failed)
	}
	if shared.failed != nil {
		t.Fatal(shared.failed)
	}
	return shared.server
}

// Start starts a server for one test alone, which may stop and restart it. It
// keeps what was committed if durable is set, at the price of speed.
func Start(t testing.TB, durable bool) *Server {
	t.Helper()
	o := settings()
	if !durable {
		o = settings("-c", "fsync=off", "-c", "full_page_writes=off")
	}
	s, err := start(o)
	if errors.Is(err, errAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// errAbsent: there is nothing to test with.
var errAbsent = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// Server is a PostgreSQL server on the loopback address.
type Server struct {
	folder, programs string
	port             int
	settings         []string
	as               *syscall.Credential // PostgreSQL refuses to run as root
	process          *exec.Cmd
	ended            chan struct{}
	log              *os.File
}

func settings(more ...string) []string {
	return append([]string{"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "unix_socket_directories="}, more...)
}

// start makes a server in a folder of its own and starts it.
func start(settings []string) (*Server, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, settings: settings}
	if s.folder, err = os.MkdirTemp("", "berth-postgres-"); err != nil {
		return nil, err
	}
	if err := s.make(); err != nil {
		os.RemoveAll(s.folder)
		return nil, err
	}
	if err := s.run(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// findPrograms finds the newest of Debian's versions, or those in the PATH.
func findPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		version := func(path string) int {
			n, _ := strconv.Atoi(strings.Split(path, "/")[4])
			return n
		}
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errAbsent
	}
	return filepath.Dir(path), nil
}

// make initialises the folder, for the user postgres where this one is root.
func (s *Server) make() (err error) {
	if os.Getuid() == 0 {
		if s.as, err = credential("postgres"); err != nil {
			return err
		}
		if err := os.Chown(s.folder, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return err
		}
	}
	// A locale that sorts otherwise than berth does, as most servers have.
	cmd := s.command("initdb", "-D", s.data(), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale-provider=icu", "--icu-locale=en-US", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	s.log, err = os.Create(filepath.Join(s.folder, "log"))
	return err
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.programs, program), args...)
	cmd.Dir = s.folder
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// run starts the server and waits until it answers.
func (s *Server) run() error {
	s.process = s.command("postgres", append([]string{"-D", s.data(), "-p", strconv.Itoa(s.port)}, s.settings...)...)
	s.process.Stdout, s.process.Stderr = s.log, s.log
	endWithParent(s.process.SysProcAttr)
	started, ended := make(chan error, 1), make(chan struct{})
	s.ended = ended
	go func() { // of a thread that lives as long as the server, which ends with it
		runtime.LockOSThread()
		err := s.process.Start()
		started <- err
		if err == nil {
			s.process.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err = db.Ping(); err == nil || time.Now().After(end) {
			break
		}
		select {
		case <-s.ended:
			end = time.Time{}
		default:
		}
	}
	if err != nil {
		text, _ := os.ReadFile(s.log.Name())
		err = fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, bytes.TrimSpace(text))
	}
	return err
}

// URL of one of the server's databases.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Address the server listens on.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Stop ends the server and all connections at once. It keeps its folder and
// port.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

// Kill ends the server as a crash does.
func (s *Server) Kill() { s.end(syscall.SIGQUIT) }

// Restart starts a server that was stopped.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) end(how os.Signal) {
	if s.process == nil || s.process.Process == nil {
		return
	}
	s.process.Process.Signal(how)
	<-s.ended
}

// Close ends the server and removes its folder.
func (s *Server) Close() {
	s.end(syscall.SIGQUIT)
	if s.log != nil {
		s.log.Close()
	}
	os.RemoveAll(s.folder)
}

func (s *Server) exec(t testing.TB, database, query string) {
	t.Helper()
	db, err := sql.Open("pgx", s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), query, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
