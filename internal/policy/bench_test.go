package policy_test

import (
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
)

// BenchmarkCheck is what one operation costs that is allowed, and the whole of
// a request with it.
func BenchmarkCheck(b *testing.B) {
	w := newWorld(b, policy.Options{})
	acme := w.project("acme", "")
	public := w.project("public", "")
	w.show(public, access.Public)
	alice := w.member("alice", acme, "", access.Writer)
	op := registry.Op{Action: registry.ManifestRead, Repo: "acme/team/app"}
	for _, c := range []struct {
		name string
		id   auth.Identity
		op   registry.Op
	}{
		{"user", alice, op},
		{"token", token(alice, scope("acme/team/app", "pull", "push")), op},
		{"key", w.key(access.Key{UserID: alice.ID, Name: "laptop", Prefixes: []string{"acme/team"}}), op},
		{"robot", w.key(access.Key{ProjectID: acme, Name: "ci", Role: access.Writer}), op},
		{"public", anonymous, registry.Op{Action: registry.ManifestRead, Repo: "public/app"}},
	} {
		check := w.For(c.id)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := check(b.Context(), c.op); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := w.For(alice)(b.Context(), op); err != nil {
				b.Fatal(err)
			}
		}
	})
}
