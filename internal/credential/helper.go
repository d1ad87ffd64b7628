package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

const (
	helperTime = 20 * time.Second // that a helper may take
	helperRest = 2 * time.Second  // after it was told to end
	helperKeep = 5 * time.Minute  // for which what it said is not asked again
	maxHelper  = 64 << 10         // bytes of what it says
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Helper is a program docker-credential-NAME on the path that speaks Docker's
// protocol: it is told the registry's address and answers with a credential.
func Helper(name string, upstream *url.URL) (Source, error) {
	if !helperName.MatchString(name) {
		return nil, fmt.Errorf("credential helper %.80q: write the NAME of a program docker-credential-NAME on the path", name)
	}
	program, server := "docker-credential-"+name, helperServer(upstream)
	return keep(nil, func(ctx context.Context) (Credential, time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, helperTime)
		defer cancel()
		c, err := runHelper(ctx, program, server)
		if err != nil {
			return c, 0, fmt.Errorf("%s get, for %s: %w", program, server, err)
		}
		return c, helperKeep, nil
	}), nil
}

// helperServer is what Docker calls a registry before helpers.
func helperServer(upstream *url.URL) string {
	switch hostname(upstream) {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "https://index.docker.io/v1/"
	}
	return upstream.Host
}

// runHelper runs a helper once. What it prints stays out of errors.
func runHelper(ctx context.Context, program, server string) (Credential, error) {
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.WaitDelay = helperRest
	cmd.Stdin = strings.NewReader(server)
	out := &bounded{left: maxHelper}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return Credential{}, fmt.Errorf("no answer within %v", helperTime)
	case out.left < 0:
		return Credential{}, fmt.Errorf("it says more than %d bytes", maxHelper)
	case err != nil && strings.HasPrefix(strings.TrimSpace(out.taken.String()), "credentials not found"):
		return Credential{}, errors.New("it has no credentials for this server")
	case err != nil:
		return Credential{}, err
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.taken.Bytes(), &answer); err != nil {
		return Credential{}, errors.New("what it says is not JSON")
	}
	switch {
	case answer.Secret == "":
		return Credential{}, errors.New("it gives no secret")
	case answer.Username == "<token>":
		return Credential{Identity: answer.Secret}, nil
	}
	return Credential{Username: answer.Username, Password: answer.Secret}, nil
}

// bounded takes what a program says, up to a bound. It is no more than a Writer:
// a Buffer's ReadFrom knows no bound.
type bounded struct {
	taken bytes.Buffer
	left  int
}

var errTooMuch = errors.New("too much output")

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errTooMuch
	}
	return b.taken.Write(p)
}
