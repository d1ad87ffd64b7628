package app

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob/s3blob"
)

func TestRedirects(t *testing.T) {
	if redirects(settings(t, nil)) != nil {
		t.Error("not everybody is redirected by default")
	}
	for _, tt := range []struct {
		networks, from string
		want           bool
	}{
		{"", "10.1.2.3:4", false},
		{"10.0.0.0/8", "10.1.2.3:4", true},
		{"10.0.0.0/8", "11.1.2.3:4", false},
		{"10.0.0.0/8, 192.0.2.1", "192.0.2.1:4", true},
		{"10.0.0.0/8", "[::ffff:10.1.2.3]:4", true}, // as a socket for both families tells it
		{"::ffff:10.0.0.0/104", "10.1.2.3:4", true},
		{"2001:db8::/32", "[2001:db8::1]:4", true},
		{"2001:db8::/32", "[fe80::1%eth0]:4", false},
		{"10.0.0.0/8", "", false},
		{"10.0.0.0/8", "0.0.0.0:0", false}, // of a client that two proxies disagree about
	} {
		keys := map[string]string{"storage.s3.bucket": "b", "storage.s3.redirect": "never"}
		if tt.networks != "" {
			keys["storage.s3.redirect"], keys["storage.s3.redirect_networks"] = "networks", tt.networks
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.from
		if got := redirects(settings(t, keys))(r); got != tt.want {
			t.Errorf("%q from %q: %t", tt.networks, tt.from, got)
		}
	}
}

// TestDeadAfter: nobody who was sent to the bucket finds the bytes gone.
func TestDeadAfter(t *testing.T) {
	for want, keys := range map[time.Duration]map[string]string{
		0:                {"storage.s3.redirect_ttl": "1h"},
		65 * time.Minute: {"storage.s3.redirect_ttl": "1h", "storage.s3.bucket": "b"},
		25 * time.Minute: {"storage.s3.bucket": "b"},
	} {
		if got := deadAfter(settings(t, keys)); got != want {
			t.Errorf("%v: %v, want %v", keys, got, want)
		}
	}
	if got := deadAfter(settings(t, map[string]string{"storage.s3.bucket": "b", "storage.s3.redirect": "never"})); got != 0 {
		t.Errorf("without redirection: %v", got)
	}
}

// TestBucketOf: what the configuration takes is what the store takes, at both
// ends of each range, and all of it arrives.
func TestBucketOf(t *testing.T) {
	base := map[string]string{
		"data": "/scratch", "storage.s3.bucket": "b", "storage.s3.region": "r", "storage.s3.endpoint": "http://e", "storage.s3.public_endpoint": "http://p",
		"storage.s3.path_style": "true", "storage.s3.prefix": "x/", "storage.s3.part_size": "16MiB", "storage.s3.equal_parts": "true",
		"storage.s3.memory": "40MiB", "storage.s3.total_memory": "100MiB", "storage.s3.checksum": "md5", "storage.s3.encryption": "aws:kms",
		"storage.s3.kms_key": "k", "storage.s3.storage_class": "c", "storage.s3.attempts": "3", "storage.s3.timeout": "5s",
	}
	want := s3blob.Options{
		Bucket: "b", Region: "r", Endpoint: "http://e", PublicEndpoint: "http://p", PathStyle: true, Prefix: "x/", PartSize: 16 << 20, EqualParts: true,
		Memory: 40 << 20, TotalMemory: 100 << 20, Scratch: "/scratch", Checksum: s3blob.MD5, Encryption: "aws:kms", KMSKey: "k", StorageClass: "c",
		Attempts: 3, Timeout: 5 * time.Second,
	}
	if got := bucketOf(settings(t, base)); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, keys := range []map[string]string{
		nil, {"part_size": "5MiB", "memory": "11MiB", "total_memory": "1MiB", "attempts": "1", "timeout": "1s"},
		{"part_size": "64MiB", "memory": "64GiB", "total_memory": "1TiB", "attempts": "20"},
		{"checksum": "none", "encryption": "AES256"}, {"prefix": "berth"},
	} {
		all := map[string]string{"storage.s3.bucket": "b"}
		for key, value := range keys {
			all["storage.s3."+key] = value
		}
		if err := CheckConfig(settings(t, all)); err != nil {
			t.Errorf("%v: %v", keys, err)
		}
	}
	if err := (s3blob.Options{Bucket: "b", Memory: 11<<20 - 1}).Check(); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("less memory than the configuration's least is taken too: %v", err)
	}
}
