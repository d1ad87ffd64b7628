package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	maxDocument  = 512 << 10       // bytes of what a provider answers
	fetchTimeout = 5 * time.Second // of all that one look at a provider takes
	maxRedirects = 3
)

// guarded is a client for providers, like base (nil: one of its own): in time,
// and true to the host it was sent to.
func guarded(base *http.Client) *http.Client {
	c := http.Client{}
	if base != nil {
		c = *base
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxResponseHeaderBytes = 64 << 10
		c.Transport = t
	}
	c.Jar = nil
	c.Timeout = fetchTimeout
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		if first := via[0].URL; r.URL.Host != first.Host || r.URL.Scheme != first.Scheme {
			return fmt.Errorf("redirected to another host, %.100q", r.URL.Host)
		}
		return nil
	}
	return &c
}

// fetch reads the JSON document at url into v. Its errors hold nothing that the
// other side sent.
func fetch(ctx context.Context, c *http.Client, url, bearer string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", url, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", url, err)
	case len(body) > maxDocument:
		return fmt.Errorf("%s has more than %d bytes", url, maxDocument)
	}
	if err := unmarshal(body, v); err != nil {
		return fmt.Errorf("%s is not the JSON that it should be", url)
	}
	return nil
}

// unmarshal is json.Unmarshal that keeps numbers as they are written.
func unmarshal(text []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// checkURL says what is wrong with the URL of an issuer: it must be https, or
// on this machine.
func checkURL(raw string) error {
	if len(raw) > maxURL {
		return fmt.Errorf("must have at most %d bytes", maxURL)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return errors.New("must be a URL like https://token.example.com")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(raw, "#"):
		return errors.New("must be a URL without user, query and fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return errors.New("must begin with https:// (http:// is for this machine only)")
	}
	return nil
}

// checkEndpoint says what is wrong with a URL from an issuer's document: it
// must be https, or on the same plain host as its issuer.
func checkEndpoint(issuer, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || len(endpoint) > maxURL {
		return errors.New("is not a usable URL")
	}
	i, err := url.Parse(issuer)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && (i.Scheme != "http" || u.Scheme != "http" || u.Host != i.Host) {
		return errors.New("is not https")
	}
	return nil
}

const maxURL = 1024 // bytes

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
