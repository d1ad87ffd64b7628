package test

import (
	"strings"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// berth runs a command of the administrator.
func (k *cacheCheck) berth(input string, args ...string) string {
	k.t.Helper()
	cmd := berth(args...)
	cmd.Env = append(cmd.Env, "BERTH_SERVER="+k.c.entry, "BERTH_KEY="+k.c.key, "HOME="+k.t.TempDir())
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatalf("berth %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// 36: addresses of this machine and of private networks are not dialled unless
// they are named, whoever leads there.
func forbiddenAddresses(k *cacheCheck) {
	up := k.upstream(spec{"networks": []string{}})
	redirects := k.another("redirects", spec{"networks": []string{"127.0.0.1"}})
	storage := k.host("127.0.0.2", redirects.Storage())
	named := k.another("named", spec{"networks": []string{"127.0.0.1", "127.0.0.2"}})
	namedStorage := k.host("127.0.0.2", named.Storage())
	k.run(func() {
		up.AddImage(app, "1", 3600, 100)
		for range 2 {
			s := k.get(k.path("manifests", "1")).is(502)
			if !strings.Contains(string(s.body), "not public") {
				k.t.Errorf("it does not say why: %s", s.body)
			}
		}
		k.unasked(up)
		for suffix, u := range map[string]*upstreamtest.Registry{"redirects": redirects, "named": named} {
			image := u.AddImage(app, "1", 3600, 100_000)
			to := storage
			if u == named {
				to = namedStorage
			}
			u.On(upstreamtest.Rule{Kind: upstreamtest.Blob, Do: upstreamtest.Redirect(307, to.URL())})
			s := k.get(k.pathOf(k.name+suffix+"/"+app, "blobs", image.Blobs[0].Digest))
			if u == named {
				s.is(200)
			} else if s.status < 500 {
				k.t.Errorf("%s: %d", s.asked, s.status)
			}
		}
		if n := len(storage.Requests()); n != 0 {
			k.t.Errorf("an address was dialled that nobody named:\n%s", storage.Asked())
		}
	})
}

// 37: of several addresses of an upstream the first that answers is used.
func mirrors(k *cacheCheck) {
	first, second := upstreamtest.New(k.t), upstreamtest.New(k.t)
	k.hosts = append(k.hosts, first.Host, second.Host)
	k.proxy(k.name, ofNow(), spec{"upstreams": []string{first.URL(), second.URL()}})
	k.run(func() {
		var image upstreamtest.Image
		for _, u := range []*upstreamtest.Registry{first, second} {
			image = u.AddImage(app, "1", 3700, 1000)
		}
		k.repo().same("1", image.Digest)
		k.unasked(second)
		later := second.AddImage(app, "later", 3701, 1000) // the mirror lags behind
		k.repo().same("later", later.Digest)
		first.Stop()
		other := second.AddImage(app, "2", 3702, 1000)
		for range 2 {
			k.repo().same("2", other.Digest)
		}
		tooOld()
		k.get(k.path("manifests", "1")).manifest(image).cache("fwd-status=200")
	})
}

// 38: what is cached is for who may read the proxy's project. For others it is as
// if it was not there.
func rights(k *cacheCheck) {
	up := k.upstream()
	k.run(func() {
		image := up.AddImage(app, "1", 3800, 1000)
		k.repo().same("1", image.Digest)
		as := func(name string) *api {
			k.berth("password/of:"+name, "user", "create", name, "--password-stdin")
			a := newAPI(k.c.entry)
			a.http.Transport = authorized{basicHeader(name, "password/of:"+name), a.host()}
			return a
		}
		reader, stranger := as(k.name+"-reader"), as(k.name+"-stranger")
		k.berth("", "member", "add", k.name, k.name+"-reader", "--role", "reader")
		ask := func(a *api, path string) said {
			k.t.Helper()
			s, err := askOf(a, "GET", path, nil)
			if err != nil {
				k.t.Fatal(err)
			}
			s.t = k.t
			return s
		}
		for _, path := range []string{k.path("manifests", "1"), k.path("manifests", image.Digest), k.path("blobs", image.Blobs[0].Digest),
			k.path("referrers", image.Digest), "/v2/" + k.name + "/" + app + "/tags/list"} {
			ask(reader, path).is(200)
			if strings.Contains(path, "/referrers/") { // a client would take 404 for a registry without them
				if s := ask(stranger, path).is(200); !strings.Contains(string(s.body), `"manifests":[]`) {
					k.t.Errorf("%s by a stranger: %s", path, s.body)
				}
			} else {
				ask(stranger, path).fails(404, "NAME_UNKNOWN")
			}
			ask(newAPI(k.c.entry), path).is(401)
		}
		up.Forget()
		ask(stranger, k.path("manifests", "never-asked")).fails(404, "NAME_UNKNOWN")
		k.unasked(up) // a stranger makes nothing happen
	})
}

// 41: what the project's quota has no room for is passed through.
func fullQuota(k *cacheCheck) {
	up := k.upstream(fresh())
	k.run(func() {
		small, large := up.AddImage(app, "small", 4100, 1000), up.AddImage(app, "large", 4101, 4<<20)
		k.repo().same("small", small.Digest)
		k.berth("", "plan", "create", k.name, "--storage", "1MiB")
		k.berth("", "project", "set", k.name, "--plan", k.name)
		time.Sleep(1100 * time.Millisecond) // until all replicas have noticed
		for range 2 {
			k.repo().same("large", large.Digest)
		}
		for end := time.Now().Add(patienceOfTest); ; time.Sleep(100 * time.Millisecond) { // a fetch may still be under way
			up.Forget()
			k.repo().same("large", large.Digest)
			if up.Count(upstreamtest.Blob, "GET") > 0 {
				break
			}
			if time.Now().After(end) {
				k.t.Fatal("the large layer is here: the quota was not full, and nothing was tested")
			}
		}
		k.repo().same("small", small.Digest)
		var used int64
		err := k.c.rows.QueryRow("SELECT u.storage FROM projects p JOIN project_usage u ON u.project_id = p.id WHERE p.name = $1", k.name).Scan(&used)
		if err != nil || used > 1<<20 {
			k.t.Errorf("%d bytes are kept: %v", used, err)
		}
	})
}
