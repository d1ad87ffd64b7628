package soak

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the engine of Inventory
)

// Single is one berth with SQLite and a folder.
type Single struct {
	binary, dir, url string
	settings         []string // environment
	log              *os.File
	process          *exec.Cmd
}

var _ System = (*Single)(nil)

// NewSingle starts a berth that has all it has in dir.
func NewSingle(binary, dir string, settings []string) (*Single, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	url := "http://" + ln.Addr().String()
	ln.Close()
	log, err := os.OpenFile(filepath.Join(dir, "berth.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Single{binary: binary, dir: dir, url: url, settings: settings, log: log}
	return s, s.Start("berth")
}

func (s *Single) Targets() []Target             { return []Target{{"berth", s.url}} }
func (s *Single) Credentials() (string, string) { return "", "" }
func (s *Single) Parts() []string               { return []string{"berth"} }
func (s *Single) Logs() string                  { return s.dir }
func (s *Single) data() string                  { return filepath.Join(s.dir, "data") }
func (s *Single) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, append(args, "--data", s.data())...)
	cmd.Env = append(withoutBerth(os.Environ()), s.settings...)
	return cmd
}

// withoutBerth leaves out what would be settings.
func withoutBerth(env []string) (rest []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, "BERTH_") {
			rest = append(rest, e)
		}
	}
	return rest
}

func (s *Single) Deck() []Blow {
	kill := Blow{Kill: true, Parts: []string{"berth"}}
	return []Blow{kill, kill, kill, kill, kill, {Parts: []string{"berth"}}}
}

func (s *Single) Start(string) error {
	cmd := s.command("serve", "--listen", strings.TrimPrefix(s.url, "http://"))
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.process = cmd
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(s.url + "/readyz")
		if err != nil {
			continue
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("berth was not ready within a minute; its log is in %s", s.dir)
}

func (s *Single) Kill(string) error { return s.signal(syscall.SIGKILL) }
func (s *Single) Stop(string) error { return s.signal(syscall.SIGTERM) }

func (s *Single) signal(sig syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Signal(sig)
	if wait := s.process.Wait(); err == nil && sig == syscall.SIGTERM {
		err = wait
	}
	s.process = nil
	return err
}

// Close ends the process.
func (s *Single) Close() error { return s.Kill("berth") }

func (s *Single) Check(ctx context.Context) (string, error) {
	out, err := s.command("check", "--deep").CombinedOutput()
	return string(out), err
}

func (s *Single) Inventory(ctx context.Context) (*Inventory, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.data(), "berth.db")+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	v := newInventory()
	if err := v.readRows(ctx, db, nil); err != nil {
		return nil, err
	}
	root := filepath.Join(s.data(), "blobs")
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "berth.lock" {
			return err
		}
		info, err := e.Info()
		if err == nil {
			v.Objects[e.Name()] = info.Size()
		}
		return err
	})
	return v, err
}
