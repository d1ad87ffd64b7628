package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	patience = 30 * time.Second // with what has to happen
	pause    = 10 * time.Millisecond
	nobody   = 65534
)

// ready matches the line that tells of a running server.
var ready = regexp.MustCompile(`ready on (https?://(\S+:\d+)) .*\n`)

// server is the berth serve that a script runs.
type server struct {
	cmd  *exec.Cmd
	addr string
	url  string
	done chan struct{} // closed when the process has ended
}

// serve [NAME=VALUE...] ARG... runs berth serve with ARG in the background and
// waits until it is ready; what env sets is not for it, NAME=VALUE is. Its
// output goes to the files serve.out and serve.err. Then ADDR, URL and PID are
// set.
func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "serve [NAME=VALUE...] ARG...")
	environ := slices.Clone(stateOf(ts).environ)
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		environ, args = append(environ, args[0]), args[1:]
	}
	out, err := os.Create(ts.MkAbs("serve.out"))
	ts.Check(err)
	defer out.Close()
	log, err := os.Create(ts.MkAbs("serve.err"))
	ts.Check(err)
	defer log.Close()
	binary, err := exec.LookPath("berth")
	ts.Check(err)

	s := &server{cmd: exec.Command(binary, append([]string{"serve"}, args...)...), done: make(chan struct{})}
	s.cmd.Dir, s.cmd.Env = ts.MkAbs("."), environ
	s.cmd.Stdout, s.cmd.Stderr = out, log
	ts.Check(s.cmd.Start())
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
	ts.Defer(func() {
		s.cmd.Process.Kill()
		<-s.done
	})
	s.awaitReady(ts)
	stateOf(ts).server = s
	ts.Setenv("ADDR", s.addr)
	ts.Setenv("URL", s.url)
	ts.Setenv("PID", strconv.Itoa(s.cmd.Process.Pid))
}

func (s *server) awaitReady(ts *testscript.TestScript) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if found := ready.FindStringSubmatch(ts.ReadFile("serve.out")); found != nil {
			s.url, s.addr = found[1], found[2]
			return
		}
		select {
		case <-s.done:
			ts.Fatalf("berth serve ended: %v\n%s", s.cmd.ProcessState, ts.ReadFile("serve.err"))
		case <-time.After(pause):
		}
	}
	ts.Fatalf("berth serve was not ready after %v\n%s", patience, ts.ReadFile("serve.err"))
}

// signal TERM|INT|KILL sends the server a signal.
func signalCommand(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	usage(ts, !neg && len(args) == 1 && signals[args[0]] != nil, "signal TERM|INT|KILL")
	ts.Check(stateOf(ts).server.cmd.Process.Signal(signals[args[0]]))
}

// refused waits until the server takes no more connections.
func refusedCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "refused")
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(pause) {
		conn, err := net.Dial("tcp", stateOf(ts).server.addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
	ts.Fatalf("the server still takes connections")
}

// ended [STATE] waits until the server has ended, with exit status 0 or STATE.
func endedCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) <= 1, "ended [STATE]")
	want := "exit status 0"
	if len(args) == 1 {
		want = args[0]
	}
	s := stateOf(ts).server
	select {
	case <-s.done:
	case <-time.After(patience):
		ts.Fatalf("the server did not end within %v\n%s", patience, ts.ReadFile("serve.err"))
	}
	if got := s.cmd.ProcessState.String(); got != want {
		ts.Fatalf("the server ended with %q, not with %q\n%s", got, want, ts.ReadFile("serve.err"))
	}
}

// unprivileged COMMAND ARG... runs a command that is wanted to fail, as a user
// whom file modes bind: root becomes nobody.
func unprivilegedCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg && len(args) > 0, "! unprivileged COMMAND ARG...")
	program, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), stateOf(ts).environ
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var failed *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &failed) {
		ts.Fatalf("%v ended with %v", args, err)
	}
}

// letOthersIn lets unprivileged into a folder and the one above it; both were
// made by testscript in the folder of temporary files.
func letOthersIn(dir string) error {
	return errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755))
}
