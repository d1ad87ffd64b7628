package meta

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
)

// callLogins is callEveryVerb of the verbs of log-ins.
func callLogins(ctx context.Context, db *DB) {
	db.SaveLogin(ctx, "id", "x", db.now().AddDate(0, 0, 1))
	db.TakeLogin(ctx, "id")
	db.CreateGroup(ctx, Change{}, Group{Name: "by-claim"})
	p := ProvidedUser{Issuer: "https://id.example.com", Subject: "1", Name: "claimed", Groups: []string{"by-claim"}}
	db.LogInUser(ctx, p)
	p.Groups = nil
	u, _ := db.LogInUser(ctx, p)
	db.CreateLoginKey(ctx, access.Key{UserID: u.ID, Name: "laptop"}, "login key")
	db.TrustsIssuer(ctx, "x")
	db.TrustRules(ctx, "x", "x")
}
