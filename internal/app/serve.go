// Package app puts the pieces together: from a configuration to a running
// server or an integrity check. It is the only package that knows them all.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/config"
)

// Limits of connections. Bodies have their own, which the front re-arms as
// bytes move: a total limit would cut long transfers that go well.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	writeTimeout  = time.Minute                // of the listener for those who run the registry
	maxHeader     = http.DefaultMaxHeaderBytes // the fronts bound what is no credential at 32 KiB
	cutTimeout    = 5 * time.Second            // for requests that were cut off to save what they have
)

// Streams are where a command writes: what it is asked for, and logs.
type Streams struct{ Out, Err io.Writer }

// Serve runs the registry until ctx ends, then finishes running requests for
// the configured grace time. version is what it says it is.
func Serve(ctx context.Context, c *config.Config, version string, s Streams) error {
	log, err := newLog(c, s.Err)
	if err != nil {
		return err
	}
	st, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer st.close()
	if err := firstAdmin(ctx, c, st, s); err != nil {
		return err
	}
	site, err := newSite(ctx, c, st, version, log)
	if err != nil {
		return err
	}
	defer site.closeWithin(cutTimeout)
	requests := &requests{}
	srv := &http.Server{
		Handler:           requests.counted(site.ready.leaving(site.handler)),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if srv.TLSConfig, err = tlsConfig(c, log); err != nil {
		return err
	}
	ln, err := listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	stopAdmin, err := serveAdmin(ctx, c, site, log)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer stopAdmin()
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait() // before the store is closed
	defer stop()
	background.Go(func() { site.jobs.Run(ctx) })
	announce(s.Out, ln, srv.TLSConfig != nil)
	warn(c, log)
	return run(ctx, srv, ln, site.ready, requests, c.Shutdown.Delay, c.Shutdown.Grace, log)
}

// warn tells of settings that are dangerous beyond this machine.
func warn(c *config.Config, log *slog.Logger) {
	switch {
	case c.InsecureAnonymous:
		log.Warn("insecure_anonymous: everyone who reaches the address may do everything", "listen", c.Listen)
	case isLoopback(c.Listen):
	case c.TLS.Cert == "" && !strings.HasPrefix(c.URL, "https://"):
		log.Warn("credentials cross the network in the clear: set tls.cert and tls.key, or url to that of the proxy in front that speaks HTTPS", "listen", c.Listen)
	}
	if c.URL == "" && !isLoopback(c.Listen) {
		log.Warn("url is not set: clients that use a host name log in with each request instead of getting tokens")
	}
}

// run serves until ctx ends or the server fails, and then for as long as delay,
// for whoever has not noticed yet.
func run(ctx context.Context, srv *http.Server, ln net.Listener, ready *readiness, requests *requests, delay, grace time.Duration, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() {
		if srv.TLSConfig != nil {
			failed <- srv.ServeTLS(ln, "", "")
		} else {
			failed <- srv.Serve(ln)
		}
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ready.stopping.Store(true)
	if delay > 0 {
		log.Info("stopping: not ready any more, requests are still served", "delay", delay)
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(delay):
	}
	log.Info("stopping: running requests may finish", "grace", grace)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		log.Warn("grace time is over: requests are cut off, upload sessions stay", "error", err)
		err = srv.Close()
		if !requests.end(cutTimeout) {
			log.Error("some requests did not end: their uploads go on from an earlier byte", "waited", cutTimeout)
		}
		return err
	}
	return nil
}

func newLog(c *config.Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// announce prints the one line that a person waits for. It shows an address
// that works here: nobody can type that of a server which listens on all.
func announce(w io.Writer, ln net.Listener, secure bool) {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	addr := ln.Addr().String()
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	fmt.Fprintf(w, "Berth is ready on %s://%s - next: docker tag IMAGE %s/IMAGE && docker push %s/IMAGE\n", scheme, addr, addr, addr)
}
