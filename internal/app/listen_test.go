package app

import "testing"

func TestIsLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.8.8.8:5000": true, "[::1]:5000": true, "localhost:5000": true,
		"localhost": true, "registry.localhost:5000": true, "127.0.0.1": true, "[::1]": true, "::1": true,
		":5000": false, "0.0.0.0:5000": false, "[::]:5000": false, "192.0.2.1:5000": false, "": false,
		"[::ffff:192.0.2.1]:5000": false, "localhost.example:5000": false, "127.0.0.1.example:5000": false,
	} {
		if got := isLoopback(addr); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}
