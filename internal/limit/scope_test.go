package limit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/clientaddr"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func (w *world) keyOf(id, userID, projectID string) {
	w.Helper()
	var user, project any
	if user = userID; userID == "" {
		user = nil
	}
	if project = projectID; projectID == "" {
		project = nil
	}
	w.exec(`INSERT INTO keys (id, hash, user_id, project_id, name, role, prefixes, addresses, created_at, created_by)
		VALUES ($1, $1, $2, $3, $1, 'reader', '[]', '[]', 0, '')`, id, user, project)
}

// TestScopes: what is counted together, and whose plan says how much.
func TestScopes(t *testing.T) {
	const many = 1000
	requests := func(per access.Scope, n int64) access.Rate { return rate(per, access.Requests, time.Hour, n) }
	robot := auth.Identity{Principal: access.Principal{Kind: access.Robot, ID: "k-robot", Name: "acme/ci", KeyID: "k-robot"}}
	workload := auth.Identity{Principal: access.Principal{Kind: access.Workload, ID: "t-job", Name: "acme/job"}}
	local := auth.Identity{Principal: access.Principal{Kind: access.Local, Address: netip.MustParseAddr("127.0.0.1")}}
	htpasswd := func(name string) auth.Identity {
		return auth.Identity{Principal: access.Principal{Kind: access.User, Name: name}}
	}
	type step struct {
		id   auth.Identity
		repo string
		want int
	}
	for _, c := range []struct {
		name        string
		common, own access.Rate
		setup       func(w *world)
		steps       []step
	}{
		{"address", requests(access.PerAddress, 5), requests(access.PerAddress, 1), nil, []step{
			{from("203.0.113.7"), "acme/app", 5}, {from("203.0.113.8"), "acme/app", 5},
			{user("alice", ""), "other/app", 0}, // the same address
			{from("::ffff:203.0.113.8"), "acme/app", 0},
			{from("2001:db8::1"), "acme/app", 5}, {from("2001:db8:0:0:ffff::1"), "acme/app", 0},
			{from("2001:db8:0:1::1"), "acme/app", 5},
			{user("root", ""), "acme/app", 0}, {local, "acme/app", 5}, // nobody is above the limit of an address
			{auth.Identity{}, "acme/app", 5}, {auth.Identity{}, "acme/app", 0},
		}},
		{"identity", requests(access.PerIdentity, 5), requests(access.PerIdentity, 7), func(w *world) {
			w.exec(`UPDATE projects SET plan_id = 'own' WHERE name = 'acme'`)
		}, []step{
			{user("alice", ""), "acme/app", 5}, {user("alice", "k-alice"), "other/app", 0},
			{robot, "acme/app", 7}, {workload, "acme/app", 7},
			{nobody, "acme/app", many}, {user("root", ""), "acme/app", many}, {local, "acme/app", many},
			{htpasswd("bob"), "acme/app", 5}, {htpasswd("carol"), "acme/app", 5},
		}},
		{"identity of a user's plan", requests(access.PerIdentity, 5), requests(access.PerIdentity, 7), func(w *world) {
			w.exec(`UPDATE users SET plan_id = 'own'`)
		}, []step{{user("alice", ""), "acme/app", 7}, {robot, "acme/app", 5}, {user("root", ""), "acme/app", many}}},
		{"key", requests(access.PerKey, 5), requests(access.PerKey, 7), nil, []step{
			{user("alice", "k-alice"), "acme/app", 5}, {user("alice", "k-alice2"), "acme/app", 5},
			{user("alice", ""), "acme/app", many}, {user("root", "k-root"), "acme/app", many}, {robot, "acme/app", 5},
		}},
		{"project", requests(access.PerProject, 5), requests(access.PerProject, 7), func(w *world) {
			w.exec(`UPDATE projects SET plan_id = 'own' WHERE name = 'other'`)
		}, []step{
			{nobody, "acme/app", 5}, {user("alice", ""), "acme/deep/app", 0}, {user("root", ""), "acme/app", 0},
			{local, "acme", 0}, {robot, "other/app", 7}, {nobody, "none/app", many},
		}},
		{"organization", requests(access.PerOrganization, 5), requests(access.PerOrganization, 7), func(w *world) {
			w.exec(`UPDATE organizations SET plan_id = 'own' WHERE id = 'o'`)
		}, []step{{nobody, "acme/app", 7}, {nobody, "other/app", 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.common)
			w.keyOf("k-robot", "", "p-acme")
			for _, key := range []string{"k-alice", "k-alice2"} {
				w.keyOf(key, "u-alice", "")
			}
			w.keyOf("k-root", "u-root", "")
			w.exec(`INSERT INTO trust_rules (id, project_id, name, issuer, audience, claims, role, prefixes, created_at, created_by)
				VALUES ('t-job', 'p-acme', 'job', '', '', '{}', 'reader', '[]', 0, '')`)
			if c.setup != nil {
				c.setup(w)
			}
			w.setRates("own", c.own)
			l := w.server()
			for i, s := range c.steps {
				w.want(fmt.Sprint("step ", i, " by ", s.id.String(), " for ", s.repo), passing(t, l, s.id, s.repo, many), s.want)
			}
		})
	}
}

// TestRefusalSaysWhy: the words name the limit, and nothing that is secret.
func TestRefusalSaysWhy(t *testing.T) {
	for want, rate := range map[string]access.Rate{
		"2 requests per minute for address 203.0.113.7":              rate(access.PerAddress, access.Requests, time.Minute, 2),
		"2 requests per hour for user:alice":                         rate(access.PerIdentity, access.Requests, time.Hour, 2),
		"2 requests per day for the key of user:alice":               rate(access.PerKey, access.Requests, 24*time.Hour, 2),
		"2 requests per minute for project acme":                     rate(access.PerProject, access.Requests, time.Minute, 2),
		"2 requests per minute for the organization of project acme": rate(access.PerOrganization, access.Requests, time.Minute, 2),
	} {
		w := newWorld(t, rate)
		w.keyOf("k-alice", "u-alice", "")
		l, id := w.server(), user("alice", "k-alice")
		passing(t, l, id, "acme/app", 2)
		e := refusedBy(t, ask(t.Context(), l, id, "acme/app"))
		if e == nil || e.Detail != want || e.Limit.Amount != 2 || e.Limit.Window != rate.Window {
			t.Errorf("refused with %v, want %s", e, want)
		}
	}
}

// TestPlanChanges: a new amount holds at once, also where requests are refused.
func TestPlanChanges(t *testing.T) {
	w := newWorld(t, perProject(5))
	l := w.server()
	w.want("of 5", passing(t, l, nobody, "acme/app", 100), 5)
	w.setRates(access.DefaultPlan, perProject(8))
	w.move(-400 * time.Millisecond) // the refusal is still remembered
	w.want("of 8", passing(t, l, nobody, "acme/app", 100), 3)
	w.setRates(access.DefaultPlan, perProject(2))
	w.want("of 2", passing(t, l, nobody, "acme/app", 100), 0)
	w.setRates(access.DefaultPlan)
	w.want("without a rate", passing(t, l, nobody, "acme/app", 100), 100)
}

// TestOddPlans: rates that count the same count once, and one that nobody can
// have stored does no harm.
func TestOddPlans(t *testing.T) {
	w := newWorld(t, perProject(8), perProject(5), perProject(6), rate(access.PerProject, access.Requests, 0, 1))
	w.want("of the smallest", passing(t, w.server(), nobody, "acme/app", 100), 5)
}

// TestForgedHeaders: a client that is not a trusted proxy stays one client.
func TestForgedHeaders(t *testing.T) {
	w := newWorld(t, rate(access.PerAddress, access.Requests, time.Minute, 5))
	l := w.server()
	h := clientaddr.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}).Handler(
		http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			at := netip.MustParseAddrPort(r.RemoteAddr)
			if refusedBy(t, ask(r.Context(), l, from(at.Addr().String()), "acme/app")) != nil {
				rw.WriteHeader(http.StatusTooManyRequests)
			}
		}))
	send := func(peer, header, value string) int {
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.RemoteAddr = peer + ":4711"
		r.Header.Set(header, value)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code
	}
	var codes []int
	for i := range 6 {
		header := []string{"X-Forwarded-For", "Forwarded"}[i%2]
		forged := fmt.Sprint([]string{"", "for="}[i%2], "198.51.100.", i)
		codes = append(codes, send("203.0.113.7", header, forged))
		if code := send("10.0.0.1", header, forged); code != 200 {
			t.Errorf("another client behind a proxy: %d", code)
		}
		if code, want := send("10.0.0.1", "X-Forwarded-For", forged+", 192.0.2.1"), 200+229*(i/5); code != want {
			t.Errorf("request %d of a client that adds to its proxy's header: %d, want %d", i, code, want)
		}
	}
	if !slices.Equal(codes, []int{200, 200, 200, 200, 200, 429}) {
		t.Errorf("answers to a client that forges headers: %v", codes)
	}
}

// hosted opens a registry over the world's database.
func (w *world) hosted() registry.Registry {
	return hosted.New(w.database(), memblob.New(), hosted.Options{})
}

// guarded is r as one HTTP request of id sees it.
func guarded(l *Limiter, r registry.Registry, id auth.Identity) registry.Registry {
	before, after, bytes := l.For(id)
	return registry.Observe(registry.Guard(r, before, after), bytes)
}

// TestListCountsOnce: however long a list is, it is one request.
func TestListCountsOnce(t *testing.T) {
	const items = 10_000
	w := newWorld(t, perProject(2), rate(access.PerAddress, access.Requests, time.Minute, 2))
	r := w.hosted()
	image := registrytest.PushImage(t, r, "acme/app")
	for begin := 0; begin < items; begin += 1000 {
		var tags []string
		for i := range 1000 {
			tags = append(tags, fmt.Sprintf("v%05d", begin+i))
		}
		registrytest.PushManifest(t, r, "acme/app", image.Manifest, tags...)
	}
	l := w.server()
	for range 2 {
		if n := len(registrytest.Collect(t, guarded(l, r, nobody).Tags(t.Context(), "acme/app", ""))); n != items {
			t.Errorf("%d tags", n)
		}
	}
	for _, err := range guarded(l, r, nobody).Tags(t.Context(), "acme/app", "") {
		registrytest.WantCode(t, "the third list", err, registry.TooManyRequests)
	}
	if used := w.used(); used != 4 {
		t.Errorf("%d are counted, want 2 per project and 2 per address", used)
	}
}

// TestOneRequestCountsOnce: also when many ask at once, and for a mount, which
// concerns two projects.
func TestOneRequestCountsOnce(t *testing.T) {
	w := newWorld(t, perProject(2), rate(access.PerAddress, access.Requests, time.Minute, 2))
	l := w.server()
	before, after, _ := l.For(nobody)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			op := registry.Op{Action: registry.BlobMount, Repo: "acme/app", From: "other/app"}
			if i%2 == 1 {
				op = registry.Op{Action: registry.BlobRead, Repo: []string{"other/app", "", "acme/app"}[i%3]}
			}
			if err := errors.Join(before(t.Context(), op), after(t.Context(), op)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if used := w.used(); used != 2 {
		t.Errorf("%d are counted, want 1 per project and 1 per address", used)
	}
}

// TestCatalogIsNoProjects: a list of all repositories is not counted by project.
func TestCatalogIsNoProjects(t *testing.T) {
	w := newWorld(t, perProject(1))
	l := w.server()
	for range 5 {
		_, after, _ := l.For(nobody)
		for _, repo := range []string{"", "acme/app", "other/app"} {
			if err := after(t.Context(), registry.Op{Action: registry.RepositoriesList, Repo: repo}); err != nil {
				t.Error(err)
			}
		}
	}
	if used := w.used(); used != 0 {
		t.Errorf("%d are counted", used)
	}
}

// TestBytes: what was transferred in both directions is charged, and nothing
// begins once the budget is used up, on any server.
func TestBytes(t *testing.T) {
	const budget = 100_000
	for _, per := range []access.Scope{access.PerAddress, access.PerProject, access.PerOrganization} {
		t.Run(string(per), func(t *testing.T) {
			w := newWorld(t, rate(per, access.Bytes, 24*time.Hour, budget))
			r, first, second := w.hosted(), w.server(), w.server()
			content := registrytest.Random(30_000)
			d := registrytest.PushBlob(t, guarded(first, r, nobody), "acme/app", content).Digest
			first.settle(t.Context())
			for _, l := range []*Limiter{first, second, first} {
				read(t, guarded(l, r, nobody), d, len(content))
				l.settle(t.Context())
			}
			if used := w.used(); used < 4*30_000 || used > 4*30_000+2*budget/200 {
				t.Errorf("%d bytes are counted of %d", used, 4*30_000)
			}
			for _, l := range []*Limiter{first, second} {
				_, err := guarded(l, r, nobody).Blob(t.Context(), "acme/app", d)
				registrytest.WantCode(t, "read on", err, registry.TooManyRequests)
			}
			_, err := guarded(second, r, nobody).StartUpload(t.Context(), "acme/app", registry.UploadOptions{})
			if e := refusedBy(t, err); e == nil || !strings.HasPrefix(e.Detail.(string), "100000 bytes per day for ") {
				t.Errorf("upload: %v", err)
			} else {
				w.move(e.Limit.RetryAfter)
			}
			read(t, guarded(second, r, nobody), d, len(content))
		})
	}
}

// read reads a blob in one HTTP request.
func read(t *testing.T, r registry.Registry, d oci.Digest, size int) {
	t.Helper()
	b, err := r.Blob(t.Context(), "acme/app", d)
	if err != nil {
		t.Fatal(err)
	}
	content, err := b.Open(t.Context(), 0, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	buf := make([]byte, size)
	for n := 0; n < size; {
		m, err := content.Read(buf[n:])
		if n += m; err != nil && n < size {
			t.Fatal(err)
		}
	}
}

// TestRedirectIsCharged: nobody sees what is read, so that all of it counts.
func TestRedirectIsCharged(t *testing.T) {
	w := newWorld(t, rate(access.PerProject, access.Bytes, time.Minute, 1000))
	l := w.server()
	_, after, bytes := l.For(nobody)
	op := registry.Op{Action: registry.BlobRedirect, Repo: "acme/app", Size: 1000}
	bytes(t.Context(), op)(0, errors.New("refused"))
	if err := after(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := bytes(ctx, op)
	cancel() // the client goes as soon as it has the address
	done(0, nil)
	w.want("after a redirect", passing(t, l, nobody, "acme/app", 1), 0)
}
