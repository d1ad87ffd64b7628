package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// BenchmarkManifestGet compares the same pull from an open registry and from one
// that asks for log-in: what identification, policy, limits and trail cost.
func BenchmarkManifestGet(b *testing.B) {
	open := benchSite(b, nil)
	guarded := benchSite(b, map[string]string{"auth.mode": "required"})
	watched := benchSite(b, map[string]string{"admin.listen": "127.0.0.1:0"}) // keeps the last traces
	traced := benchSite(b, map[string]string{"tracing.endpoint": discarding(b), "tracing.sample": "0.01"})
	key := guarded.projectKey(b, "bench")
	token := guarded.token(b, key, "repository:bench/app:pull")
	for name, get := range map[string]func(*http.Client) int{
		"open":   open.getter(""),
		"token":  guarded.getter("Bearer " + token),
		"key":    guarded.getter(basic("ci", key)),
		"recent": watched.getter(""),
		"traced": traced.getter(""),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for pb.Next() {
					if status := get(client); status != http.StatusOK {
						b.Errorf("status %d", status)
						return
					}
				}
			})
		})
	}
}

// discarding is a collector of traces.
func discarding(b *testing.B) (url string) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	b.Cleanup(srv.Close)
	return srv.URL
}

// BenchmarkHandler is the pull without a network: what the server itself
// allocates.
func BenchmarkHandler(b *testing.B) {
	for name, keys := range map[string]map[string]string{
		"off": nil, "recent": {"admin.listen": "127.0.0.1:0"}, "traced": {"tracing.endpoint": discarding(b), "tracing.sample": "0.01"},
	} {
		s := benchSite(b, keys)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodGet, "/v2/bench/app/manifests/v1", nil)
				r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
				s.site.handler.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}

// BenchmarkToken is a log-in with a key, for one scope.
func BenchmarkToken(b *testing.B) {
	s := benchSite(b, map[string]string{"auth.mode": "required"})
	key := s.projectKey(b, "bench")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.token(b, key, "repository:bench/app:pull")
		}
	})
}

// BenchmarkBlobPush pushes blobs of 1 MiB to one repository each client: POST,
// then PUT with all of the bytes.
func BenchmarkBlobPush(b *testing.B) {
	s := benchSite(b, nil)
	var clients atomic.Int64
	b.SetBytes(1 << 20)
	b.SetParallelism(4)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		content := make([]byte, 1<<20)
		repo := fmt.Sprint("bench/push-", clients.Add(1))
		for i := uint64(0); pb.Next(); i++ {
			binary.BigEndian.PutUint64(content, i)
			copy(content[8:], repo)
			if err := s.push(client, repo, content); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func (s *benchServer) push(client *http.Client, repo string, content []byte) error {
	resp, err := client.Post(s.URL+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	to := s.URL + resp.Header.Get("Location") + "?digest=" + string(oci.SHA256.FromBytes(content))
	r, err := http.NewRequest(http.MethodPut, to, bytes.NewReader(content))
	if err != nil {
		return err
	}
	if resp, err = client.Do(r); err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// benchServer is a site on loopback with the manifest bench/app:v1.
type benchServer struct {
	*httptest.Server
	site *site
}

func benchSite(b *testing.B, keys map[string]string) *benchServer {
	b.Helper()
	c := settings(b, keys)
	st, err := openStore(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(st.close)
	content := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	if _, err := st.registry.PutManifest(context.Background(), "bench/app", registry.Manifest{Content: content}, "v1"); err != nil {
		b.Fatal(err)
	}
	s, err := newSite(b.Context(), c, st, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.closeWithin(cutTimeout) })
	srv := &benchServer{httptest.NewServer(s.handler), s}
	b.Cleanup(srv.Close)
	return srv
}

// projectKey makes a key that may pull from a project.
func (s *benchServer) projectKey(b *testing.B, project string) string {
	b.Helper()
	p, err := s.site.directory.Project(b.Context(), project)
	if err != nil {
		b.Fatal(err)
	}
	secret, hash := auth.NewKey(auth.ProjectKey)
	k := access.Key{ID: meta.NewID(), Name: "ci", ProjectID: p.ID, Role: access.Reader, Addresses: []netip.Prefix{}, Prefixes: []string{}}
	if _, err := s.site.store.db.CreateKey(b.Context(), meta.Change{}, k, hash); err != nil {
		b.Fatal(err)
	}
	return secret
}

func (s *benchServer) token(b *testing.B, key, scope string) string {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.URL+auth.TokenPath+"?scope="+scope, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.SetBasicAuth("ci", key)
	resp, err := s.Client().Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		b.Fatalf("status %s: %v", resp.Status, err)
	}
	return answer.Token
}

// getter gets the manifest by its tag and returns the status.
func (s *benchServer) getter(authorization string) func(*http.Client) int {
	return func(client *http.Client) int {
		r, err := http.NewRequest(http.MethodGet, s.URL+"/v2/bench/app/manifests/v1", nil)
		if err != nil {
			return 0
		}
		r.Header.Set("Accept", oci.MediaTypeIndex)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		resp, err := client.Do(r)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
}

func basic(name, secret string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(name, secret)
	return strings.Clone(r.Header.Get("Authorization"))
}
