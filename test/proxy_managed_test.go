package test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// managedNetwork is what the configuration lets all proxies dial: one that is added
// over the API opens no network by itself.
const managedNetwork = "127.9.9.9"

// 39: a proxy that is added while the server runs is there on all replicas, also
// after a restart, shows its secret to nobody, and goes when it is removed.
func managedProxy(k *cacheCheck) {
	up := upstreamtest.NewAt(k.t, managedNetwork)
	k.hosts = append(k.hosts, up.Host)
	name := k.name
	image := map[string]upstreamtest.Image{}
	everywhere := func(status int) {
		k.t.Helper()
		for replica := range k.c.replicas {
			for end := time.Now().Add(patienceOfTest); ; time.Sleep(100 * time.Millisecond) {
				s, err := askOf(k.c.at(replica), "GET", k.path("manifests", image["1"].Digest), nil)
				if err != nil {
					k.t.Fatal(err)
				}
				if s.status == status {
					break
				}
				if time.Now().After(end) {
					k.t.Fatalf("replica %d: %d, want %d: %s", replica, s.status, status, s.body)
				}
			}
		}
	}
	k.run(func() {
		up.SetAuth(upstreamtest.Auth{User: "puller", Secret: "of-the-upstream"})
		image["1"], image["2"] = up.AddImage(app, "1", 3900, 1000), up.AddImage(app, "2", 3901, 1000)
		signature := up.AddReferrer(app, image["2"].Descriptor, "a/b", nil)
		everywhere(404)
		k.berth("of-the-upstream", "proxy", "add", name, "--upstream", up.URL(), "--username", "puller", "--password-stdin")
		everywhere(200)
		for _, args := range [][]string{{"proxy", "ls"}, {"proxy", "show", name}, {"proxy", "stats", name}} {
			out := k.berth("", append(args, "--json")...)
			if args[1] != "stats" && !strings.Contains(out, name) || strings.Contains(out, "of-the-upstream") || !json.Valid([]byte(out)) {
				k.t.Errorf("berth %v: %s", args, out)
			}
		}
		if out := k.berth("", "proxy", "test", name+"/"+app+":1"); !strings.Contains(out, "manifest") {
			k.t.Errorf("berth proxy test: %s", out)
		}

		k.berth("", "proxy", "prefetch", name+"/"+app+":2")
		up.Forget()
		k.repo().same("2", image["2"].Digest)
		k.get(k.path("manifests", signature.Digest)).manifest(signature)
		k.unasked(up)

		moved := up.AddImage(app, "2", 3902, 1000)
		k.repo().same("2", image["2"].Digest) // within its minute
		k.berth("", "proxy", "refresh", name+"/"+app+":2")
		k.repo().same("2", moved.Digest)

		k.berth("", "proxy", "purge", name+"/"+app+":2")
		up.Forget()
		k.repo().same("2", moved.Digest)
		k.asked(up, 1, upstreamtest.Manifest, "GET")
	})
	k.again(func() {
		everywhere(200)
		k.repo().same("2", up.AddImage(app, "2", 3902, 1000).Digest)
		k.berth("", "proxy", "rm", name)
		up.Forget()
		for range 2 * k.c.replicas {
			s := k.get(k.path("manifests", "never-asked"))
			if s.status == 200 {
				k.t.Errorf("%s: %d", s.asked, s.status)
			}
		}
		time.Sleep(1500 * time.Millisecond) // until all have noticed
		up.Forget()
		for range 2 * k.c.replicas {
			if s := k.get(k.path("manifests", "never-asked-either")); s.status != 404 {
				k.t.Errorf("%s: %d", s.asked, s.status)
			}
		}
		k.unasked(up)
	})
}

// 40: one name over what was pushed here and over a cache.
func virtualProject(k *cacheCheck) {
	up := k.upstream(fresh())
	k.run(func() {
		k.berth("", "project", "create", k.name+"-own")
		theirs := up.AddImage(app, "1", 4000, 1000)
		up.AddImage("team/both", "1", 4001, 1000)
		virtual := func(name string) *repo { return &repo{k.t, k.client, k.name + "-all/" + name} }
		virtual(app).same("1", theirs.Digest)
		ours := virtual("team/both").pushImage("1", 4002)
		for range 2 {
			virtual("team/both").same("1", ours.Digest)
			(&repo{k.t, k.client, k.name + "-own/team/both"}).same("1", ours.Digest)
			virtual(app).same("1", theirs.Digest)
		}
		if _, err := k.client.send("GET", k.pathOf(k.name+"-all/team/nothing", "manifests", "1"), nil, nil, 404); err != nil {
			k.t.Error(err)
		}
		signature := up.AddReferrer(app, theirs.Descriptor, "a/b", nil)
		got, _ := k.referrers(k.name+"-all/"+app, theirs.Digest, "")
		k.wantReferrers(got, signature)
	})
}
