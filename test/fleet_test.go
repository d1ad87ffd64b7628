package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fleetScript runs two replicas with all that they stand on.
const fleetScript = "../examples/replicas/run"

// parts of a fleet, as the script names them.
var parts = []string{"postgres", "s3", "berth-1", "berth-2", "balancer"}

// fleet is two replicas behind a load balancer, which takes the other one for
// each request.
type fleet struct {
	dir      string
	settings []string          // of both replicas' environment: NAME=value
	env      map[string]string // what the script says of the fleet
	key      string            // the administrator's; "" where nobody is asked to log in
}

// startFleet starts one in dir, which any user of the machine must be able to
// enter: PostgreSQL does not run as root.
func startFleet(dir string, settings ...string) (*fleet, error) {
	f := &fleet{dir: dir, settings: settings, env: map[string]string{}}
	if err := f.do("up"); err != nil {
		return nil, errors.Join(err, f.do("down"))
	}
	out, err := f.script("env").Output()
	if err != nil {
		return nil, errors.Join(err, f.do("down"))
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		f.env[name] = value
	}
	key, err := os.ReadFile(f.env["KEY_FILE"])
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, f.do("down"))
	}
	f.key = strings.TrimSpace(string(key))
	return f, nil
}

func (f *fleet) script(args ...string) *exec.Cmd {
	cmd := exec.Command(fleetScript, append([]string{f.dir}, args...)...)
	cmd.Env = append(append(berth().Env, "BERTH_BINARY="+shared.binary), f.settings...)
	return cmd
}

// do runs one of the script's commands.
func (f *fleet) do(args ...string) error {
	out, err := f.script(args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return err
}

// must is do for a test.
func (f *fleet) must(t *testing.T, args ...string) {
	t.Helper()
	if err := f.do(args...); err != nil {
		t.Fatal(err)
	}
}

// kill ends a part as a power cut does. It runs again when the test ends.
func (f *fleet) kill(t *testing.T, part string) {
	t.Helper()
	t.Cleanup(func() { f.must(t, "start", part) })
	f.must(t, "kill", part)
}

// logs are the ends of all that the parts have said.
func (f *fleet) logs() string {
	var all strings.Builder
	for _, part := range parts {
		for _, ending := range []string{".log", ".out"} {
			text, err := os.ReadFile(filepath.Join(f.dir, part+ending))
			if err == nil && len(text) > 0 {
				fmt.Fprintf(&all, "--- end of %s%s\n%s\n", part, ending, text[max(0, len(text)-keptLog):])
			}
		}
	}
	return all.String()
}

// through is the fleet as its administrator sees it behind the balancer.
func (f *fleet) through(t *testing.T) *guarded { return f.at(t, "URL") }

// replica is the fleet as its administrator sees it at one of the replicas.
func (f *fleet) replica(t *testing.T, n int) *guarded { return f.at(t, fmt.Sprint("BERTH_", n)) }

func (f *fleet) at(t *testing.T, address string) *guarded {
	t.Helper()
	if f.key == "" {
		t.Fatal("this fleet asks nobody to log in")
	}
	return &guarded{t: t, server: &server{api: newAPI(f.env[address])}, data: t.TempDir(), service: newAPI(f.env["URL"]).host(), admin: f.key}
}

// balanced is a line of the balancer's log for each request, as it ended.
func (f *fleet) balanced(t *testing.T) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(readFile(t, f.dir, "balancer.out")) {
		if strings.HasPrefix(servedBy(line), "berth-") {
			lines = append(lines, line)
		}
	}
	return lines
}

// servedBy is the replica that a line of the balancer's log names.
func servedBy(line string) string {
	_, rest, _ := strings.Cut(line, " server=")
	name, _, _ := strings.Cut(rest, " ")
	return name
}

// sharedFleet is the one of all tests, which starts with the first of them.
func sharedFleet(t *testing.T) *fleet {
	t.Helper()
	shared.fleet.once.Do(func() {
		dir := filepath.Join(shared.dir, "fleet")
		shared.fleet.fleet, shared.fleet.err = startFleet(dir)
	})
	if shared.fleet.err != nil {
		t.Fatal(shared.fleet.err)
	}
	return shared.fleet.fleet
}

type lazyFleet struct {
	once  sync.Once
	fleet *fleet // nil: not started
	err   error
}

// end stops the fleet, if there is one.
func (l *lazyFleet) end() error {
	if l.fleet == nil {
		return nil
	}
	return l.fleet.do("down")
}
