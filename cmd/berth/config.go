package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
)

func newConfig(s app.Streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "config",
		Short:   "Check or print the configuration",
		Long:    "Check or print the configuration: the file given, the BERTH_ variables of the environment, and the defaults.",
		Example: "  berth config check --config berth.yaml\n  BERTH_LOG_LEVEL=debug berth config print",
		Args:    noArgs,
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.AddCommand(newConfigCheck(s), newConfigPrint(s))
	return c
}

func newConfigCheck(s app.Streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "check",
		Short:   "Say whether a configuration is valid",
		Long:    "Say whether a configuration is valid. Each error names the line, and the nearest known key where one is misspelled.",
		Example: "  berth config check --config berth.yaml",
		Args:    noArgs,
	}
	st := loadedBy(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		if err := app.CheckConfig(conf); err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.Out, "the configuration is valid")
		return err
	}
	return c
}

func newConfigPrint(s app.Streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "print",
		Short:   "Print the effective configuration",
		Long:    "Print the effective configuration as YAML, with the source of each value and with secrets hidden.",
		Example: "  berth config print --config berth.yaml",
		Args:    noArgs,
	}
	st := loadedBy(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		return conf.Print(s.Out)
	}
	return c
}
