package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// readyLine is what berth prints on stdout once it serves.
var readyLine = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// server is one running berth process.
type server struct {
	*api
	cmd  *exec.Cmd
	log  *logBook
	done chan struct{} // closed when the process has ended and err is set
	err  error
}

// berth is the program without the BERTH_ variables of the environment: they
// are its settings, or the tests' own.
func berth(args ...string) *exec.Cmd {
	cmd := exec.Command(shared.binary, args...)
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "BERTH_") {
			cmd.Env = append(cmd.Env, setting)
		}
	}
	return cmd
}

// start runs berth on a free loopback port, with settings of its environment
// (NAME=value), and returns once it is ready.
func start(data string, settings ...string) (*server, error) {
	s, err := launch(data, settings...)
	if err != nil {
		return nil, err
	}
	select {
	case base := <-s.log.ready:
		s.api = newAPI(base)
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("berth serve ended before it was ready: %v\n%s", s.err, s.log.tail())
	case <-time.After(30 * time.Second):
		s.kill()
		return nil, fmt.Errorf("berth serve printed no address for 30 s\n%s", s.log.tail())
	}
}

// launch runs berth without waiting for anything.
func launch(data string, settings ...string) (*server, error) {
	s := &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
	s.cmd = berth("serve", "--listen", "127.0.0.1:0", "--data", data)
	s.cmd.Env = append(s.cmd.Env, settings...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// mustStart is start for a test that ends with a kill, if nothing else ended
// the process before.
func mustStart(t *testing.T, data string) *server {
	t.Helper()
	s, err := start(data)
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, s)
	return s
}

// endWith kills a server at the end of the test.
func endWith(t *testing.T, s *server) {
	t.Cleanup(func() {
		select {
		case <-s.done:
			return
		default:
		}
		s.kill()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", s.log.tail())
		}
	})
}

// kill ends the process as a power cut would and waits until it is gone.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.done
}

// terminate asks the process to end and reports how it did.
func (s *server) terminate() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("it had ended already: %w\n%s", err, s.log.tail())
	}
	select {
	case <-s.done:
		return s.err
	case <-time.After(30 * time.Second):
		s.kill()
		return errors.New("it did not end within 30 s of SIGTERM")
	}
}

// peakMemory is the most resident memory the process ever had, in bytes.
func (s *server) peakMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	_, field, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(field, &kib); err != nil {
		t.Fatalf("no VmHWM in %q: %v", status, err)
	}
	return kib << 10
}

// logBook keeps the end of a process's output and reports the first address in it.
type logBook struct {
	mu    sync.Mutex
	text  []byte
	ready chan string
	seen  bool
}

const keptLog = 4 << 10 // bytes

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if !l.seen {
		// A newline must follow: a write may end inside the port's number.
		if at := readyLine.FindIndex(l.text); at != nil && at[1] < len(l.text) {
			l.seen = true
			l.ready <- string(l.text[at[0]:at[1]])
		}
	}
	if len(l.text) > 2*keptLog {
		l.text = append([]byte(nil), l.text[len(l.text)-keptLog:]...)
	}
	return len(p), nil
}

func (l *logBook) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
