package main

import (
	"fmt"
	"strings"

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
  docker push 127.0.0.1:5000/library/hello:latest
  berth project create acme --visibility private`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{err, c.CommandPath()}
	})
	addGroup(root, "Run a registry:", newServe(s), newCheck(s), newGC(s), newMigrate(s), newConfig(s), newAdmin(s), newVersion(s))
	addGroup(root, "Manage one from anywhere:", newLogin(s), newLogout(s), newWhoami(s),
		newProject(s), newOrganization(s), newMember(s), newUser(s), newGroup(s),
		newKey(s), newTrust(s), newPlan(s), newProxy(s), newAudit(s), newToken(s))
	root.RunE = func(c *cobra.Command, args []string) error { return c.Help() }
	root.Args = noArgs
	addExamples(root)
	return root
}

// addGroup adds commands that the help lists together.
func addGroup(root *cobra.Command, title string, subs ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range subs {
		c.GroupID = title
		root.AddCommand(c)
	}
}

// addExamples gives the commands that cobra brings along what they lack.
func addExamples(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for path, example := range map[string]string{
		"help":                  "berth help serve",
		"completion":            "berth completion bash > /etc/bash_completion.d/berth",
		"completion bash":       "source <(berth completion bash)",
		"completion zsh":        `berth completion zsh > "${fpath[1]}/_berth"`,
		"completion fish":       "berth completion fish | source",
		"completion powershell": "berth completion powershell | Out-String | Invoke-Expression",
	} {
		if c, _, err := root.Find(strings.Fields(path)); err == nil {
			c.Example = "  " + example
		}
	}
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usageError{err, c.CommandPath()}
	}
	return nil
}

// exactly wants as many arguments as there are names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usageError{fmt.Errorf("%s is missing", names[len(args)]), c.CommandPath()}
		case len(args) > len(names):
			return usageError{fmt.Errorf("unexpected argument %q", args[len(names)]), c.CommandPath()}
		}
		return nil
	}
}

// atMost is exactly where the last arguments may be left out.
func atMost(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		return exactly(names[:min(len(args), len(names))]...)(c, args)
	}
}

// group is a command that only holds others.
func group(c *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	c.Args = noArgs
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.AddCommand(subs...)
	return c
}
