package main

import (
	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
)

// usageError is a command line that says nothing we understand.
type usageError struct {
	err     error
	command string
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func newRoot(s app.Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "An OCI registry in one binary",
		Long: `Berth is an OCI registry: docker, podman, helm, cosign and every other
OCI client push to it and pull from it.

With no configuration it keeps its content in ./berth-data and listens on
127.0.0.1:5000.`,
		Example: `  berth serve
  docker push 127.0.0.1:5000/library/hello:latest`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{err, c.CommandPath()}
	})
	root.AddCommand(newServe(s), newCheck(s), newConfig(s), newVersion(s))
	root.RunE = func(c *cobra.Command, args []string) error { return c.Help() }
	root.Args = noArgs
	return root
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usageError{err, c.CommandPath()}
	}
	return nil
}
