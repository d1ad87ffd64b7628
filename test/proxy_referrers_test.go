package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// shortReferrers has a list of referrers too old at once.
func shortReferrers() spec { return spec{"referrers": spec{"ttl": "1ms"}} }

// listed is an index of referrers.
type listed struct {
	Manifests []upstreamtest.Descriptor
}

// referrers asks for those of a subject, and wants an index. It follows links,
// which must stay with the path that was asked for.
func (k *cacheCheck) referrers(repo, subject, query string) (all []upstreamtest.Descriptor, last said) {
	k.t.Helper()
	path := "/v2/" + repo + "/referrers/" + subject
	next := path + query
	for range 100 {
		s := k.get(next).is(200)
		equal(k.t, "Content-Type of "+s.asked, s.header.Get("Content-Type"), upstreamtest.ImageIndex)
		var page listed
		if err := json.Unmarshal(s.body, &page); err != nil || page.Manifests == nil {
			k.t.Fatalf("%s: %v: %s", s.asked, err, s.body)
		}
		all, last = append(all, page.Manifests...), s
		link := s.header.Get("Link")
		if link == "" {
			return all, last
		}
		target, ok := strings.CutPrefix(link, "<")
		target, _, ok2 := strings.Cut(target, ">")
		if !ok || !ok2 || !strings.HasPrefix(target, path+"?") {
			k.t.Fatalf("%s: Link %s", s.asked, link)
		}
		next = target
	}
	k.t.Fatalf("%s has more than 100 pages", path)
	return nil, last
}

// wantReferrers wants exactly these, each described as its manifest is.
func (k *cacheCheck) wantReferrers(got []upstreamtest.Descriptor, want ...upstreamtest.Image) {
	k.t.Helper()
	byDigest := map[string]upstreamtest.Descriptor{}
	for _, d := range got {
		if _, twice := byDigest[d.Digest]; twice {
			k.t.Errorf("%s is listed twice", d.Digest)
		}
		byDigest[d.Digest] = d
	}
	for _, w := range want {
		d, ok := byDigest[w.Digest]
		if !ok {
			k.t.Errorf("%s of type %s is missing", w.Digest, w.ArtifactType)
			continue
		}
		if d.MediaType != w.MediaType || d.Size != w.Size || d.ArtifactType != w.ArtifactType || !maps.Equal(d.Annotations, w.Annotations) {
			k.t.Errorf("listed as %+v, it is %+v", d, w.Descriptor)
		}
	}
	if len(got) != len(want) {
		k.t.Errorf("%d referrers, want %d: %+v", len(got), len(want), got)
	}
}

// attach pushes a referrer into the cache, as a client does that signs there.
func (k *cacheCheck) attach(repo string, subject upstreamtest.Descriptor, artifactType string, annotations map[string]string) upstreamtest.Image {
	k.t.Helper()
	content, _ := upstreamtest.Referrer(subject, artifactType, annotations)
	if _, err := k.client.pushBlob(repo, []byte("{}")); err != nil {
		k.t.Fatal(err)
	}
	s := k.ask("PUT", "/v2/"+repo+"/manifests/"+digestOf(content), content, "Content-Type", upstreamtest.ImageManifest).is(201)
	equal(k.t, "OCI-Subject", s.header.Get("OCI-Subject"), subject.Digest)
	return upstreamtest.Image{Content: content, Descriptor: upstreamtest.Descriptor{MediaType: upstreamtest.ImageManifest,
		Digest: digestOf(content), Size: int64(len(content)), ArtifactType: artifactType, Annotations: annotations}}
}

// 21: the pages of the upstream and what was pushed here are one list, each
// referrer once.
func mergedReferrers(k *cacheCheck) {
	up := k.upstream(fresh())
	absolute := k.another("absolute")
	elsewhere := k.another("elsewhere")
	thief := k.host("127.0.0.3", http.NotFoundHandler())
	k.run(func() {
		up.SetReferrers(upstreamtest.ReferrersAPI{PageSize: 3})
		image := up.AddImage(app, "1", 2100, 100)
		var all []upstreamtest.Image
		for i := range 8 {
			all = append(all, up.AddReferrer(app, image.Descriptor, fmt.Sprint("application/x.", i%3), map[string]string{"n": fmt.Sprint(i)}))
		}
		repo := k.name + "/" + app
		k.get(k.path("manifests", "1")).manifest(image)
		all = append(all, k.attach(repo, image.Descriptor, "application/x.local", map[string]string{"made": "here"}))
		k.attach(repo, image.Descriptor, all[2].ArtifactType, all[2].Annotations) // the very same as one of the upstream's
		got, _ := k.referrers(repo, image.Digest, "")
		k.wantReferrers(got, all...)
		k.asked(up, 3, upstreamtest.Referrers)
		if !slices.IsSortedFunc(got, func(a, b upstreamtest.Descriptor) int { return strings.Compare(a.Digest, b.Digest) }) {
			k.t.Error("the list has no order that pages could rely on")
		}
		for _, query := range []string{"?n=1", "?n=2", "?n=4", "?n=100"} {
			got, _ := k.referrers(repo, image.Digest, query)
			k.wantReferrers(got, all...)
		}
		of1, last := k.referrers(repo, image.Digest, "?n=2&artifactType=application/x.1")
		k.wantReferrers(of1, all[1], all[4], all[7])
		equal(k.t, "OCI-Filters-Applied", last.header.Get("OCI-Filters-Applied"), "artifactType")
		for _, r := range all {
			k.get(k.pathOf(repo, "manifests", r.Digest)).manifest(upstreamtest.Image{Descriptor: r.Descriptor, Content: r.Content})
		}
		k.asked(up, 3, upstreamtest.Referrers)

		// Links with scheme and host are followed; links that lead elsewhere are not.
		absolute.SetReferrers(upstreamtest.ReferrersAPI{PageSize: 2, Absolute: true})
		elsewhere.SetReferrers(upstreamtest.ReferrersAPI{PageSize: 2, LinkTo: thief.URL()})
		for suffix, u := range map[string]*upstreamtest.Registry{"absolute": absolute, "elsewhere": elsewhere} {
			image := u.AddImage(app, "1", 2100, 100)
			var all []upstreamtest.Image
			for i := range 5 {
				all = append(all, u.AddReferrer(app, image.Descriptor, "a/b", map[string]string{"n": fmt.Sprint(i)}))
			}
			if suffix == "absolute" {
				got, _ := k.referrers(k.name+suffix+"/"+app, image.Digest, "")
				k.wantReferrers(got, all...)
			} else if s := k.get(k.pathOf(k.name+suffix+"/"+app, "referrers", image.Digest)); s.status == 200 {
				k.t.Errorf("a list that goes on elsewhere was taken for whole: %s", s.body)
			}
		}
		if n := len(thief.Requests()); n != 0 {
			k.t.Errorf("a link elsewhere was followed:\n%s", thief.Asked())
		}
	})
}

// 22: an upstream that ignores the filter is filtered here.
func filteredReferrers(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		up.SetReferrers(upstreamtest.ReferrersAPI{IgnoreFilter: true, PageSize: 1})
		image := up.AddImage(app, "1", 2200, 100)
		up.AddReferrer(app, image.Descriptor, "c/d", nil)
		want := up.AddReferrer(app, image.Descriptor, "a/b", nil)
		local := k.attach(k.name+"/"+app, image.Descriptor, "a/b", map[string]string{"made": "here"})
		k.attach(k.name+"/"+app, image.Descriptor, "e/f", nil)
		for range 2 {
			got, last := k.referrers(k.name+"/"+app, image.Digest, "?artifactType=a/b")
			k.wantReferrers(got, want, local)
			equal(k.t, "OCI-Filters-Applied", last.header.Get("OCI-Filters-Applied"), "artifactType")
		}
		got, last := k.referrers(k.name+"/"+app, image.Digest, "?artifactType=none")
		k.wantReferrers(got)
		equal(k.t, "OCI-Filters-Applied", last.header.Get("OCI-Filters-Applied"), "artifactType")
		_, last = k.referrers(k.name+"/"+app, image.Digest, "")
		equal(k.t, "OCI-Filters-Applied", last.header.Get("OCI-Filters-Applied"), "")
	})
}

// 23: the upstream has no referrers API, but an index under the tag for them that
// says little. What is listed is what the manifests say; what is in the index and
// is no referrer is not listed. That there is no API is remembered.
func referrersByTag(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		up.SetReferrers(upstreamtest.ReferrersAPI{Absent: true})
		image, second := up.AddImage(app, "1", 2300, 100), up.AddImage(app, "2", 2301, 100)
		add := func(to upstreamtest.Image, n int) (all []upstreamtest.Image) {
			for i := range n {
				all = append(all, up.AddReferrer(app, to.Descriptor, fmt.Sprint("application/x.", i), map[string]string{"n": fmt.Sprint(i)}))
			}
			return all
		}
		// A config whose type stands for that of the artifact, as helm and older
		// clients have it.
		config := up.AddBlob(app, "application/vnd.old.config.v1+json", []byte(`{"old":true}`))
		older := up.AddManifest(app, upstreamtest.ImageManifest, asJSON(map[string]any{
			"schemaVersion": 2, "mediaType": upstreamtest.ImageManifest, "config": config, "layers": []any{}, "subject": image.Descriptor,
		}))
		older.ArtifactType = config.MediaType
		first := append(add(image, 3), older)
		lying := first[0]
		lying.Size, lying.Annotations = lying.Size+100, map[string]string{"it": "lies"}
		foreign := up.AddReferrer(app, second.Descriptor, "of/another", nil)
		up.AddFallback(app, image.Digest, true, append(first[1:len(first):len(first)], lying, foreign)...)
		others := append(add(second, 2), foreign)
		up.AddFallback(app, second.Digest, false, others...)

		got, _ := k.referrers(k.name+"/"+app, image.Digest, "")
		k.wantReferrers(got, first...)
		got, last := k.referrers(k.name+"/"+app, image.Digest, "?artifactType=application/x.1")
		k.wantReferrers(got, first[1])
		equal(k.t, "OCI-Filters-Applied", last.header.Get("OCI-Filters-Applied"), "artifactType")
		got, _ = k.referrers(k.name+"/"+app, second.Digest, "")
		k.wantReferrers(got, others...)
		third := up.AddImage(app, "3", 2302, 100)
		for range 2 {
			got, _ = k.referrers(k.name+"/"+app, third.Digest, "")
			k.wantReferrers(got)
		}
		// Each process finds it out for itself.
		if n := up.Count(upstreamtest.Referrers); n == 0 || n > k.c.replicas {
			k.t.Errorf("the API was tried %d times:\n%s", n, up.Asked())
		}
	})
}

// 24: an upstream that knows nothing of referrers, in each of the ways to say so,
// has none: the list is empty, or what was pushed here.
func noReferrers(k *cacheCheck) {
	foreign := k.host("127.0.0.2", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(404)
		w.Write([]byte("<!DOCTYPE html><title>Page not found</title>"))
	}))
	rules := map[string]upstreamtest.Behaviour{
		"404":   upstreamtest.Answer(404, "text/plain", []byte("404 page not found\n")),
		"empty": nil, // the API answers, with nothing
		"303":   upstreamtest.Redirect(303, foreign.URL()+"/not-found"),
		"html":  upstreamtest.HTML(200),
		"405":   upstreamtest.Status(405),
	}
	ups := map[string]*upstreamtest.Registry{}
	for name := range rules {
		ups[name] = k.another(name)
	}
	k.run(func() {
		for name, do := range rules {
			up, repo := ups[name], k.name+name+"/"+app
			if do != nil {
				up.On(upstreamtest.Rule{Kind: upstreamtest.Referrers, Do: do})
			}
			image := up.AddImage(app, "1", 2400, 100)
			for range 2 {
				if s := k.get(k.pathOf(repo, "referrers", image.Digest)); s.status != 200 {
					k.t.Errorf("%s: %s: %d %s", name, s.asked, s.status, s.body)
				}
				got, _ := k.referrers(repo, image.Digest, "")
				k.wantReferrers(got)
			}
			local := k.attach(repo, image.Descriptor, "a/b", nil)
			got, _ := k.referrers(repo, image.Digest, "")
			k.wantReferrers(got, local)
		}
	})
}

// 25: the upstream is gone. What it last listed is served with what was pushed
// here since. Where nothing is known the answer is no list: a short one would say
// that there is no signature.
func referrersOffline(k *cacheCheck) {
	up, local := k.upstream(shortReferrers()), k.another("local", spec{"referrers": spec{"unknown": "local"}})
	fails := k.another("fails")
	k.run(func() {
		warm, cold := up.AddImage(app, "warm", 2500, 100), up.AddImage(app, "cold", 2501, 100)
		signature := up.AddReferrer(app, warm.Descriptor, "a/b", nil)
		repo := k.name + "/" + app
		k.get(k.path("manifests", "warm")).manifest(warm)
		got, _ := k.referrers(repo, warm.Digest, "")
		k.wantReferrers(got, signature)
		up.Stop()
		tooOld()
		added := k.attach(repo, warm.Descriptor, "a/b", map[string]string{"made": "here"})
		for range 2 {
			tooOld()
			got, last := k.referrers(repo, warm.Digest, "")
			k.wantReferrers(got, signature, added)
			last.cache("fwd=stale")
		}
		k.attach(repo, cold.Descriptor, "a/b", nil)
		for range 2 {
			s := k.get(k.pathOf(repo, "referrers", cold.Digest)).is(503)
			if s.header.Get("Retry-After") == "" {
				k.t.Error("503 without Retry-After")
			}
		}

		local.Stop()
		mine := k.attach(k.name+"local/"+app, cold.Descriptor, "a/b", nil)
		got, _ = k.referrers(k.name+"local/"+app, cold.Digest, "")
		k.wantReferrers(got, mine)

		// Errors of the API are no reason to believe the tag, nor that there is none.
		fails.AddImage(app, "cold", 2501, 100)
		for _, do := range []upstreamtest.Behaviour{upstreamtest.Status(500), upstreamtest.Truncate(10)} {
			fails.On(upstreamtest.Rule{Kind: upstreamtest.Referrers, Do: do})
			if s := k.get(k.pathOf(k.name+"fails/"+app, "referrers", cold.Digest)); s.status != 503 && s.status != 502 {
				k.t.Errorf("%s: %d %s", s.asked, s.status, s.body)
			}
		}
	})
}

// 26
func badSubject(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		for _, subject := range []string{"notadigest", "sha256:abc", "latest"} {
			k.get(k.path("referrers", subject)).is(400)
		}
		k.unasked(up)
	})
}

// 27: a referrer that is pushed here, of a subject that is not, is listed at once,
// although the upstream's list is fresh.
func localReferrer(k *cacheCheck) {
	up := k.upstream(spec{"referrers": spec{"ttl": "1h"}})
	refused := k.another("refused", spec{"referrers": spec{"push": false}})
	k.run(func() {
		image := up.AddImage(app, "1", 2700, 100)
		signature := up.AddReferrer(app, image.Descriptor, "a/b", nil)
		repo := k.name + "/" + app
		want := []upstreamtest.Image{signature}
		for i := range 4 { // pushed at one replica, listed at the other
			got, _ := k.referrers(repo, image.Digest, "")
			k.wantReferrers(got, want...)
			want = append(want, k.attach(repo, image.Descriptor, "a/local", map[string]string{"n": fmt.Sprint(i)}))
			got, _ = k.referrers(repo, image.Digest, "")
			k.wantReferrers(got, want...)
		}
		k.asked(up, 1, upstreamtest.Referrers)
		for _, r := range want {
			k.get(k.pathOf(repo, "manifests", r.Digest)).gives(r.Content)
		}
		// It can be taken away again; what is the upstream's cannot.
		k.ask("DELETE", k.pathOf(repo, "manifests", want[1].Digest), nil).is(202)
		got, _ := k.referrers(repo, image.Digest, "")
		k.wantReferrers(got, append(want[:1:1], want[2:]...)...)

		// Nothing else is pushed here, and nothing at all where that is forbidden.
		s := k.ask("PUT", k.path("manifests", "mine"), image.Content, "Content-Type", upstreamtest.ImageManifest)
		if s.status < 400 || s.status >= 500 {
			k.t.Errorf("%s of what has no subject: %d %s", s.asked, s.status, s.body)
		}
		refused.AddImage(app, "1", 2700, 100)
		content, _ := upstreamtest.Referrer(image.Descriptor, "a/b", nil)
		s = k.ask("PUT", k.pathOf(k.name+"refused/"+app, "manifests", digestOf(content)), content, "Content-Type", upstreamtest.ImageManifest)
		if s.status < 400 || s.status >= 500 {
			k.t.Errorf("%s where pushes are refused: %d %s", s.asked, s.status, s.body)
		}
	})
}

// 28: whatever stands in the query, there is one list to be kept.
func oneEntry(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		image := up.AddImage(app, "1", 2800, 100)
		signature := up.AddReferrer(app, image.Descriptor, "a/b", nil)
		got, _ := k.referrers(k.name+"/"+app, image.Digest, "")
		k.wantReferrers(got, signature)
		var all sync.WaitGroup
		for part := range 8 {
			all.Go(func() {
				for i := range 10_000 / 8 {
					path := k.path("referrers", image.Digest) + fmt.Sprint("?x=", part*10_000+i, "&artifactType=a/", i%100)
					if s, err := askOf(k.client, "GET", path, nil); err != nil || s.status != 200 {
						k.t.Errorf("%s: %d %v", path, s.status, err)
						return
					}
				}
			})
		}
		all.Wait()
		k.asked(up, 1, upstreamtest.Referrers)
		var rows int
		err := k.c.rows.QueryRow("SELECT COUNT(*) FROM proxy_referrers WHERE repository LIKE $1", k.name+"/%").Scan(&rows)
		if err != nil {
			k.t.Fatal(err)
		}
		equal(k.t, "entries", rows, 1)
	})
}

// 31: when a subject is deleted here, what was attached to it here goes after the
// time of grace, and its list is empty.
func deletedSubject(k *cacheCheck) {
	up := k.upstream()
	k.again(func() {
		image := up.AddImage(app, "1", 3100, 100)
		repo := k.name + "/" + app
		k.get(k.path("manifests", "1")).manifest(image)
		local := k.attach(repo, image.Descriptor, "a/b", nil)
		got, _ := k.referrers(repo, image.Digest, "")
		k.wantReferrers(got, local)
		time.Sleep(1500 * time.Millisecond) // longer than the grace: with its subject it stays
		k.get(k.pathOf(repo, "manifests", local.Digest)).gives(local.Content)

		up.Remove(app, image.Digest)
		k.ask("DELETE", k.pathOf(repo, "manifests", image.Digest), nil).is(202)
		for end := time.Now().Add(patienceOfTest); ; time.Sleep(500 * time.Millisecond) {
			list, _ := k.referrers(repo, image.Digest, "")
			if len(list) == 0 {
				break
			}
			if time.Now().After(end) {
				k.t.Fatalf("still there: %+v", list)
			}
		}
		k.get(k.pathOf(repo, "manifests", local.Digest)).is(404)
		k.get(k.pathOf(repo, "manifests", image.Digest)).is(404)
	})
}
