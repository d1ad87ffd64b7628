package registry_test

import (
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func TestMuxRoutesByWholeComponents(t *testing.T) {
	fallback, team, deep := open(t), open(t), open(t)
	r := mux(t, fallback, registry.Route{Prefix: "team", Registry: team}, registry.Route{Prefix: "team/deep", Registry: deep})
	for name, want := range map[string]registry.Registry{
		"team": team, "team/app": team, "team/deeper": team, "team/deep": deep, "team/deep/x/y": deep,
		"teams": fallback, "team-a": fallback, "tea": fallback, "x/team": fallback,
	} {
		m := registrytest.PushImage(t, r, name, "v1").Manifest
		registrytest.WantManifest(t, want, name, oci.TagRef("v1"), m)
		registrytest.WantManifest(t, r, name, oci.TagRef("v1"), m)
	}
}

func TestMuxWithoutFallback(t *testing.T) {
	r := mux(t, nil, registry.Route{Prefix: "team", Registry: open(t)})
	image := registrytest.PushImage(t, r, "team/app", "v1")
	image.Repo = "other/app"
	for action, call := range calls(t, r, image) {
		switch action {
		case registry.RepositoriesList, registry.ReferrersList, registry.BlobMount:
			continue // tested on their own
		case registry.UploadResume:
			registrytest.WantCode(t, action.String(), call(), registry.UploadUnknown)
		default:
			registrytest.WantCode(t, action.String(), call(), registry.NameUnknown)
		}
	}
	if got := registrytest.Collect(t, r.Referrers(t.Context(), "other/app", image.Manifest.Digest, "", "")); len(got) != 0 {
		t.Errorf("%d referrers in a repository without a route", len(got))
	}
	_, err := r.Mount(t.Context(), "other/app", "team/app", image.Config.Digest)
	registrytest.WantCode(t, "mount into no registry", err, registry.NameUnknown)
	_, err = r.Mount(t.Context(), "team/new", "other/app", image.Config.Digest)
	registrytest.WantCode(t, "mount from no registry", err, registry.BlobUnknown)
}

func TestMuxMountsWithinOneRegistry(t *testing.T) {
	shared, other := open(t), open(t)
	r := mux(t, other, registry.Route{Prefix: "a", Registry: shared}, registry.Route{Prefix: "b", Registry: shared})
	content := registrytest.Random(100)
	d := registrytest.PushBlob(t, r, "a/app", content)
	if _, err := r.Mount(t.Context(), "b/app", "a/app", d.Digest); err != nil {
		t.Errorf("mount between routes to one registry: %v", err)
	}
	registrytest.WantBlob(t, r, "b/app", d.Digest, content)
	_, err := r.Mount(t.Context(), "c/app", "a/app", d.Digest)
	registrytest.WantCode(t, "mount across registries", err, registry.Unsupported)
}

func TestMuxMergesRepositories(t *testing.T) {
	fallback, team, deep := open(t), open(t), open(t)
	names := []string{"a", "team", "team-a/x", "team.x", "team/a", "team/deep/1", "team/z", "team0", "teams", "z"}
	for _, everywhere := range []registry.Registry{fallback, team, deep} {
		for _, name := range names {
			registrytest.PushIndex(t, everywhere, name, nil)
		}
	}
	registrytest.PushIndex(t, fallback, "team/only-in-fallback", nil)
	registrytest.PushIndex(t, team, "x/only-in-team", nil)
	r := mux(t, fallback, registry.Route{Prefix: "team", Registry: team}, registry.Route{Prefix: "team/deep", Registry: deep})
	registrytest.WantList(t, "repositories", r.Repositories(t.Context(), ""), names...)
	for i, name := range names {
		registrytest.WantList(t, "repositories after "+name, r.Repositories(t.Context(), name), names[i+1:]...)
	}
	for name := range r.Repositories(t.Context(), "team") {
		if name != "team-a/x" {
			t.Errorf("the first after team is %s", name)
		}
		break
	}
}

func TestMuxRefusesBadRoutes(t *testing.T) {
	r := open(t)
	for what, routes := range map[string][]registry.Route{
		"an empty prefix":   {{Prefix: "", Registry: r}},
		"a trailing slash":  {{Prefix: "team/", Registry: r}},
		"upper case":        {{Prefix: "Team", Registry: r}},
		"one prefix twice":  {{Prefix: "a", Registry: r}, {Prefix: "team", Registry: r}, {Prefix: "a", Registry: r}},
		"no registry there": {{Prefix: "a"}},
	} {
		if _, err := registry.NewMux(nil, routes...); err == nil {
			t.Errorf("%s is accepted: %v", what, routes)
		}
	}
}

func TestActions(t *testing.T) {
	var names []string
	for a := range registry.Actions {
		kinds := 0
		for _, is := range []bool{a.Reads(), a.Writes(), a.Deletes()} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%s is of %d kinds", a, kinds)
		}
		if a.String() == "" || slices.Contains(names, a.String()) {
			t.Errorf("action %d is called %q", a, a)
		}
		names = append(names, a.String())
	}
}
