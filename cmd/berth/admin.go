package main

import (
	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
)

func newAdmin(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:     "admin",
		Short:   "Get back into a server that nobody can manage",
		Long:    "Get back into a server that nobody can manage any more, on the machine that holds its data.",
		Example: "  berth admin reset --data /srv/berth",
	}, newAdminReset(s))
}

func newAdminReset(s app.Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "reset",
		Short: "Make a new key of the user admin",
		Long: `Make a new key of the user admin and print it on the last line; the key that was
made like this before is revoked. The user is made where there is none, unlocked,
and an administrator again. Stop the server first: this works on its data folder.`,
		Example: `  berth admin reset
  berth admin reset --data /srv/berth
  berth admin reset --data /srv/berth | tail -n 1 > admin.key`,
		Args: noArgs,
	}
	st := loadedBy(c, dataFlag)
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		return app.ResetAdmin(c.Context(), conf, s)
	}
	return c
}
