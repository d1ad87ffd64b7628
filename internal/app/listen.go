package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/berth-registry/berth/internal/config"
)

// allowListen refuses to offer a registry without credentials to a network.
func allowListen(c *config.Config) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q is not host:port: %w", c.Listen, err)
	}
	if c.Auth.Htpasswd != "" || c.InsecureAnonymous || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("listening on %s would let everyone who reaches it push and delete: "+
		"configure credentials (auth.htpasswd: FILE), or listen on 127.0.0.1, "+
		"or say --insecure-anonymous if that is what you want", c.Listen)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken by another program: choose another address with --listen, or find it with `ss -ltnp`: %w", addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s needs privileges: choose a port above 1023 with --listen: %w", addr, err)
	}
	return ln, err
}
