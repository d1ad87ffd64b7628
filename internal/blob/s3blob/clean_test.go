package s3blob

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

// TestUnsealed: List knows what is in the bucket of uploads, and Abort frees it.
func TestUnsealed(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		t.Run(service, func(t *testing.T) { testUnsealed(t, open(t, options(t, server))) })
	}
}

func testUnsealed(t *testing.T, s *Store) {
	data := content(12, 20*mib)
	parts := appendTo(t, s, "b-parts", blob.State{}, data)
	spilled := appendTo(t, s, "d-spilled", appendTo(t, s, "d-spilled", blob.State{}, data[:3*mib]), data[:1000])
	for _, key := range []string{"a-sealed", "c-sealed", "e-sealed"} {
		seal(t, s, key, appendTo(t, s, key, blob.State{}, data[:100]))
	}
	var got []string
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d", o.Key, o.Size))
		if age := time.Since(o.Modified); age < -time.Minute || age > time.Minute {
			t.Errorf("%s was modified at %v", o.Key, o.Modified)
		}
	}
	want := fmt.Sprintf("[a-sealed 100 b-parts %d c-sealed 100 d-spilled %d e-sealed 100]", len(data), 3*mib+1000)
	if fmt.Sprint(got) != want {
		t.Errorf("listed %v, want %v", got, want)
	}
	for key, st := range map[string]blob.State{"b-parts": parts, "d-spilled": spilled, "a-sealed": {}, "c-sealed": {}, "e-sealed": {}} {
		if err := s.Abort(t.Context(), key, st); err != nil {
			t.Errorf("Abort(%s): %v", key, err)
		}
	}
	wantNothing(t, s)
}

func TestSweep(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		t.Run(service, func(t *testing.T) { testSweep(t, server) })
	}
}

func testSweep(t *testing.T, server *s3test.Server) {
	s := open(t, options(t, server))
	other := options(t, server)
	other.Prefix += "/other"
	data := content(13, 6*mib)
	stranger := open(t, other)
	appendTo(t, stranger, "dead-parts", blob.State{}, data)
	for _, who := range []string{"live", "dead"} {
		appendTo(t, s, who+"-parts", blob.State{}, data)
		appendTo(t, s, who+"-tail", appendTo(t, s, who+"-tail", blob.State{}, data[:3*mib]), data[:1000])
		seal(t, s, who+"-sealed", appendTo(t, s, who+"-sealed", blob.State{}, data))
	}
	live := func(key string) (bool, error) { return strings.HasPrefix(key, "live"), nil }
	if n, err := s.Sweep(t.Context(), time.Now().Add(-time.Hour), live); n != 0 || err != nil {
		t.Errorf("of what is young: %+v, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), time.Now().Add(time.Hour), live); n != 2 || err != nil {
		t.Errorf("%d, %v; want an upload and a tail", n, err)
	}
	left := ""
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left += o.Key + " "
	}
	if want := "dead-sealed live-parts live-sealed live-tail "; left != want {
		t.Errorf("left: %s; want %s", left, want)
	}
	for o, err := range stranger.List(t.Context(), "") {
		if err != nil || o.Key != "dead-parts" {
			t.Errorf("of another prefix: %+v, %v", o, err)
		}
	}
}

// TestSweepChecks: what a Check wrote that was ended in the middle does not stay.
func TestSweepChecks(t *testing.T) {
	s, rec := recorded(t, options(t, s3test.Start(t)))
	rec.Fault = func(_ int, operation string, _ *http.Request) (*http.Response, error) {
		if operation == "DeleteObject" {
			return nil, errKilled
		}
		return nil, nil
	}
	if err := s.Check(t.Context()); err == nil {
		t.Fatal("a bucket is fine that deletes nothing")
	}
	rec.Fault = nil
	live := func(key string) (bool, error) { return true, fmt.Errorf("asked for %s", key) }
	for want, before := range []time.Duration{-time.Hour, time.Hour} {
		if n, err := s.Sweep(t.Context(), time.Now().Add(before), live); n != want || err != nil {
			t.Errorf("of what is older than %v from now: %d, %v; want %d", before, n, err, want)
		}
	}
	if names, err := s.listNames(t.Context(), s.o.Prefix+checks); len(names) > 0 || err != nil {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestDeleteMany deletes more than a request may name, also from a service that
// knows only the deletion of one.
func TestDeleteMany(t *testing.T) {
	server := s3test.Start(t)
	for _, code := range []string{"", "NotImplemented", "MissingContentMD5"} {
		t.Run("code "+code, func(t *testing.T) {
			s, rec := recorded(t, options(t, server))
			keys := make([]string, deleteBatch+5)
			for i := range keys {
				keys[i] = fmt.Sprintf("key-%05d", i)
			}
			for _, key := range []string{keys[0], keys[500], keys[deleteBatch+4], "stays"} {
				seal(t, s, key, appendTo(t, s, key, blob.State{}, []byte(key)))
			}
			rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
				if op == "DeleteObjects" && code != "" {
					return s3test.Answer(r, http.StatusBadRequest, code), nil
				}
				return nil, nil
			}
			if err := s.Delete(t.Context(), keys...); err != nil {
				t.Fatal(err)
			}
			if n := rec.Requests("DeleteObjects"); n != 2 {
				t.Errorf("%d requests for %d keys, want 2", n, len(keys))
			}
			for o, err := range s.List(t.Context(), "") {
				if err != nil || o.Key != "stays" {
					t.Errorf("left: %+v, %v", o, err)
				}
			}
		})
	}
}

func TestOptions(t *testing.T) {
	good := Options{Bucket: "b", Region: "r"}
	for endpoint, equal := range map[string]bool{"": false, "https://s3.example.com": false, "https://0123.r2.cloudflarestorage.com": true, "https://0123.eu.r2.cloudflarestorage.com": true} {
		o := good
		o.Endpoint = endpoint
		if s, err := New(t.Context(), o); err != nil || s.o.EqualParts != equal {
			t.Errorf("%s: equal parts are not %t, or %v", endpoint, equal, err)
		}
	}
	for want, change := range map[string]func(*Options){
		"bucket":     func(o *Options) { o.Bucket = "" },
		"part size":  func(o *Options) { o.PartSize = MinPart - 1 },
		"memory":     func(o *Options) { o.Memory = 1 },
		"checksum":   func(o *Options) { o.Checksum = "sha" },
		"encryption": func(o *Options) { o.Encryption = "rot13" },
		"KMS":        func(o *Options) { o.KMSKey = "k" },
		"slash":      func(o *Options) { o.Prefix = "/x" },
		"endpoint":   func(o *Options) { o.Endpoint = "minio:9000" },
		"a user":     func(o *Options) { o.PublicEndpoint = "http://user@host" },
	} {
		o := good
		change(&o)
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestCredentialChain takes credentials, region and endpoint from the
// environment, as the SDK does.
func TestCredentialChain(t *testing.T) {
	server := s3test.Start(t)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s3test.AccessKey, "AWS_SECRET_ACCESS_KEY": s3test.SecretKey, "AWS_REGION": "us-east-1",
		"AWS_ENDPOINT_URL_S3": server.URL(), "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	o := Options{Bucket: s3test.Bucket, PathStyle: true}
	if err := open(t, o).Check(t.Context()); err != nil {
		t.Error(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "someone-else")
	if err := open(t, o).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "does not know the access key") {
		t.Errorf("unknown key: %v", err)
	}
	t.Setenv("AWS_REGION", "")
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
}

// TestEncryption asks for it with every object and every multipart upload.
func TestEncryption(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Encryption, o.KMSKey, o.StorageClass = "aws:kms", "some-key-id", "STANDARD_IA"
	s, rec := recorded(t, o)
	asked := map[string]int{}
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if r.Header.Get("x-amz-server-side-encryption") == "aws:kms" &&
			r.Header.Get("x-amz-server-side-encryption-aws-kms-key-id") == "some-key-id" && r.Header.Get("x-amz-storage-class") == "STANDARD_IA" {
			asked[op]++
		}
		return nil, nil
	}
	s.Append(t.Context(), "some-key", blob.State{}, strings.NewReader(strings.Repeat("x", 6*mib))) // whether or not the service can
	s.Seal(t.Context(), "other-key", blob.State{})
	if asked["CreateMultipartUpload"] == 0 || asked["PutObject"] == 0 {
		t.Errorf("asked for encryption and class: %v", asked)
	}
	o.Encryption, o.KMSKey, o.StorageClass = "AES256", "", ""
	s, rec = recorded(t, o)
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if r.Header.Get("x-amz-server-side-encryption") != "AES256" || r.Header.Get("x-amz-server-side-encryption-aws-kms-key-id") != "" {
			t.Errorf("%s asks for %q with key %q", op, r.Header.Get("x-amz-server-side-encryption"), r.Header.Get("x-amz-server-side-encryption-aws-kms-key-id"))
		}
		return nil, nil
	}
	s.Seal(t.Context(), "another-key", blob.State{})
	if rec.Requests("PutObject") == 0 {
		t.Error("nothing was written")
	}
}

// TestCertificates: the SDK's own settings of a connection stay.
func TestCertificates(t *testing.T) {
	service := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	defer service.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: service.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CA_BUNDLE": file,
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	o := Options{Bucket: "some-bucket", Endpoint: service.URL, PathStyle: true, Attempts: 1}
	if _, err := open(t, o).Open(t.Context(), "some-key", 0, 0); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("with the certificate: %v", err)
	}
	t.Setenv("AWS_CA_BUNDLE", "")
	if _, err := open(t, o).Open(t.Context(), "some-key", 0, 0); !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without it: %v", err)
	}
}
