package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/berth-registry/berth/cmd/berth/internal/credentials"
)

const (
	browseTime = 10 * time.Minute // to log in at the identity provider
	maxCode    = 256
)

// browse logs in with a browser, which comes back to a port of this machine
// with a code that only who holds the verifier can change for a key.
func (l *login) browse(ctx context.Context) (credentials.Credential, error) {
	cl, err := l.client(nil)
	if err != nil {
		return credentials.Credential{}, err
	}
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return credentials.Credential{}, err
	}
	defer at.Close()
	var random [32]byte
	rand.Read(random[:])
	verifier := base64.RawURLEncoding.EncodeToString(random[:])
	challenge := sha256.Sum256([]byte(verifier))
	page := *cl.server
	page.Path = "/auth/login"
	page.RawQuery = url.Values{
		"challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"port":      {strconv.Itoa(at.Addr().(*net.TCPAddr).Port)},
		"name":      {keyName()},
	}.Encode()
	if err := checkLoginPage(ctx, cl, &page); err != nil {
		return credentials.Credential{}, err
	}
	fmt.Fprintf(l.streams.Err, "Log in with your browser at\n  %s\n", &page)
	openBrowser(page.String())
	code, err := awaitCode(ctx, at)
	if err != nil {
		return credentials.Credential{}, err
	}
	return takeKey(ctx, cl, code, verifier)
}

// checkLoginPage finds out before a browser does whether there is such a page.
func checkLoginPage(ctx context.Context, cl *client, page *url.URL) error {
	probe := *page
	probe.RawQuery = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, probe.String(), nil)
	if err != nil {
		return err
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return unreachable(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return errors.New("the server has no identity provider to log in with: use -u USER or --key-stdin")
	}
	return nil
}

// openBrowser tries to; the address was printed in any case.
func openBrowser(address string) {
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	if cmd := exec.Command(program, address); cmd.Start() == nil {
		go cmd.Wait()
	}
}

// awaitCode waits for the browser to come back.
func awaitCode(ctx context.Context, at net.Listener) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, browseTime, errors.New("nobody logged in within ten minutes"))
	defer cancel()
	codes := make(chan string, 1)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := r.URL.Query().Get("code")
		if r.Method != http.MethodGet || r.URL.Path != "/" || code == "" || len(code) > maxCode {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer")
		io.WriteString(w, "You are logged in. Go back to the terminal; this page can be closed.\n")
		select {
		case codes <- code:
		default: // a browser that asks twice
		}
	})}
	go srv.Serve(at)
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		srv.Shutdown(ending) // lets the page be sent
	}()
	select {
	case code := <-codes:
		return code, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func takeKey(ctx context.Context, cl *client, code, verifier string) (credentials.Credential, error) {
	body, err := json.Marshal(map[string]string{"code": code, "verifier": verifier})
	if err != nil {
		return credentials.Credential{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cl.server.String()+"/auth/login/key", bytes.NewReader(body))
	if err != nil {
		return credentials.Credential{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	made, err := read[struct {
		Key string `json:"key"`
	}](cl.http.Do(req))
	return credentials.Credential{Secret: made.Key}, err
}
