package test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// tooOld waits until what was heard by now is too old for proxies of ofNow.
func tooOld() { time.Sleep(5 * time.Millisecond) }

// fresh is a proxy whose tags are good for the whole test.
func fresh() spec { return spec{"tags": spec{"ttl": "1h"}} }

// 7: a manifest comes with the upstream's very bytes and type, whatever is in it.
func exactManifest(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		image := up.AddImage(app, "plain", 700, 100)
		spaced := up.AddManifest(app, upstreamtest.ImageManifest, append([]byte("\n \t"), append(image.Content, "\n\n"...)...), "spaced")
		docker := up.AddManifest(app, "application/vnd.docker.distribution.manifest.v2+json", []byte(strings.NewReplacer(
			upstreamtest.ImageManifest, "application/vnd.docker.distribution.manifest.v2+json",
			upstreamtest.ImageConfig, "application/vnd.docker.container.image.v1+json",
			upstreamtest.ImageLayer, "application/vnd.docker.image.rootfs.diff.tar.gzip").Replace(string(image.Content))), "docker")
		for tag, m := range map[string]upstreamtest.Image{"plain": image, "spaced": spaced, "docker": docker} {
			k.get(k.path("manifests", tag)).manifest(m)
			k.get(k.path("manifests", m.Digest)).manifest(m)
			s := k.head(k.path("manifests", tag)).is(200)
			equal(k.t, "Docker-Content-Digest", s.header.Get("Docker-Content-Digest"), m.Digest)
			equal(k.t, "Content-Length", s.header.Get("Content-Length"), strconv.Itoa(len(m.Content)))
		}
		k.repo().verify("plain")
	})
}

// 8: while what was heard of a tag is fresh, the upstream is not asked.
func freshTag(k *cacheCheck) {
	up := k.upstream(fresh())
	k.run(func() {
		image := up.AddImage(app, "latest", 800, 100)
		k.get(k.path("manifests", "latest")).manifest(image).cache("berth", "fwd=uri-miss", "stored")
		up.Forget()
		for i := range 20 {
			s := k.get(k.path("manifests", "latest")).manifest(image).cache("berth", "hit")
			if age, err := strconv.Atoi(s.header.Get("Age")); err != nil || age < 0 {
				k.t.Errorf("answer %d: Age %q", i, s.header.Get("Age"))
			}
			k.head(k.path("manifests", "latest")).is(200).cache("hit")
		}
		k.unasked(up)
	})
}

// 9: when a tag is too old it is asked for with one HEAD, and fetched where it
// moved.
func oldTag(k *cacheCheck) {
	up := k.upstream(ofNow())
	k.run(func() {
		one := up.AddImage(app, "latest", 900, 100)
		k.get(k.path("manifests", "latest")).manifest(one)
		for range 2 { // at both replicas
			tooOld()
			up.Forget()
			k.get(k.path("manifests", "latest")).manifest(one)
			k.asked(up, 1, upstreamtest.Manifest, "HEAD")
			k.asked(up, 0, upstreamtest.Manifest, "GET")
		}
		two := up.AddImage(app, "latest", 901, 100)
		tooOld()
		up.Forget()
		k.get(k.path("manifests", "latest")).manifest(two)
		k.asked(up, 1, upstreamtest.Manifest, "HEAD")
		k.asked(up, 1, upstreamtest.Manifest, "GET")
		k.get(k.path("manifests", one.Digest)).manifest(one) // what was there stays
	})
}

// 10: of many who ask for a tag that is too old, one asks the upstream.
func twentyAtOnce(k *cacheCheck) {
	up := k.upstream(spec{"tags": spec{"ttl": "3s"}})
	k.run(func() {
		image := up.AddImage(app, "latest", 1000, 100)
		k.get(k.path("manifests", "latest")).manifest(image)
		time.Sleep(3100 * time.Millisecond)
		up.Forget()
		open := make(chan struct{})
		asked := make(chan struct{})
		var once sync.Once
		up.On(upstreamtest.Rule{Kind: upstreamtest.Manifest, Do: func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			once.Do(func() { close(asked) })
			upstreamtest.Wait(open)(w, r, serve)
		}})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				s, err := askOf(k.client, "GET", k.path("manifests", "latest"), nil)
				if err != nil || s.status != 200 || string(s.body) != string(image.Content) {
					k.t.Errorf("%d, %v", s.status, err)
				}
			})
		}
		soon(k.t, "the upstream is asked", asked)
		time.Sleep(200 * time.Millisecond) // the others come, or find it fresh again
		close(open)
		all.Wait()
		k.asked(up, 1, upstreamtest.Manifest, "HEAD")
		k.asked(up, 0, upstreamtest.Manifest, "GET")
	})
}

// failure is a way in which an upstream does not answer.
type failure struct {
	suffix string
	more   spec                         // of the proxy
	before func(*upstreamtest.Registry) // from the beginning
	fail   func(*upstreamtest.Registry)
	status []int // of who asks for what is not here
}

var upstreamSecret = spec{"credential": spec{"username": "puller", "password": "of-the-upstream"}}

func bearerAuth(up *upstreamtest.Registry) {
	up.SetAuth(upstreamtest.Auth{User: "puller", Secret: "of-the-upstream"})
}

// failing has all manifests answered by a behaviour.
func failing(do upstreamtest.Behaviour) func(*upstreamtest.Registry) {
	return func(up *upstreamtest.Registry) {
		up.On(upstreamtest.Rule{Kind: upstreamtest.Manifest, Do: do})
	}
}

// tokens has the token service answered so, and all tokens void.
func tokens(do upstreamtest.Behaviour) func(*upstreamtest.Registry) {
	return func(up *upstreamtest.Registry) {
		up.Revoke()
		up.On(upstreamtest.Rule{Kind: upstreamtest.Token, Do: do})
	}
}

var failures = []failure{
	{"429", nil, nil, failing(upstreamtest.Status(429, "Retry-After", "600")), []int{429}},
	{"503", nil, nil, failing(upstreamtest.Status(503)), []int{502, 503, 504}},
	{"500", nil, nil, failing(upstreamtest.Answer(500, "text/plain", []byte("oops"))), []int{502, 503, 504}},
	{"hang", nil, nil, failing(upstreamtest.Hang()), []int{502, 503, 504}},
	{"down", nil, nil, (*upstreamtest.Registry).Stop, []int{502, 503, 504}},
	{"token500", upstreamSecret, bearerAuth, tokens(upstreamtest.Status(500)), []int{502, 503, 504}},
	{"token401", upstreamSecret, bearerAuth, tokens(upstreamtest.Status(401)), []int{502, 503, 504}},
	{"tokenhang", upstreamSecret, bearerAuth, tokens(upstreamtest.Hang()), []int{502, 503, 504}},
	{"tokenhtml", upstreamSecret, bearerAuth, tokens(upstreamtest.HTML(200)), []int{502, 503, 504}},
}

// noSuchHost is one that does not resolve.
var noSuchHost = spec{"upstreams": []string{"http://no-such-host.invalid"}, "plain_http": true}

// 11: whatever is wrong with the upstream, what was last heard of a tag is
// served. Who said 429 is left alone for as long as it said.
func staleTag(k *cacheCheck) {
	ups := map[string]*upstreamtest.Registry{}
	for _, f := range failures {
		ups[f.suffix] = k.another(f.suffix, ofNow().with(f.more))
	}
	ups["dns"] = k.another("dns", ofNow())
	k.change("dns", noSuchHost)
	images := map[string]upstreamtest.Image{}
	k.run(func() {
		var all sync.WaitGroup
		for _, f := range failures {
			up, path := ups[f.suffix], k.pathOf(k.name+f.suffix+"/"+app, "manifests", "latest")
			if f.before != nil {
				f.before(up)
			}
			images[f.suffix] = up.AddImage(app, "latest", 1100, 100)
			k.get(path).manifest(images[f.suffix])
		}
		images["dns"] = ups["dns"].AddImage(app, "latest", 1101, 100)
		k.get(k.pathOf(k.name+"dns/"+app, "manifests", "latest")).manifest(images["dns"])
		tooOld()
		for _, f := range failures {
			up, path := ups[f.suffix], k.pathOf(k.name+f.suffix+"/"+app, "manifests", "latest")
			up.AddImage(app, "latest", 1102, 100) // it would tell news, if it could
			f.fail(up)
			up.Forget()
			all.Go(func() {
				for range 2 { // at both replicas
					s, err := askOf(k.client, "GET", path, nil)
					if err != nil {
						k.t.Errorf("%s: %v", f.suffix, err)
						return
					}
					if s.status != 200 || string(s.body) != string(images[f.suffix].Content) || !strings.Contains(s.header.Get("Cache-Status"), "fwd=stale") {
						k.t.Errorf("%s: %d, Cache-Status %q: %.200q", f.suffix, s.status, s.header.Get("Cache-Status"), s.body)
					}
				}
			})
		}
		all.Wait()
		// Another replica hears of it within a second.
		if n := len(ups["429"].Requests()); n == 0 || n > k.c.replicas {
			k.t.Errorf("the upstream that said 429 was asked again:\n%s", ups["429"].Asked())
		}
		time.Sleep(1100 * time.Millisecond)
		ups["429"].Forget()
		for range 5 {
			tooOld()
			k.get(k.pathOf(k.name+"429/"+app, "manifests", "latest")).manifest(images["429"])
			k.get(k.pathOf(k.name+"429/"+app, "manifests", "other")).is(429)
		}
		k.unasked(ups["429"])
	})
	k.again(func() {
		for range 2 {
			k.get(k.pathOf(k.name+"dns/"+app, "manifests", "latest")).manifest(images["dns"]).cache("fwd=stale")
		}
		// What was said before the restart still holds.
		k.get(k.pathOf(k.name+"429/"+app, "manifests", "latest")).manifest(images["429"])
		k.unasked(ups["429"])
	})
}

// 12: the same, and nothing is here: the client is told that it may come back,
// and never that there is no such thing.
func nothingCached(k *cacheCheck) {
	ups := map[string]*upstreamtest.Registry{}
	for _, f := range failures {
		ups[f.suffix] = k.another(f.suffix, f.more)
	}
	k.proxy(k.name+"dns", noSuchHost)
	k.run(func() {
		var all sync.WaitGroup
		for _, f := range append(failures, failure{suffix: "dns", status: []int{502, 503, 504}}) {
			if up := ups[f.suffix]; up != nil {
				if f.before != nil {
					f.before(up)
				}
				up.AddImage(app, "latest", 1200, 100)
				f.fail(up)
			}
			all.Go(func() {
				for _, ref := range []string{"latest", digestOf([]byte("what is not here"))} {
					s, err := askOf(k.client, "GET", k.pathOf(k.name+f.suffix+"/"+app, "manifests", ref), nil)
					ok := false
					for _, status := range f.status {
						ok = ok || s.status == status
					}
					if err != nil || !ok {
						k.t.Errorf("%s, %s: %d, want one of %v: %v %.200q", f.suffix, ref, s.status, f.status, err, s.body)
					}
					if after, err := strconv.Atoi(s.header.Get("Retry-After")); f.suffix == "429" && (err != nil || after < 500 || after > 600) {
						k.t.Errorf("Retry-After %q, the upstream said 600", s.header.Get("Retry-After"))
					}
				}
			})
		}
		all.Wait()
	})
}

// 13: a manifest that is here is served by its digest without the upstream.
func digestOffline(k *cacheCheck) {
	up := k.upstream(ofNow())
	k.run(func() {
		image := up.AddImage(app, "", 1300, 100)
		index := up.AddIndex(app, "latest", image)
		k.get(k.path("manifests", "latest")).manifest(index)
		k.get(k.path("manifests", image.Digest)).manifest(image)
		up.Forget()
		for range 4 {
			tooOld()
			k.get(k.path("manifests", index.Digest)).manifest(index).cache("hit")
			k.head(k.path("manifests", image.Digest)).is(200)
		}
		k.unasked(up)
		up.Stop()
		for range 2 {
			k.get(k.path("manifests", index.Digest)).manifest(index)
			k.get(k.path("manifests", image.Digest)).manifest(image)
		}
	})
}

// 14: of an index with many platforms only what is asked for comes, and the
// index stays what it is.
func sparseIndex(k *cacheCheck) {
	up := k.upstream(ofNow())
	var index upstreamtest.Image
	var images []upstreamtest.Image
	k.run(func() {
		for i := range 5 {
			images = append(images, up.AddImage(app, "", uint64(1400+i), 1000, 2000))
		}
		index = up.AddIndex(app, "latest", images...)
		k.get(k.path("manifests", "latest")).manifest(index)
		k.repo().same(images[1].Digest, images[1].Digest)
		k.asked(up, 2, upstreamtest.Manifest, "GET")
		k.asked(up, len(images[1].Blobs), upstreamtest.Blob, "GET")
		for _, q := range up.Requests() {
			if q.Kind == upstreamtest.Manifest && strings.HasPrefix(q.Ref, "sha256:") && q.Ref != images[1].Digest && q.Ref != index.Digest {
				k.t.Errorf("the upstream was asked for a child that nobody wants: %s", q.Ref)
			}
		}
	})
	k.again(func() {
		up.Stop()
		for range 2 {
			k.get(k.path("manifests", "latest")).manifest(index)
			k.get(k.path("manifests", index.Digest)).manifest(index)
		}
		k.repo().same(images[1].Digest, images[1].Digest)
		s := k.get(k.path("manifests", images[2].Digest)) // it never came, and the upstream is gone
		if s.status != 502 && s.status != 503 && s.status != 504 {
			k.t.Errorf("%s: %d", s.asked, s.status)
		}
	})
}

// 15: that a tag is missing is believed for a while.
func absence(k *cacheCheck) {
	up := k.upstream(ofNow())
	k.run(func() {
		up.AddImage(app, "there", 1500, 100)
		for range 4 {
			k.get(k.path("manifests", "missing")).fails(404, "MANIFEST_UNKNOWN")
			k.head(k.path("manifests", "missing")).is(404)
		}
		if n := len(up.Requests()); n != 1 {
			k.t.Errorf("the upstream was asked %d times:\n%s", n, up.Asked())
		}
		k.get(k.path("manifests", "there")).is(200)
	})
}

// 16: the upstream deletes a tag: it stays, or goes, as the proxy says. By its
// digest the image is here either way.
func deletedUpstream(k *cacheCheck) {
	keep, follow := k.upstream(ofNow()), k.another("follow", spec{"tags": spec{"ttl": "1ms", "on_upstream_delete": "follow"}})
	k.run(func() {
		for suffix, up := range map[string]*upstreamtest.Registry{"": keep, "follow": follow} {
			repo := k.name + suffix + "/" + app
			image := up.AddImage(app, "latest", 1600, 100)
			k.get(k.pathOf(repo, "manifests", "latest")).manifest(image)
			up.Remove(app, image.Digest)
			for range 3 {
				tooOld()
				s := k.get(k.pathOf(repo, "manifests", "latest"))
				if suffix == "" {
					s.manifest(image)
				} else {
					s.fails(404, "MANIFEST_UNKNOWN")
				}
				k.get(k.pathOf(repo, "manifests", image.Digest)).manifest(image)
			}
		}
		// A tag that the upstream has again is here again.
		image := follow.AddImage(app, "back", 1601, 100)
		k.get(k.pathOf(k.name+"follow/"+app, "manifests", "back")).manifest(image)
		follow.Untag(app, "back")
		tooOld()
		k.get(k.pathOf(k.name+"follow/"+app, "manifests", "back")).is(404)
	})
}

// 33: what is no manifest is never taken for one: not served, not kept, not
// believed to be news of a tag.
func nonsense(k *cacheCheck) {
	kinds := map[string]upstreamtest.Behaviour{
		"html":     upstreamtest.HTML(200),
		"signin":   upstreamtest.Answer(203, "text/html", []byte("<html>")),
		"gzip":     upstreamtest.Gzip(),
		"short":    upstreamtest.Short(20),
		"oversize": upstreamtest.Oversize(5 << 20),
		"type":     upstreamtest.Headers("Content-Type", "text/html"),
		"wrong":    upstreamtest.Corrupt(),
		"cut":      upstreamtest.Truncate(30),
		"digest":   upstreamtest.Headers("Docker-Content-Digest", digestOf([]byte("another"))),
		"empty":    upstreamtest.Answer(200, upstreamtest.ImageManifest, nil),
		"loop":     upstreamtest.Headers("X-Nothing", "1"), // replaced below
	}
	ups := map[string]*upstreamtest.Registry{}
	for kind := range kinds {
		ups[kind] = k.another(kind, ofNow())
	}
	kinds["loop"] = func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
	}
	k.run(func() {
		for kind, do := range kinds {
			up, repo := ups[kind], k.name+kind+"/"+app
			old := up.AddImage(app, "latest", 3300, 100)
			k.get(k.pathOf(repo, "manifests", "latest")).manifest(old)
			new := up.AddImage(app, "latest", 3301, 100)
			up.AddImage(app, "cold", 3302, 100)
			failing(do)(up)
			tooOld()
			for range 2 {
				s := k.get(k.pathOf(repo, "manifests", "latest"))
				// A wrong type alone can be put right: the manifest says what it is.
				if string(s.body) == string(new.Content) && (kind == "type" || kind == "gzip") {
					s.manifest(new)
				} else {
					s.manifest(old)
				}
				s = k.get(k.pathOf(repo, "manifests", "cold"))
				if s.status == 200 && kind != "type" && kind != "gzip" || s.status == 404 || s.status == 500 {
					k.t.Errorf("%s, cold: %d %.100q", kind, s.status, s.body)
				}
			}
			up.Behave()
			k.get(k.pathOf(repo, "manifests", new.Digest)).manifest(new)
		}
	})
}

// 34: when an upstream says that it allows few requests more, tags are asked for
// more seldom.
func allowance(k *cacheCheck) {
	up := k.upstream(spec{"tags": spec{"ttl": "10s"}, "limits": spec{"reserve": 20}})
	k.run(func() {
		image := up.AddImage(app, "latest", 3400, 100)
		up.On(upstreamtest.Rule{Kind: upstreamtest.Manifest, Do: upstreamtest.RateLimit(100, 2)})
		for range 2 {
			k.get(k.path("manifests", "latest")).manifest(image)
		}
		if _, err := k.c.rows.Exec("UPDATE proxy_tags SET checked_at = checked_at - 15000 WHERE repository = $1", k.name+"/"+app); err != nil {
			k.t.Fatal(err)
		}
		first := k.c.at(0) // the process that heard it
		up.Forget()
		for range 5 {
			if s, err := askOf(first, "GET", k.path("manifests", "latest"), nil); err != nil || s.status != 200 {
				k.t.Fatalf("%d %v", s.status, err)
			}
		}
		k.unasked(up)
	})
}

// 35: manifests without the headers that describe them, as some registries send
// them, for HEAD and for GET.
func bareManifests(k *cacheCheck) {
	up := k.upstream(ofNow())
	k.run(func() {
		up.On(upstreamtest.Rule{Kind: upstreamtest.Manifest, Do: upstreamtest.Headers("Docker-Content-Digest", "")})
		image := up.AddImage(app, "latest", 3500, 1000)
		for range 2 {
			k.get(k.path("manifests", "latest")).manifest(image)
			tooOld()
		}
		moved := up.AddImage(app, "latest", 3501, 1000)
		s := k.head(k.path("manifests", "latest")).is(200)
		equal(k.t, "Docker-Content-Digest", s.header.Get("Docker-Content-Digest"), moved.Digest)
		k.repo().same("latest", moved.Digest)
	})
}
