// Command berth is an OCI registry in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/berth-registry/berth/internal/app"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
	exitNewer   = 3 // the database is of a newer release: starting again does not help
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], app.Streams{Out: os.Stdout, Err: os.Stderr}))
}

func run(ctx context.Context, args []string, s app.Streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(s.Err, "berth: %v\n", err)
	if usage := (usageError{}); errors.As(err, &usage) {
		fmt.Fprintf(s.Err, "Run '%s --help' for how it is used.\n", usage.command)
	}
	return exitCode(err)
}
