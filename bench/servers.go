package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	distributionModule  = "github.com/distribution/distribution/v3"
	distributionVersion = "v3.1.2" // installed when no registry binary is found

	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

const (
	limitName        = "limit"
	distributionName = "distribution"
	berthName        = "Berth"
	postgresName     = "PostgreSQL" // Berth on it
)

// server is a program to measure.
type server struct {
	name, version string
	env           []string
	// arguments of the process that listens on addr and keeps its data in the
	// empty or formerly used folder dir.
	arguments func(addr, dir string) ([]string, error)
	postgres  string // folder of its programs, for Berth on PostgreSQL
	cores     int    // 0 is all
}

// findServers builds, finds or installs the chosen servers; work takes binaries.
func findServers(ctx context.Context, o options, work string) ([]server, error) {
	finders := []struct {
		name string
		find func(context.Context, options, string) (server, error)
	}{
		{limitName, findLimit},
		{distributionName, findDistribution},
		{berthName, buildBerth},
		{postgresName, findPostgres},
	}
	var found []server
	for _, f := range finders {
		if !o.servers.MatchString(f.name) {
			continue
		}
		s, err := f.find(ctx, o, work)
		if errors.Is(err, errNoPostgres) && o.allServers {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (leave it out with -servers)", f.name, err)
		}
		s.name, s.cores = f.name, o.cores
		found = append(found, s)
	}
	if len(found) == 0 {
		return nil, errors.New("-servers matches none of limit, distribution, Berth, PostgreSQL")
	}
	return found, nil
}

func findLimit(context.Context, options, string) (server, error) {
	self, err := os.Executable()
	return server{
		version: "net/http of " + runtime.Version(),
		arguments: func(addr, dir string) ([]string, error) {
			return []string{self, "-limit-server", "-listen", addr, "-data", dir}, nil
		},
	}, err
}

// buildBerth compiles the source tree at o.root.
func buildBerth(ctx context.Context, o options, work string) (server, error) {
	binary, err := filepath.Abs(filepath.Join(work, "berth"))
	if err != nil {
		return server{}, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/berth")
	build.Dir = o.root
	if out, err := build.CombinedOutput(); err != nil {
		return server{}, fmt.Errorf("go build ./cmd/berth: %w\n%s", err, out)
	}
	return server{
		version: sourceVersion(ctx, o.root),
		arguments: func(addr, dir string) ([]string, error) {
			return []string{binary, "serve", "--listen", addr, "--data", dir}, nil
		},
	}, nil
}

// sourceVersion names the commit that was built, for the report.
func sourceVersion(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		return "unknown commit"
	}
	return strings.TrimSpace(string(out))
}

func findDistribution(ctx context.Context, o options, _ string) (server, error) {
	tools, err := filepath.Abs(filepath.Join(o.root, ".tools", "bin"))
	if err != nil {
		return server{}, err
	}
	binary, err := lookRegistry(ctx, tools)
	if err != nil {
		return server{}, err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return server{}, err
	}
	if info.Main.Path != distributionModule {
		return server{}, fmt.Errorf("%s is built from %s, not %s", binary, info.Main.Path, distributionModule)
	}
	return server{
		version: info.Main.Version + ", " + info.GoVersion,
		env:     []string{"OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none"}, // or it dials a collector
		arguments: func(addr, dir string) ([]string, error) {
			config := dir + ".yml"
			err := os.WriteFile(config, []byte(distributionConfig(addr, dir)), 0o644)
			return []string{binary, "serve", config}, err
		},
	}, nil
}

// lookRegistry finds distribution's binary and installs it where it is missing.
func lookRegistry(ctx context.Context, tools string) (string, error) {
	if binary, err := exec.LookPath("registry"); err == nil {
		return binary, nil
	}
	gopath, err := exec.CommandContext(ctx, "go", "env", "GOPATH").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOPATH: %w", err)
	}
	for _, dir := range []string{filepath.Join(strings.TrimSpace(string(gopath)), "bin"), tools} {
		if binary, err := exec.LookPath(filepath.Join(dir, "registry")); err == nil {
			return binary, nil
		}
	}
	fmt.Fprintln(os.Stderr, "installing distribution", distributionVersion, "…")
	install := exec.CommandContext(ctx, "go", "install", distributionModule+"/cmd/registry@"+distributionVersion)
	install.Env = append(os.Environ(), "GOBIN="+tools)
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install: %w\n%s", err, out)
	}
	return filepath.Join(tools, "registry"), nil
}

// distributionConfig is distribution's own sample configuration, with the
// in-memory cache it recommends, without log lines, health probes and metrics.
func distributionConfig(addr, dir string) string {
	return fmt.Sprintf(`version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %q
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: %q
`, dir, addr)
}

// target is a running server.
type target struct {
	addr  string
	pid   int
	ready time.Duration // from the start of the process to its first answer

	// perOp is what the last load took of the processors for each operation, in
	// microseconds: the server and, beside it, its database.
	perOp [2]float64

	cmd      *exec.Cmd
	exited   chan struct{}
	database *database // nil: none
}

// start runs s on a free port of the loopback address, with its data in dir,
// and waits until it answers. The caller stops it.
func (s server) start(ctx context.Context, dir string) (*target, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	args, err := s.arguments(addr, dir)
	if err != nil {
		return nil, err
	}
	args = pinned(s.cores, args...)
	env := s.env
	var db *database
	if s.postgres != "" {
		if db, err = startDatabase(ctx, s.postgres, dir, s.cores); err != nil {
			return nil, err
		}
		env = append(slices.Clip(env), "BERTH_METADATA_POSTGRES_URL="+db.url())
	}
	cmd := exec.Command(args[0], args[1:]...) // output goes nowhere: a log is no part of a load
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // never outlives bench
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		if db != nil {
			err = errors.Join(err, db.stop())
		}
		return nil, err
	}
	t := &target{addr: addr, pid: cmd.Process.Pid, cmd: cmd, exited: make(chan struct{}), database: db}
	go func() {
		defer close(t.exited)
		cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	if err := t.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w; to see why, run: %s", err, strings.Join(args, " ")), t.stop())
	}
	t.ready = time.Since(begin)
	return t, nil
}

// pinned is a command on that many cores at most, 0 for all.
func pinned(cores int, args ...string) []string {
	if cores == 0 {
		return args
	}
	return append([]string{"taskset", "-c", fmt.Sprintf("0-%d", cores-1)}, args...)
}

// freeAddress is one that nobody listens on at this moment.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (t *target) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := t.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-t.exited:
			return fmt.Errorf("the server ended at its start: %s", t.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer (%w): %w", ctx.Err(), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (t *target) ping(ctx context.Context) error {
	c, err := dial(ctx, t.addr)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.do(request{method: http.MethodGet, path: "/v2/", want: http.StatusOK})
	return err
}

// stop ends the server and waits until it is gone. One that had to be killed,
// or that ended before by itself, is an error. Its database ends after it.
func (t *target) stop() (err error) {
	if t.database != nil {
		defer func() { err = errors.Join(err, t.database.stop()) }()
	}
	select {
	case <-t.exited:
		return fmt.Errorf("the server ended by itself: %s", t.cmd.ProcessState)
	default:
	}
	t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.exited:
		return nil
	case <-time.After(stopTimeout):
		t.cmd.Process.Kill()
		<-t.exited
		return fmt.Errorf("the server did not stop within %s and was killed", stopTimeout)
	}
}
