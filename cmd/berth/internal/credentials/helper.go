package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// helper is NAME of a program docker-credential-NAME, which keeps secrets for
// docker and others: it is told what to do by its argument, and the rest on its
// standard input.
type helper string

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// answer is what helpers are sent and send.
type answer struct {
	ServerURL string
	Username  string
	Secret    string
}

func (h helper) get(ctx context.Context, server string) (string, error) {
	out, err := h.run(ctx, "get", server)
	if err != nil {
		return "", err
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil || a.Secret == "" {
		return "", fmt.Errorf("docker-credential-%s gives no secret for %s: log in again", h, server)
	}
	return a.Secret, nil
}

func (h helper) store(ctx context.Context, server string, c Credential) error {
	user := c.User
	if user == "" {
		user = "key" // helpers want a name
	}
	in, err := json.Marshal(answer{ServerURL: server, Username: user, Secret: c.Secret})
	if err != nil {
		return err
	}
	_, err = h.run(ctx, "store", string(in))
	return err
}

func (h helper) erase(ctx context.Context, server string) error {
	_, err := h.run(ctx, "erase", server)
	return err
}

// run runs the helper. Some say on standard output what is wrong.
func (h helper) run(ctx context.Context, verb, input string) ([]byte, error) {
	if !helperName.MatchString(string(h)) {
		return nil, fmt.Errorf("credential_helper %.64q is no name: use the part behind docker-credential-", string(h))
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+string(h), verb)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	why := strings.TrimSpace(errs.String())
	if why == "" && verb != "get" {
		why = strings.TrimSpace(out.String())
	}
	return nil, fmt.Errorf("docker-credential-%s %s: %w %.256s", h, verb, err, why)
}
