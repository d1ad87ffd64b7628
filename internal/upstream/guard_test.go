package upstream

import (
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("127.0.0.1/32")}
	for address, want := range map[string]struct{ always, named bool }{
		"93.184.215.14":              {true, true},
		"8.8.8.8":                    {true, true},
		"2606:4700::1111":            {true, true},
		"::ffff:8.8.8.8":             {true, true},
		"64:ff9b::8.8.8.8":           {true, true}, // by NAT64
		"10.1.2.3":                   {false, true},
		"::ffff:10.1.2.3":            {false, true},
		"64:ff9b::10.1.2.3":          {false, true},
		"fd00:1::5":                  {false, true},
		"127.0.0.1":                  {false, true},
		"::ffff:127.0.0.1":           {false, true},
		"127.0.0.2":                  {},
		"10.2.0.1":                   {},
		"172.16.0.1":                 {},
		"172.31.255.255":             {},
		"192.168.1.1":                {},
		"169.254.169.254":            {},
		"::ffff:169.254.169.254":     {},
		"64:ff9b::169.254.169.254":   {},
		"64:ff9b:1::169.254.169.254": {},
		"::169.254.169.254":          {},
		"2002:a9fe:a9fe::1":          {},
		"2001:0:1::1":                {},
		"100.64.0.1":                 {},
		"100.100.100.200":            {},
		"0.0.0.0":                    {},
		"0.1.2.3":                    {},
		"255.255.255.255":            {},
		"224.0.0.1":                  {},
		"240.0.0.1":                  {},
		"198.18.0.1":                 {},
		"192.0.0.192":                {},
		"::ffff:0:169.254.169.254":   {}, // IPv4-translated
		"64:ff9a::1":                 {},
		"100::1":                     {},
		"5f00::1":                    {},
		"::":                         {},
		"::1":                        {},
		"fe80::1":                    {},
		"fe80::1%eth0":               {},
		"fec0::1":                    {},
		"fd00:2::1":                  {},
		"fd00:ec2::254":              {},
		"ff02::1":                    {},
		"2001:db8::1":                {},
	} {
		a := netip.MustParseAddr(address)
		if got := (policy{}).allows(a); got != want.always {
			t.Errorf("%s may be dialled: %v", address, got)
		}
		if got := (policy{networks}).allows(a); got != want.named {
			t.Errorf("%s may be dialled where some networks are named: %v", address, got)
		}
	}
}

func TestControl(t *testing.T) {
	for address, want := range map[string]bool{
		"93.184.215.14:443": true, "[2606:4700::1111]:443": true, "127.0.0.1:80": false, "[::1]:80": false, "[fe80::1%eth0]:80": false,
		"example.com:443": false, "": false, "93.184.215.14": false,
	} {
		if err := (policy{}).control("tcp", address, nil); (err == nil) != want {
			t.Errorf("%q: %v", address, err)
		}
	}
}
