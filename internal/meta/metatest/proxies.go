package metatest

import (
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

var proxyCases = []testCase{
	{"proxies/life", proxyLife},
	{"proxies/secrets", proxySecrets},
	{"proxies/list", proxyList},
}

func (e *env) putProxy(p meta.Proxy) meta.Proxy {
	e.Helper()
	got, err := e.db.PutProxy(e.Context(), changing("proxy.write"), p)
	e.ok(err)
	return got
}

func (e *env) wantProxy(want meta.Proxy) {
	e.Helper()
	if got, err := e.db.Proxy(e.Context(), want.Name); err != nil || !reflect.DeepEqual(got, want) {
		e.Errorf("found %+v, %v; want %+v", got, err, want)
	}
}

func proxyLife(e *env) {
	_, err := e.db.Proxy(e.Context(), "hub")
	e.wantErr("find what is not there", err, meta.ErrNotFound)
	made := e.clock.now()
	want := meta.Proxy{Name: "hub", Spec: `{"name":"hub"}`, Secret: []byte("sealed"), CreatedAt: made, UpdatedAt: made}
	put := func(p meta.Proxy) func(meta.Change) error {
		return func(c meta.Change) error {
			got, err := e.db.PutProxy(e.Context(), c, p)
			if !reflect.DeepEqual(got, want) {
				e.Errorf("stored %+v, want %+v", got, want)
			}
			return err
		}
	}
	e.managed(put(meta.Proxy{Name: "hub", Spec: want.Spec, Secret: want.Secret, CreatedAt: made.Add(-time.Hour)}))
	e.wantProxy(want)
	e.clock.move(time.Minute)
	want.Spec, want.UpdatedAt = `{}`, e.clock.now()
	e.managed(put(meta.Proxy{Name: "hub", Spec: `{}`}))
	e.wantProxy(want)
	e.fetched(image(hub, "m"))
	remove := func(c meta.Change) error { return e.db.DeleteProxy(e.Context(), c, "hub") }
	e.managed(remove)
	e.refused("delete what is gone", meta.ErrNotFound, remove)
	_, err = e.db.Proxy(e.Context(), "hub")
	e.wantErr("find what is deleted", err, meta.ErrNotFound)
	_, err = e.db.ProxyManifest(e.Context(), hub, digest("m"))
	e.ok(err) // what came from it is still known as such
}

func proxySecrets(e *env) {
	p := e.putProxy(meta.Proxy{Name: "hub"})
	if p.Secret != nil {
		e.Errorf("a secret from nowhere: %q", p.Secret)
	}
	for _, c := range []struct{ put, want []byte }{
		{[]byte("a"), []byte("a")}, {nil, []byte("a")}, {[]byte("b"), []byte("b")}, {[]byte{}, nil}, {nil, nil},
	} {
		p.Secret = c.put
		if got := e.putProxy(p); !reflect.DeepEqual(got.Secret, c.want) {
			e.Errorf("after %q the secret is %q, want %q", c.put, got.Secret, c.want)
		}
		p.Secret = c.want
		e.wantProxy(p)
	}
}

func proxyList(e *env) {
	for _, name := range []string{"quay.io", "docker.io", "ghcr.io"} {
		e.putProxy(meta.Proxy{Name: name, Secret: []byte(name)})
	}
	name := func(p meta.Proxy) string {
		if string(p.Secret) != p.Name {
			e.Errorf("%s has the secret %q", p.Name, p.Secret)
		}
		return p.Name
	}
	pages(e, "proxies", name, name, func(after string, n int) ([]meta.Proxy, error) {
		return e.db.Proxies(e.Context(), after, n)
	}, "docker.io", "ghcr.io", "quay.io")
}
