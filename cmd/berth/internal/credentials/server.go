package credentials

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ServerURL is the address of a server as people write it, made whole: without
// a scheme it is https, or http on a loopback address. Its error does not repeat
// it: it may hold a secret.
func ServerURL(s string) (*url.URL, error) {
	u, err := parseServer(s)
	if err != nil {
		return nil, fmt.Errorf("address of the server: %w; use one such as https://registry.example.com", err)
	}
	return u, nil
}

func parseServer(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		u, err := parseServer("https://" + s)
		if err == nil && Loopback(u) {
			u.Scheme = "http"
		}
		return u, err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.Unwrap(err) // which does not repeat what may be a secret
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("it must begin with https:// or http://")
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("it names no host")
	case u.User != nil:
		return nil, errors.New("a user name or password does not belong there")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it must end with the host or port")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

// Loopback reports whether what is sent to a server stays on this machine.
func Loopback(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}
