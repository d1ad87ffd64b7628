package test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// place is a registry that the tests of clients run against.
type place struct {
	*api
	user, secret string // what clients log in with; "": nobody is asked to
}

// onBoth runs the test of a client against one server, where nobody logs in,
// and against a fleet, where everybody must.
func onBoth(t *testing.T, test func(*testing.T, *place)) {
	t.Run("server", func(t *testing.T) { test(t, &place{api: shared.server.api}) })
	t.Run("fleet", func(t *testing.T) { onFleet(t, test) })
}

// everywhere is onBoth, and servers with one of the fleet's engines each.
func everywhere(t *testing.T, test func(*testing.T, *place)) {
	onBoth(t, test)
	t.Run("SQLite and S3", func(t *testing.T) { test(t, &place{api: mixed(t, inBucket(t)...)}) })
	t.Run("PostgreSQL and folder", func(t *testing.T) { test(t, &place{api: mixed(t, inPostgres(t)...)}) })
}

// onFleet wants every request of the test to go to the other replica than the
// one before.
func onFleet(t *testing.T, test func(*testing.T, *place)) {
	f := sharedFleet(t)
	before := f.balanced(t)
	admin := f.through(t)
	test(t, &place{api: admin.root(), user: "admin", secret: admin.admin})
	served := map[string]int{}
	for _, line := range f.balanced(t)[len(before):] {
		served[servedBy(line)]++
	}
	first, second := served["berth-1"], served["berth-2"]
	if len(served) != 2 || max(first, second)-min(first, second) > 1 {
		t.Errorf("the replicas did not take turns: %v", served)
	}
	t.Logf("%d requests to berth-1, %d to berth-2", first, second)
}

// mixed is a server of the test's own with these settings.
func mixed(t *testing.T, settings ...string) *api {
	t.Helper()
	s, err := start(filepath.Join(t.TempDir(), "data"), settings...)
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, s)
	return s.api
}

// inBucket are settings for blobs in a part of the fleet's bucket that is the
// test's alone.
func inBucket(t *testing.T) []string {
	f := sharedFleet(t)
	return []string{
		"BERTH_STORAGE_S3_BUCKET=" + f.env["S3_BUCKET"], "BERTH_STORAGE_S3_ENDPOINT=" + f.env["S3_ENDPOINT"],
		"BERTH_STORAGE_S3_PATH_STYLE=true", "BERTH_STORAGE_S3_PREFIX=" + nameOf(t) + "/", "AWS_REGION=" + f.env["AWS_REGION"],
		"AWS_ACCESS_KEY_ID=" + f.env["AWS_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY=" + f.env["AWS_SECRET_ACCESS_KEY"],
	}
}

// inPostgres are settings for metadata in a database that is the test's alone,
// on the fleet's server.
func inPostgres(t *testing.T) []string {
	t.Helper()
	u, err := url.Parse(sharedFleet(t).env["POSTGRES_URL"])
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("postgres")
	name := nameOf(t)
	if out, err := exec.Command("psql", "-qX", u.String(), "-c", `CREATE DATABASE "`+name+`" OWNER berth`).CombinedOutput(); err != nil {
		t.Fatalf("CREATE DATABASE: %v\n%s", err, out)
	}
	u.User, u.Path = url.User("berth"), "/"+name
	return []string{"BERTH_METADATA_POSTGRES_URL=" + u.String()}
}

// nameOf is the test's name in letters that are good for any name.
func nameOf(t *testing.T) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(t.Name()))
}

// at is the client logged in to a registry, if that asks for it: with the file
// that docker keeps, which nearly all others read too.
func (c *client) at(p *place) *client {
	c.t.Helper()
	if p.user != "" {
		logins := asJSON(map[string]any{"auths": map[string]any{p.host(): map[string]string{
			"auth": base64.StdEncoding.EncodeToString([]byte(p.user + ":" + p.secret)),
		}}})
		c.file("config.json", logins)
		c.file("containers/auth.json", logins) // podman, skopeo and buildah look here first
	}
	return c
}

// ctr is a command of ctr, which keeps no log-in.
func (p *place) ctr(args ...string) []string {
	if p.user != "" {
		args = slices.Insert(args, 2, "-u", fmt.Sprint(p.user, ":", p.secret))
	}
	return args
}

// oras logs a client of the library in.
func (p *place) oras(r *remote.Repository) *remote.Repository {
	if p.user != "" {
		r.Client = &auth.Client{Cache: auth.NewCache(), Credential: auth.StaticCredential(p.host(), auth.Credential{Username: p.user, Password: p.secret})}
	}
	return r
}
