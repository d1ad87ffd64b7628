package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
)

// TestMain makes this test program the command berth of the scripts, and the
// browser that it opens.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"berth": main, "xdg-open": browser, "open": browser})
}

// TestScripts runs testdata/script against real processes. Beside the usual
// commands of testscript there are those of scriptCommands.
func TestScripts(t *testing.T) {
	binary, err := exec.LookPath("berth")
	if err != nil {
		t.Fatal(err)
	}
	if err := letOthersIn(filepath.Dir(binary)); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds:                scriptCommands,
		Condition:           condition,
		Deadline:            time.Now().Add(8 * patience),
	})
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"serve":        serveCommand,
	"signal":       signalCommand,
	"refused":      refusedCommand,
	"ended":        endedCommand,
	"http":         httpCommand,
	"header":       headerCommand,
	"upload":       uploadCommand,
	"blob":         blobCommand,
	"manifest":     manifestCommand,
	"damage":       damageCommand,
	"disk":         diskCommand,
	"fill":         fillCommand,
	"freeze":       freezeCommand,
	"thaw":         thawCommand,
	"certificate":  certificateCommand,
	"secret":       secretCommand,
	"address":      addressCommand,
	"provider":     providerCommand,
	"unprivileged": unprivilegedCommand,
	"newer":        newerCommand,
}

// state is what the commands of one script share.
type state struct {
	environ []string
	server  *server
	upload  *upload
}

type stateKey struct{}

func setup(env *testscript.Env) error {
	// A process under the race detector waits a second before it ends.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Values[stateKey{}] = &state{environ: env.Vars}
	return letOthersIn(env.WorkDir)
}

func stateOf(ts *testscript.TestScript) *state { return ts.Value(stateKey{}).(*state) }

// condition knows [root], who may mount.
func condition(name string) (bool, error) {
	if name != "root" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return os.Getuid() == 0, nil
}

// usage ends a script whose command was written with the wrong arguments.
func usage(ts *testscript.TestScript, right bool, text string) {
	if !right {
		ts.Fatalf("usage: %s", text)
	}
}

// TestHelp wants every command to explain itself and to show an example.
func TestHelp(t *testing.T) {
	root := newRoot(app.Streams{Out: os.Stdout, Err: os.Stderr})
	seen := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		seen++
		if c.Long == "" || c.Long == c.Short {
			t.Errorf("%q has no long help", c.CommandPath())
		}
		if c.Example == "" {
			t.Errorf("%q has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if seen < 10 {
		t.Errorf("only %d commands were found", seen)
	}
}
