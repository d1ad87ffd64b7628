package meta

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// TestTokenQueryPlans is TestQueryPlans of what each log-in asks. Signing keys
// are a handful, and read whole.
func TestTokenQueryPlans(t *testing.T) {
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, now := t.Context(), db.now()
	user, err := db.CreateUser(ctx, Change{}, UserSpec{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.CreateRefreshToken(ctx, access.RefreshToken{UserID: user.ID, ExpiresAt: now.Add(time.Hour)}, "hash"); err != nil {
		t.Fatal(err)
	}
	token, err := db.RefreshTokenByHash(ctx, "hash")
	if err != nil {
		t.Fatal(err)
	}
	project, err := db.CreateProject(ctx, Change{}, ProjectSpec{Name: "acme", Visibility: access.Private})
	if err != nil {
		t.Fatal(err)
	}
	key, err := db.CreateKey(ctx, Change{}, access.Key{Name: "ci", ProjectID: project.ID, Role: access.Writer}, "key")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.CreateRefreshToken(ctx, access.RefreshToken{KeyID: key.ID}, "hash2"); err != nil {
		t.Fatal(err)
	}
	db.RefreshTokenByID(ctx, token.ID)
	db.ListRefreshTokens(ctx, "", "", 10)
	db.ListRefreshTokens(ctx, user.ID, "", 10)
	db.TouchRefreshToken(ctx, token.ID, now)
	db.ExpireRefreshTokens(ctx, now, 10)
	db.RevokeRefreshToken(ctx, Change{}, token.ID)
	db.LoginFailures(ctx, "bucket", now)
	db.AddLoginFailures(ctx, []access.LoginFailure{{Bucket: "bucket", Secret: "secret"}}, now)
	asked := 0
	for _, text := range slices.Concat(db.engine.(*sqliteEngine).stmts.texts(), db.engine.(*sqliteEngine).writer.stmts.texts()) {
		if !strings.Contains(text, "refresh_tokens") && !strings.Contains(text, "login_failures") {
			continue
		}
		asked++
		for _, step := range db.plan(t, text) {
			if strings.HasPrefix(step, "SCAN ") && step != "SCAN CONSTANT ROW" || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nfor %s", step, text)
			}
		}
	}
	if asked < 12 {
		t.Errorf("only %d statements were asked for", asked)
	}
}
