package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
)

// maxSecret bounds what is read of a password or key.
const maxSecret = 4 << 10

// readSecret reads a password or key from standard input: all of it, without
// the line's end.
func readSecret(c *cobra.Command) (string, error) {
	text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	switch {
	case secret == "":
		return "", errors.New("there is nothing on standard input")
	case len(text) > maxSecret || strings.ContainsAny(secret, "\r\n"):
		return "", errors.New("standard input must hold one line, the secret")
	}
	return secret, nil
}

// ask asks whoever sits in front of the terminal. hidden does not show what is
// typed.
func ask(c *cobra.Command, question string, hidden bool) (string, error) {
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !isTerminal(in) {
		return "", errors.New("there is nobody to ask: standard input is no terminal")
	}
	fmt.Fprint(c.ErrOrStderr(), question)
	if hidden {
		if err := stty(in, "-echo"); err != nil {
			return "", fmt.Errorf("the terminal cannot be told to hide what is typed: pipe it in instead: %w", err)
		}
		defer fmt.Fprintln(c.ErrOrStderr())
		defer stty(in, "echo")
		// What reads a terminal cannot be told to stop.
		defer context.AfterFunc(c.Context(), func() {
			stty(in, "echo")
			os.Exit(exitFailure)
		})()
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxSecret)).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

func stty(terminal *os.File, mode string) error {
	cmd := exec.Command("stty", mode)
	cmd.Stdin = terminal
	return cmd.Run()
}
