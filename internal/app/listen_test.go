package app

import (
	"strings"
	"testing"
)

func TestAllowListen(t *testing.T) {
	for _, tt := range []struct {
		listen  string
		flags   map[string]string
		allowed bool
	}{
		{"127.0.0.1:5000", nil, true},
		{"127.8.8.8:5000", nil, true},
		{"[::1]:5000", nil, true},
		{"localhost:5000", nil, true},
		{":5000", nil, false},
		{"0.0.0.0:5000", nil, false},
		{"[::]:5000", nil, false},
		{"192.0.2.1:5000", nil, false},
		{"[::ffff:192.0.2.1]:5000", nil, false},
		{"localhost.example:5000", nil, false},
		{"127.0.0.1.example:5000", nil, false},
		{":5000", map[string]string{"auth.htpasswd": "users"}, true},
		{":5000", map[string]string{"insecure_anonymous": "true"}, true},
		{":5000", map[string]string{"insecure_anonymous": "false"}, false},
	} {
		c := settings(t, tt.flags)
		c.Listen = tt.listen
		err := allowListen(c)
		if (err == nil) != tt.allowed {
			t.Errorf("%s with %v: %v", tt.listen, tt.flags, err)
		}
		if err == nil {
			continue
		}
		for _, way := range []string{"auth.htpasswd", "127.0.0.1", "--insecure-anonymous"} {
			if !strings.Contains(err.Error(), way) {
				t.Errorf("%s: no way out by %s: %v", tt.listen, way, err)
			}
		}
	}
}
