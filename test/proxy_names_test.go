package test

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// 17: docker.io by its prefix, with and without library/, by the parameter ns and
// by a name of this server is one cache. A name that is not configured is looked
// up nowhere.
func manyNames(k *cacheCheck) {
	up := upstreamtest.New(k.t)
	k.hosts = append(k.hosts, up.Host)
	k.proxy("docker.io", fresh(), spec{"upstreams": []string{up.URL()}, "hosts": []string{"hub.test", "hub.test:5000"}, "namespaces": []string{"hub.alias.test"}})
	k.upstream()
	canary := k.host("127.0.0.1", http.NotFoundHandler())
	k.run(func() {
		image := up.AddImage("library/app", "1", 1700, 1000)
		referrer := up.AddReferrer("library/app", image.Descriptor, "a/b", nil)
		names := []struct {
			repo, query string
			header      []string
		}{
			{"library/app", "ns=docker.io", nil},
			{"docker.io/app", "", nil},
			{"docker.io/library/app", "", nil},
			{"app", "ns=docker.io", nil},
			{"library/app", "ns=Docker.IO", nil},
			{"library/app", "ns=index.docker.io", nil},
			{"library/app", "ns=registry-1.docker.io", nil},
			{"library/app", "ns=docker.io:443", nil},
			{"library/app", "ns=hub.alias.test", nil},
			{"docker.io/library/app", "ns=docker.io", nil},
			{"library/app", "", []string{"Host", "hub.test"}},
			{"app", "", []string{"Host", "hub.test:5000"}},
		}
		for _, n := range names {
			query := ""
			if n.query != "" {
				query = "?" + n.query
			}
			s := k.get(k.pathOf(n.repo, "manifests", "1")+query, n.header...).manifest(image)
			if strings.HasPrefix(n.query, "ns=") && !strings.HasPrefix(n.repo, "docker.io/") {
				want := "docker.io"
				if n.query == "ns=hub.alias.test" {
					want = "hub.alias.test"
				}
				equal(k.t, "OCI-Namespace of "+s.asked, s.header.Get("OCI-Namespace"), want)
			}
			k.get(k.pathOf(n.repo, "blobs", image.Blobs[0].Digest)+query, n.header...).is(200)
			list := k.get(k.pathOf(n.repo, "referrers", image.Digest)+query, n.header...).is(200)
			if !strings.Contains(string(list.body), referrer.Digest) {
				k.t.Errorf("%s (%v) lacks the referrer: %s", list.asked, n.header, list.body)
			}
			tags := k.get("/v2/"+n.repo+"/tags/list"+query, n.header...).is(200)
			if !strings.Contains(string(tags.body), `"1"`) {
				k.t.Errorf("%s: %s", tags.asked, tags.body)
			}
		}
		k.asked(up, 1, upstreamtest.Manifest, "GET")
		k.asked(up, 1, upstreamtest.Blob, "GET")
		k.asked(up, 1, upstreamtest.Referrers)

		for _, ns := range []string{"evil.example", canary.Addr(), "http://" + canary.Addr(), "..", "docker.io.evil.example"} {
			k.get("/v2/library/app/manifests/1?ns="+ns).fails(404, "NAME_UNKNOWN")
		}
		k.get("/v2/docker.io/library/app/manifests/1?ns=" + k.name).is(400)
		if n := len(canary.Requests()); n != 0 {
			k.t.Errorf("what ns named was dialled:\n%s", canary.Asked())
		}
		k.get("/v2/library/app/manifests/1").is(404) // without a name it is a project of this registry
	})
}

// 18: what the filter keeps out does not exist, even if it was here before.
func filtered(k *cacheCheck) {
	up := k.upstream()
	k.change("", spec{"repositories": []string{"team/*", "!team/secret"}})
	var image, in upstreamtest.Image
	k.run(func() {
		in = up.AddImage(app, "1", 1800, 100)
		k.get(k.path("manifests", "1")).manifest(in)
		for _, name := range []string{"other/app", "team/secret", "team/a/b"} {
			image = up.AddImage(name, "1", 1801, 100)
			up.AddReferrer(name, image.Descriptor, "a/b", nil)
			(&repo{k.t, k.client, k.name + "/" + name}).verify("1")
			k.get(k.pathOf(k.name+"/"+name, "referrers", image.Digest)).is(200)
		}
	})
	k.again(func() {
		up.Forget()
		for _, name := range []string{"other/app", "team/secret", "team/a/b", "never/seen"} {
			repo := k.name + "/" + name
			for _, path := range []string{
				k.pathOf(repo, "manifests", "1"), k.pathOf(repo, "manifests", image.Digest),
				k.pathOf(repo, "blobs", image.Blobs[0].Digest), "/v2/" + repo + "/tags/list", k.pathOf(repo, "referrers", image.Digest),
			} {
				k.get(path).fails(404, "NAME_UNKNOWN")
			}
		}
		k.unasked(up)
		k.get(k.path("manifests", in.Digest)).manifest(in)
	})
}

// 19: the upstream is shown the proxy's credential and never the client's; a host
// that it sends us to for a blob is shown none.
func ownCredential(k *cacheCheck) {
	basic := spec{"credential": spec{"username": "puller", "password": "of-the-upstream"}}
	ups := map[string]*upstreamtest.Registry{
		"basic": k.another("basic", basic), "bearer": k.another("bearer", basic), "none": k.another("none"),
		"static": k.another("static", spec{"credential": spec{"token": "a-static-token"}}),
	}
	storage := map[string]*upstreamtest.Host{}
	for name, up := range ups {
		ip := "127.0.0.2"
		if name == "basic" || name == "static" {
			ip = "127.0.0.1" // by another port only
		}
		storage[name] = k.host(ip, up.Storage())
	}
	k.run(func() {
		ups["basic"].SetAuth(upstreamtest.Auth{User: "puller", Secret: "of-the-upstream", Basic: true})
		bearerAuth(ups["bearer"])
		want := map[string]string{
			"basic": "Basic " + base64.StdEncoding.EncodeToString([]byte("puller:of-the-upstream")), "bearer": "Bearer token-",
			"none": "", "static": "Bearer a-static-token",
		}
		for name, up := range ups {
			image := up.AddImage(app, "1", 1900, 50_000, 60_000)
			for _, code := range []int{307, 302} {
				up.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Method: "GET", Ref: image.Blobs[code%2].Digest, Do: upstreamtest.Redirect(code, storage[name].URL())})
			}
			(&repo{k.t, k.client, k.name + name + "/" + app}).verify("1")
			if n := len(storage[name].Requests()); n == 0 {
				k.t.Errorf("%s: nothing came from the other host; the upstream was asked:\n%s", name, up.Asked())
			}
			for _, q := range storage[name].Requests() {
				if a := q.Header.Get("Authorization"); a != "" {
					k.t.Errorf("%s: the other host was shown a credential: %.20q", name, a)
				}
			}
			for _, q := range up.Requests() {
				a := q.Header.Get("Authorization")
				if q.Kind == upstreamtest.Token || q.Refused {
					continue
				}
				if !strings.HasPrefix(a, want[name]) || name == "none" && a != "" {
					k.t.Errorf("%s: %s %s came with %.30q", name, q.Method, q.Path, a)
				}
			}
		}
	})
}

// 20: an upstream that sends us elsewhere for a token is not believed: nothing is
// sent there.
func foreignRealm(k *cacheCheck) {
	up, anonymous := k.upstream(upstreamSecret), k.another("anonymous")
	thief := k.host("127.0.0.3", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"token":"come-in","expires_in":300}`))
	}))
	k.run(func() {
		for _, u := range []*upstreamtest.Registry{up, anonymous} {
			u.AddImage(app, "1", 2000, 100)
			u.SetAuth(upstreamtest.Auth{User: "puller", Secret: "of-the-upstream", Realm: thief.URL() + "/token"})
		}
		for range 2 {
			k.get(k.path("manifests", "1")).is(502)
			if s := k.get(k.pathOf(k.name+"anonymous/"+app, "manifests", "1")); s.status < 400 {
				k.t.Errorf("%s: %d", s.asked, s.status)
			}
		}
		for _, q := range thief.Requests() {
			if q.Header.Get("Authorization") != "" || strings.Contains(q.Query.Encode(), "of-the-upstream") {
				k.t.Errorf("the realm elsewhere was told a secret with %s %s", q.Method, q.Path)
			}
		}
		if n := len(thief.Requests()); n != 0 {
			k.t.Errorf("the realm elsewhere was asked:\n%s", thief.Asked())
		}
	})
}
