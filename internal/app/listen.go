package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// isLoopback reports whether only this machine reaches host:port.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
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
