package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errNoPostgres: Berth on PostgreSQL takes no part.
var errNoPostgres = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// findPostgres builds Berth for the newest PostgreSQL of Debian's, or that in
// the PATH.
func findPostgres(ctx context.Context, o options, work string) (server, error) {
	programs, err := postgresPrograms()
	if err != nil {
		return server{}, err
	}
	s, err := buildBerth(ctx, o, work)
	if err != nil {
		return server{}, err
	}
	version, err := exec.CommandContext(ctx, filepath.Join(programs, "postgres"), "--version").Output()
	s.version += " on " + string(bytes.TrimSpace(version)) + ", default settings, over loopback"
	s.postgres = programs
	return s, err
}

func postgresPrograms() (string, error) {
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
		return "", errNoPostgres
	}
	return filepath.Dir(path), nil
}

// database is a PostgreSQL server with its defaults, but for the address: it
// syncs what it commits.
type database struct {
	programs, data string
	port           int
	as             *syscall.Credential // it refuses to run as root
	cmd            *exec.Cmd
	exited         chan struct{}
}

// startDatabase starts a server on the data in dir, or on none yet.
func startDatabase(ctx context.Context, programs, dir string, cores int) (*database, error) {
	d := &database{programs: programs, data: filepath.Join(dir, "postgres"), exited: make(chan struct{})}
	if err := d.prepare(ctx); err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if d.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	args := pinned(cores, filepath.Join(programs, "postgres"), "-D", d.data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	d.cmd = d.command(exec.Command(args[0], args[1:]...))
	d.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // never outlives bench
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.exited)
		d.cmd.Wait()
	}()
	return d, d.waitReady(ctx)
}

// prepare makes the folder, for the user postgres where this one is root.
func (d *database) prepare(ctx context.Context) error {
	if os.Getuid() == 0 {
		var err error
		if d.as, err = credential("postgres"); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(d.data, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(d.data, 0o700); err != nil {
		return err
	}
	if d.as != nil {
		if err := os.Chown(d.data, int(d.as.Uid), int(d.as.Gid)); err != nil {
			return err
		}
	}
	cmd := d.command(exec.CommandContext(ctx, filepath.Join(d.programs, "initdb"), "-D", d.data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (d *database) command(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = d.data
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.as}
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

func (d *database) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		ready := exec.CommandContext(ctx, filepath.Join(d.programs, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(d.port))
		if ready.Run() == nil {
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("PostgreSQL ended at its start: %s", d.cmd.ProcessState)
		case <-ctx.Done():
			return errors.Join(errors.New("PostgreSQL does not answer"), d.stop())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (d *database) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", d.port)
}

// stop ends the server and its connections.
func (d *database) stop() error {
	d.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-d.exited:
		return nil
	case <-time.After(stopTimeout):
		d.cmd.Process.Kill()
		<-d.exited
		return errors.New("PostgreSQL did not stop and was killed")
	}
}
