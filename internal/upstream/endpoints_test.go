package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
	"github.com/berth-registry/berth/internal/upstream"
)

// mirrored makes an upstream of a mirror and a registry.
func mirrored(t *testing.T, mirror, origin http.HandlerFunc) (u *upstream.Registry, m, o *script) {
	t.Helper()
	m, o = scripted(t, mirror), scripted(t, origin)
	return open(t, upstream.Options{Endpoints: []string{m.URL, o.URL}}), m, o
}

// TestFrugal: what is not there takes one request to know.
func TestFrugal(t *testing.T) {
	s := scripted(t, http.NotFound)
	u := open(t, upstream.Options{Endpoints: []string{s.URL}})
	wantCode(t, "resolve", resolve(t, u), registry.ManifestUnknown)
	_, err := u.Blob(t.Context(), "team/app", blobDigest)
	registrytest.WantCode(t, "find a blob", err, registry.BlobUnknown)
	s.wantAsked(t, "what is not there", "HEAD manifests/v1", "HEAD blobs/"+blobDigest.String())
}

// TestMirrorsFirst: a mirror that has it is asked alone; whatever else it says,
// the registry itself has the last word.
func TestMirrorsFirst(t *testing.T) {
	wrong := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "something else") }
	head, get := "HEAD manifests/v1", "GET manifests/"+indexDigest.String()
	for what, c := range map[string]struct {
		mirror, origin http.HandlerFunc
		code           registry.Code // of what is resolved, and had by digest
		both           bool          // both are asked
	}{
		"the mirror has it":          {serve, hangUp, 0, false},
		"the mirror lacks it":        {http.NotFound, serve, 0, true},
		"the mirror fails":           {hangUp, serve, 0, true},
		"the mirror is overloaded":   {status(503), serve, 0, true},
		"the mirror refuses":         {status(403), serve, 0, true},
		"the mirror has had enough":  {status(429), serve, 0, true},
		"nobody has it":              {http.NotFound, http.NotFound, registry.ManifestUnknown, true},
		"the mirror lacks, 503":      {http.NotFound, status(503), registry.Unavailable, true},
		"the mirror fails, 404":      {hangUp, http.NotFound, registry.ManifestUnknown, true},
		"the mirror lacks, 429":      {http.NotFound, status(429), registry.TooManyRequests, true},
		"the mirror talks nonsense":  {wrong, serve, 0, true},
		"the mirror lacks, nonsense": {http.NotFound, wrong, registry.Faulty, true},
	} {
		t.Run(what, func(t *testing.T) {
			u, m, o := mirrored(t, c.mirror, c.origin)
			got, err := u.Manifest(t.Context(), "team/app", oci.DigestRef(indexDigest))
			wantCode(t, "get", err, c.code)
			if err == nil && string(got.Content) != index {
				t.Errorf("got %q", got.Content)
			}
			m.wantAsked(t, "mirror", get)
			if c.both {
				o.wantAsked(t, "registry", get)
			}
			o.asked()
			if strings.Contains(what, "nonsense") || strings.Contains(what, "enough") || strings.Contains(what, "429") {
				return // it has no answer to a HEAD, or is not asked again
			}
			wantCode(t, "resolve", resolve(t, u), c.code)
			m.wantAsked(t, "mirror", head)
			if c.both {
				o.wantAsked(t, "registry", head)
			}
		})
	}
}

// TestWhoLeftAsksNobodyElse: the next endpoint is for who waits.
func TestWhoLeftAsksNobodyElse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u, _, o := mirrored(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, serve)
	_, err := u.Manifest(ctx, "team/app", v1)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	o.wantAsked(t, "registry")
}

// TestListsOfTheRegistry: a mirror's lists may be short. Tags are better than
// none; referrers are not.
func TestListsOfTheRegistry(t *testing.T) {
	mirror := func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			w.Header().Set("Content-Type", oci.MediaTypeIndex)
			io.WriteString(w, index)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/_catalog") {
			io.WriteString(w, `{"repositories":["team/app"]}`)
			return
		}
		io.WriteString(w, `{"tags":["v1"]}`)
	}
	u, m, o := mirrored(t, mirror, serve)
	registrytest.WantList(t, "tags", u.Tags(t.Context(), "team/app", ""), "v1", "v2")
	registrytest.WantList(t, "tags", u.Tags(t.Context(), "team/app", "v1"), "v2")
	registrytest.WantCode(t, "catalog", registrytest.ListError(t, u.Repositories(t.Context(), "")), registry.Unsupported)
	o.now(status(404))
	registrytest.WantCode(t, "tags of nothing", registrytest.ListError(t, u.Tags(t.Context(), "team/app", "")), registry.NameUnknown)
	m.wantAsked(t, "mirror")

	o.now(status(500))
	registrytest.WantList(t, "tags of the mirror", u.Tags(t.Context(), "team/app", ""), "v1")
	registrytest.WantList(t, "its catalog", u.Repositories(t.Context(), ""), "team/app")
	m.now(status(404))
	registrytest.WantCode(t, "tags of nobody", registrytest.ListError(t, u.Tags(t.Context(), "team/app", "")), registry.Unavailable)
	m.asked()
	m.now(mirror)
	_, _, err := u.AllReferrers(t.Context(), "team/app", indexDigest)
	registrytest.WantCode(t, "referrers", err, registry.Unavailable)
	registrytest.WantCode(t, "referrers", registrytest.ListError(t, u.Referrers(t.Context(), "team/app", indexDigest, "", "")), registry.Unavailable)
	m.wantAsked(t, "mirror")
}

// TestBlobsOfAnyEndpoint: one that does not have a blob, or breaks off, is not the
// end of it.
func TestBlobsOfAnyEndpoint(t *testing.T) {
	half := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		if r.Method == http.MethodGet {
			io.WriteString(w, "01234")
		}
	}
	blob := "blobs/" + blobDigest.String()
	t.Run("found at one, had from the other", func(t *testing.T) {
		u, m, o := mirrored(t, serve, serve)
		b, err := u.Blob(t.Context(), "team/app", blobDigest)
		wantCode(t, "find", err, 0)
		m.now(http.NotFound)
		for range 2 {
			if got, err := read(t.Context(), b); got != string(content) || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		}
		m.wantAsked(t, "mirror", "HEAD "+blob, "GET "+blob)
		o.wantAsked(t, "registry", "GET "+blob, "GET "+blob)
	})
	t.Run("broken off", func(t *testing.T) {
		u, m, o := mirrored(t, half, serve)
		b := known(u)
		if got, err := read(t.Context(), b); got != "01234" || !registry.IsCode(err, registry.Unavailable) {
			t.Errorf("read %q, %v", got, err)
		}
		rc, err := b.Open(t.Context(), 5, 5)
		wantCode(t, "go on", err, 0)
		rest, err := io.ReadAll(rc)
		rc.Close()
		if string(rest) != "56789" || err != nil {
			t.Errorf("the rest is %q, %v", rest, err)
		}
		m.wantAsked(t, "mirror", "GET "+blob)
		o.wantAsked(t, "registry", "GET "+blob)
	})
	t.Run("nowhere", func(t *testing.T) {
		u, _, o := mirrored(t, hangUp, http.NotFound)
		_, err := read(t.Context(), known(u))
		registrytest.WantCode(t, "read", err, registry.BlobUnknown)
		o.now(status(500))
		_, err = read(t.Context(), known(u))
		registrytest.WantCode(t, "read", err, registry.Unavailable)
	})
	t.Run("no address is given away", func(t *testing.T) {
		u, _, _ := mirrored(t, serve, serve)
		_, err := known(u).URL(t.Context(), time.Minute)
		registrytest.WantCode(t, "address", err, registry.Unsupported)
	})
}

// TestMirrorsAreNotTrusted: the bytes of a mirror are held against their digest,
// and if they are wrong another is asked. Those of the registry itself are not
// hashed twice.
func TestMirrorsAreNotTrusted(t *testing.T) {
	forged := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("012345678x"))
	}
	now := newClock()
	m, o := scripted(t, forged), scripted(t, serve)
	u := open(t, upstream.Options{Endpoints: []string{m.URL, o.URL}, Now: now.now})
	b := known(u)
	got, err := read(t.Context(), b)
	registrytest.WantCode(t, "read", err, registry.Faulty)
	if len(got) == len(content) {
		t.Errorf("all of %q was given out", got)
	}
	m.asked()
	find := func() registry.Blob {
		found, err := u.Blob(t.Context(), "team/app", blobDigest)
		wantCode(t, "find it again", err, 0)
		return found
	}
	for _, b := range []registry.Blob{b, known(u), find()} {
		if got, err := read(t.Context(), b); got != string(content) || err != nil {
			t.Errorf("read again %q, %v", got, err)
		}
	}
	m.wantAsked(t, "mirror")
	now.move(61 * time.Minute)
	find()
	if len(m.asked()) == 0 {
		t.Error("the mirror is never asked for it again")
	}

	o.now(forged)
	m.now(http.NotFound)
	if got, err := read(t.Context(), known(u)); got != "012345678x" || err != nil {
		t.Errorf("of the registry itself: %q, %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	for what, o := range map[string]upstream.Options{
		"no name":        {Endpoints: []string{"https://example.com"}},
		"no endpoint":    {Name: "hub"},
		"bad endpoint":   {Name: "hub", Endpoints: []string{"https://example.com", "example.com"}},
		"no such file":   {Name: "hub", Endpoints: []string{"https://example.com"}, Transport: upstream.Transport{CAFile: "/nowhere"}},
		"no certificate": {Name: "hub", Endpoints: []string{"https://example.com"}, Transport: upstream.Transport{CAFile: "world_test.go"}},
		"bad proxy":      {Name: "hub", Endpoints: []string{"https://example.com"}, Transport: upstream.Transport{HTTPProxy: "ftp://u:secret@example.com"}},
		"worse proxy":    {Name: "hub", Endpoints: []string{"https://example.com"}, Transport: upstream.Transport{HTTPProxy: "http://u:secret@exa mple.com"}},
	} {
		u, err := upstream.New(o)
		if err == nil {
			u.Close()
			t.Errorf("%s is accepted", what)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password shows in %v", what, err)
		}
	}
}
