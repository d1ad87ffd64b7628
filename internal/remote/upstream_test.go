package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/remote"
)

const index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

var (
	indexDigest = oci.SHA256.FromBytes([]byte(index))
	otherDigest = oci.SHA256.FromBytes([]byte("other"))
	blobDigest  = oci.SHA256.FromBytes([]byte("0123456789"))
)

// upstream serves script and returns a client of it.
func upstream(t *testing.T, script http.HandlerFunc) *remote.Registry {
	t.Helper()
	s := httptest.NewServer(script)
	t.Cleanup(s.Close)
	return client(t, s.URL, remote.Options{Stall: 2 * time.Second})
}

// manifest serves content as an index under the given digest header.
func manifest(content, header string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", oci.MediaTypeIndex+"; charset=utf-8")
		if header != "" {
			w.Header().Set("Docker-Content-Digest", header)
		}
		io.WriteString(w, content)
	}
}

func TestManifestsAreVerified(t *testing.T) {
	sha512 := oci.SHA512.FromBytes([]byte(index))
	byTag, byDigest := oci.TagRef("v1"), oci.DigestRef(indexDigest)
	for what, c := range map[string]struct {
		script http.HandlerFunc
		ref    oci.Ref
		code   registry.Code
		digest oci.Digest // "" for an error
	}{
		"right by digest":           {manifest(index, string(indexDigest)), byDigest, 0, indexDigest},
		"right by tag":              {manifest(index, string(indexDigest)), byTag, 0, indexDigest},
		"by tag, sha512":            {manifest(index, string(sha512)), byTag, 0, sha512},
		"by digest, header sha512":  {manifest(index, string(sha512)), byDigest, 0, indexDigest},
		"no header":                 {manifest(index, ""), byTag, 0, indexDigest},
		"senseless header":          {manifest(index, "sha256:xyz"), byTag, 0, indexDigest},
		"wrong header by tag":       {manifest(index, string(otherDigest)), byTag, registry.Faulty, ""},
		"wrong header by digest":    {manifest(index, string(otherDigest)), byDigest, registry.Faulty, ""},
		"wrong bytes":               {manifest(index+" ", ""), byDigest, registry.Faulty, ""},
		"wrong bytes, right header": {manifest(index+" ", string(indexDigest)), byDigest, registry.Faulty, ""},
		"wrong bytes, their header": {manifest("x", string(oci.SHA256.FromBytes([]byte("x")))), byDigest, registry.Faulty, ""},
		"oversize":                  {manifest(index+strings.Repeat(" ", oci.MaxManifest), ""), byTag, registry.Faulty, ""},
		"broken off": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "90")
			io.WriteString(w, index[:50])
		}, byTag, registry.Unavailable, ""},
		"stalled": {stall, byTag, registry.Unavailable, ""},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, byTag, registry.Unavailable, ""},
		"redirected without an end": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, byTag, registry.Faulty, ""},
		"an error larger than allowed": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"`+strings.Repeat("x", 1<<20)+`"}]}`)
		}, byTag, registry.ManifestUnknown, ""},
	} {
		t.Run(what, func(t *testing.T) {
			r := upstream(t, c.script)
			m, err := r.Manifest(t.Context(), "team/app", c.ref)
			if c.digest == "" {
				registrytest.WantCode(t, "get", err, c.code)
				return
			}
			if err != nil || m.Digest != c.digest || m.MediaType != oci.MediaTypeIndex || string(m.Content) != index {
				t.Fatalf("got %s (%s), %v", m.Digest, m.MediaType, err)
			}
			d, err := r.Resolve(t.Context(), "team/app", c.ref)
			if err != nil || d.Digest != c.digest || d.Size != int64(len(index)) || d.MediaType != oci.MediaTypeIndex {
				t.Errorf("resolved %+v, %v", d, err)
			}
		})
	}
}

// stall begins a body and brings nothing more.
func stall(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, index[:10])
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func TestBlobsAreVerified(t *testing.T) {
	serve := func(content string, ranges bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		}
	}
	for what, c := range map[string]struct {
		script http.HandlerFunc
		off, n int64
		want   string // "" for an error
		code   registry.Code
	}{
		"whole":                    {serve("0123456789", true), 0, 10, "0123456789", 0},
		"a part":                   {serve("0123456789", true), 3, 4, "3456", 0},
		"a part, Range is ignored": {serve("0123456789", false), 3, 4, "3456", 0},
		"wrong bytes":              {serve("012345678x", true), 0, 10, "", registry.Faulty},
		"another range": {func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				r.Header.Set("Range", "bytes=0-3")
			}
			serve("0123456789", true)(w, r)
		}, 3, 4, "", registry.Faulty},
		"broken off": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "01234")
		}, 0, 10, "", registry.Unavailable},
		"another size": {func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				serve("01234567890", true)(w, r)
				return
			}
			serve("0123456789", true)(w, r)
		}, 0, 10, "", registry.Faulty},
	} {
		t.Run(what, func(t *testing.T) {
			b, err := upstream(t, c.script).Blob(t.Context(), "team/app", blobDigest)
			if err != nil {
				t.Fatalf("find the blob: %v", err)
			}
			got, err := readExactly(t, b, c.off, c.n)
			if c.want == "" {
				registrytest.WantCode(t, "read", err, c.code)
			} else if err != nil || got != c.want {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// readExactly reads n bytes and no further: whoever has them all must be able
// to trust them without having seen the end.
func readExactly(t *testing.T, b registry.Blob, off, n int64) (string, error) {
	t.Helper()
	rc, err := b.Open(t.Context(), off, n)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	got := make([]byte, n)
	_, err = io.ReadFull(rc, got)
	return string(got), err
}

func TestCredentialsStayAtTheOrigin(t *testing.T) {
	var seen []string
	var back string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, "elsewhere: "+r.Header.Get("Authorization"))
		if strings.HasSuffix(r.URL.Path, "/back") {
			http.Redirect(w, r, back, http.StatusTemporaryRedirect)
			return
		}
		io.WriteString(w, "0123456789")
	}))
	defer elsewhere.Close()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, "origin: "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/end":
			io.WriteString(w, "0123456789")
		case "/v2/team/app/blobs/" + string(blobDigest):
			http.Redirect(w, r, elsewhere.URL+"/bytes", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, elsewhere.URL+"/back", http.StatusTemporaryRedirect)
		}
	}))
	defer origin.Close()
	back = origin.URL + "/end"
	r := client(t, origin.URL, remote.Options{Authorization: remote.Basic("user", "secret")})
	with := "origin: Basic dXNlcjpzZWNyZXQ="

	b, err := r.Blob(t.Context(), "team/app", blobDigest)
	if err != nil {
		t.Fatalf("find a redirected blob: %v", err)
	}
	if got := registrytest.ReadBlob(t, b, 0, 10); string(got) != "0123456789" {
		t.Errorf("read %q over a redirect", got)
	}
	if want := []string{with, "elsewhere: ", with, "elsewhere: "}; !slices.Equal(seen, want) {
		t.Errorf("seen were %q, want %q", seen, want)
	}
	seen = nil
	if _, err := r.Blob(t.Context(), "team/other", blobDigest); err != nil {
		t.Fatalf("find a blob redirected back: %v", err)
	}
	if want := []string{with, "elsewhere: ", "origin: "}; !slices.Equal(seen, want) {
		t.Errorf("seen were %q, want %q", seen, want)
	}
}

func TestUploadsStayAtTheOrigin(t *testing.T) {
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://elsewhere.example/v2/team/app/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	})
	_, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	registrytest.WantCode(t, "start an upload that lies elsewhere", err, registry.Faulty)

	r = upstream(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusTemporaryRedirect)
	})
	err = r.DeleteTag(t.Context(), "team/app", "v1")
	registrytest.WantCode(t, "delete where a redirect leads", err, registry.Faulty)
}

func TestSessionsOfAnyForm(t *testing.T) {
	session := "/artifacts-uploads/team/x%2Fy?state=a%26b&n="
	sent := 0
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost && (r.URL.EscapedPath() != "/artifacts-uploads/team/x%2Fy" || r.URL.Query().Get("state") != "a&b") {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodPatch {
			n, _ := io.Copy(io.Discard, r.Body)
			sent += int(n)
		}
		w.Header().Set("Location", fmt.Sprint(session, sent))
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(sent-1, 0)))
		w.WriteHeader(http.StatusAccepted)
	})
	u, err := r.StartUpload(t.Context(), "team/app", registry.UploadOptions{})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := u.Append(t.Context(), 0, strings.NewReader("0123456789")); err != nil {
		t.Fatalf("append: %v", err)
	}
	id := u.ID()
	if u, err = r.ResumeUpload(t.Context(), "team/app", id); err != nil || u.Offset() != 10 {
		t.Fatalf("resume: %v", err)
	}
	forged := []byte(id)
	forged[len(forged)-2] ^= 1
	for _, c := range [][2]string{{"team/other", id}, {"team/app", string(forged)}, {"team/app", "s"}, {"team/app", "p.."}, {"team/app", "p../../x"}} {
		_, err := r.ResumeUpload(t.Context(), c[0], c[1])
		registrytest.WantCode(t, fmt.Sprintf("resume %q", c), err, registry.UploadUnknown)
	}
}

func TestExactOffset(t *testing.T) {
	for header, want := range map[string]int64{"0": 0, "1": 1, "77": 77, "-1": -1, "x": -1, "9223372036854775807": -1} {
		r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Range", "0-0")
			w.Header().Set("Upload-Offset", header)
			w.WriteHeader(http.StatusNoContent)
		})
		u, err := r.ResumeUpload(t.Context(), "team/app", "p1")
		switch {
		case want < 0:
			registrytest.WantCode(t, "resume at "+header, err, registry.Faulty)
		case err != nil || u.Offset() != want:
			t.Errorf("resume at %s: %v", header, err)
		}
	}
}

func TestTagsWithoutParameters(t *testing.T) {
	var put []string
	r := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		if !bytes.Equal(content, []byte(index)) {
			t.Errorf("pushed %q", content)
		}
		put = append(put, strings.TrimPrefix(r.URL.Path, "/v2/team/app/manifests/"))
		w.WriteHeader(http.StatusCreated)
	})
	m := registry.Manifest{MediaType: oci.MediaTypeIndex, Content: []byte(index)}
	registrytest.PushManifest(t, r, "team/app", m, "a", "b")
	if want := []string{string(indexDigest), "a", "b"}; !slices.Equal(put, want) {
		t.Errorf("put %q, want %q", put, want)
	}
	m.Digest = oci.SHA512.FromBytes(m.Content)
	_, err := r.PutManifest(t.Context(), "team/app", m, "a")
	registrytest.WantCode(t, "tag by sha512", err, registry.Unsupported)
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := client(t, s.URL, remote.Options{}).Resolve(t.Context(), "team/app", oci.TagRef("v1"))
	registrytest.WantCode(t, "resolve", err, registry.Unavailable)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client(t, s.URL, remote.Options{}).Resolve(ctx, "team/app", oci.TagRef("v1"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("resolve for a caller who left: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, good := range map[string]bool{
		"http://127.0.0.1:5000": true, "https://example.com": true, "https://example.com/": true,
		"example.com": false, "ftp://example.com": false, "https://": false, "https://user:secret@example.com": false,
		"https://example.com/v2": false, "https://example.com?x=y": false, "": false, ":": false,
	} {
		_, err := remote.New(address, remote.Options{})
		if (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the password shows in %v", address, err)
		}
	}
}
