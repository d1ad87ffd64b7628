package meta

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/oci"
)

// walks begin the texts that may read a table whole or sort: those of integrity
// checks, those over upload sessions, whose table is as small as the number of
// open ones, the rare renaming of a project, and the rare end of what is
// managed, where the engine looks for references.
var walks = []string{"SELECT p.name, COALESCE(u.storage, 0), COALESCE(u.repositories, 0), (", "INSERT INTO project_blobs (project_id, digest, links) SELECT",
	"UPDATE uploads SET repository", "SELECT id FROM uploads WHERE (repository", "SELECT id, prefixes FROM keys",
	"DELETE FROM plans", "DELETE FROM projects", "DELETE FROM organizations", "DELETE FROM users",
	"SELECT key, kind, size", "SELECT COUNT(*)", "PRAGMA", "SELECT \"table\"", "SELECT r.name FROM links", "SELECT id FROM uploads WHERE updated_at"}

// TestQueryPlans asks the engine how it answers every statement that the verbs
// have prepared: none may walk a table or sort.
func TestQueryPlans(t *testing.T) {
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	callEveryVerb(t.Context(), db)
	callManagement(t.Context(), db)
	callLogins(t.Context(), db)
	texts := slices.Concat(db.engine.(*sqliteEngine).stmts.texts(), db.engine.(*sqliteEngine).writer.stmts.texts())
	if len(texts) < 40 {
		t.Fatalf("only %d statements were prepared", len(texts))
	}
	for _, text := range texts {
		verb, _, _ := strings.Cut(text, " ")
		if !slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, verb) ||
			slices.ContainsFunc(walks, func(w string) bool { return strings.HasPrefix(text, w) }) {
			continue
		}
		for _, step := range db.plan(t, text) {
			if strings.HasPrefix(step, "SCAN ") && step != "SCAN CONSTANT ROW" || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nfor %s", step, text)
			}
		}
	}
}

// texts of all statements that were prepared so far.
func (s *statements) texts() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []string
	for text := range s.byTxt {
		all = append(all, text)
	}
	return all
}

func (db *DB) plan(t *testing.T, text string) []string {
	t.Helper()
	var args []any
	for n := 1; strings.Contains(text, fmt.Sprint("$", n)); n++ {
		args = append(args, "x")
	}
	rows, err := db.engine.(*sqliteEngine).read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+strings.ReplaceAll(text, "$", "?"), args...)
	if err != nil {
		t.Fatalf("explain %s: %v", text, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// callEveryVerb has every statement prepared. What the verbs answer is the
// conformance suite's matter.
func callEveryVerb(ctx context.Context, db *DB) {
	const repo, absent = "team/app", "team/none"
	now := db.now()
	d := oci.SHA256.FromBytes([]byte("blob"))
	child := oci.SHA256.FromBytes([]byte("child"))
	session := func(id string) Upload {
		db.CreateUpload(ctx, Upload{ID: id, Repository: repo, Algorithm: oci.SHA256, Hash: []byte{}})
		u, _ := db.LeaseUpload(ctx, repo, id, 0)
		return u
	}
	u := session("session-1")
	db.RenewUpload(ctx, u.ID, u.Version, 0)
	db.SaveUpload(ctx, u)
	db.ReleaseUpload(ctx, u.ID, u.Version)
	db.CommitBlob(ctx, u, d)
	b, _ := db.Blob(ctx, repo, d)
	db.MarkDamaged(ctx, CheckedBlob{Digest: d, Key: b.Key})
	db.CommitBlob(ctx, session("session-2"), d)
	db.CommitBlob(ctx, session("session-3"), d)
	db.CancelUpload(ctx, session("session-4"))
	session("session-5")
	db.ExpireUploads(ctx, now.AddDate(0, 0, 1), 10)
	db.TouchBlob(ctx, repo, d)
	db.Mount(ctx, "team/other", repo, d)
	db.Mount(ctx, "team/other", "", d)
	db.Holders(ctx, repo, d, 3)
	db.RateUsage(ctx, "x")
	db.SwapRateUsage(ctx, "x", []byte{1}, 0)
	db.PruneRates(ctx, now, 10)
	blobs, children := []oci.Descriptor{{Digest: d}}, []oci.Descriptor{{Digest: child}}
	for _, parsed := range []*oci.Manifest{{Blobs: blobs}, {Foreign: blobs}, {Manifests: children}} {
		for _, sparse := range []bool{false, true} {
			parsed.Subject = &oci.Descriptor{Digest: child}
			db.PutManifest(ctx, PutManifest{Repository: repo, Digest: d, Content: []byte("x"), Parsed: parsed, Tags: []string{"v1"}, AllowMissing: sparse})
			db.DeleteManifest(ctx, repo, d)
		}
	}
	db.PutManifest(ctx, PutManifest{Repository: repo, Digest: child, Content: []byte("x"), Parsed: &oci.Manifest{Manifests: children}, AllowMissing: true})
	for _, ref := range []oci.Ref{oci.TagRef("v1"), oci.DigestRef(d)} {
		db.Manifest(ctx, absent, ref)
		db.Resolve(ctx, absent, ref)
	}
	db.Tags(ctx, repo, "", 10)
	db.Repositories(ctx, "", 10)
	db.Referrers(ctx, repo, d, "", "", 10)
	db.DeleteTag(ctx, repo, "v1")
	db.CollectLinks(ctx, now.AddDate(0, 0, 1), 10)
	db.CommitBlob(ctx, session("session-6"), d)
	db.CollectLinks(ctx, now.AddDate(0, 0, -1), 10)
	db.DeleteBlob(ctx, repo, d)
	db.DeadObjects(ctx, now, 10)
	callReviews(ctx, db)
	db.ForgetDead(ctx, "x")
	db.CheckTotals(ctx)
	db.CheckDatabase(ctx)
	db.CheckBlobs(ctx, "", 10)
	db.CheckManifests(ctx, "", "", 10)
	db.CheckUploads(ctx, "", 10)
	db.CheckKeys(ctx, "", 10)
	db.LinkedBy(ctx, d, 10)
	db.KeyOwner(ctx, "x")
	db.BuryOrphan(ctx, "x")
	callProjectLife(ctx, db)
	callTrail(ctx, db)
	callJobs(ctx, db)
	callProxies(ctx, db)
}

func callJobs(ctx context.Context, db *DB) {
	db.Jobs(ctx)
	db.RequestJob(ctx, "x")
	db.LeaseJob(ctx, "x", 0, 0)
	db.RenewJob(ctx, "x", 1, 0, "")
	db.ReleaseJob(ctx, "x", 1)
	db.FinishJob(ctx, "x", 1, JobEnd{})
}

// callReviews has the statements of collection prepared.
func callReviews(ctx context.Context, db *DB) {
	const repo = "team/reviewed"
	put := func(name string, parsed *oci.Manifest, tags ...string) oci.Digest {
		d := oci.SHA256.FromBytes([]byte(name))
		db.PutManifest(ctx, PutManifest{Repository: repo, Digest: d, Content: []byte(name), Parsed: parsed, Tags: tags})
		return d
	}
	subject := put("subject", &oci.Manifest{}, "v1")
	put("subject", &oci.Manifest{})
	put("child", &oci.Manifest{}, "v1")
	put("referrer", &oci.Manifest{Subject: &oci.Descriptor{Digest: subject}})
	put("index", &oci.Manifest{Manifests: []oci.Descriptor{{Digest: subject}}}, "v1")
	put("index", &oci.Manifest{}, "v1")
	now, policy := db.now(), func(string) Retention { return Retention{time.Millisecond, time.Millisecond} }
	db.TouchManifest(ctx, repo, subject)
	db.TouchManifest(ctx, repo, subject+"x")
	db.PlanManifests(ctx, "x", 10)
	db.LooseManifests(ctx, "", "", 10)
	db.CollectManifests(ctx, policy, now, 10)
	db.DeleteTag(ctx, repo, "v1")
	for range 4 {
		now = now.Add(time.Hour)
		db.CollectManifests(ctx, policy, now, 10)
	}
	db.planRest(ctx, "x", subject)
	db.ClaimSweep(ctx, 0)
	db.LooseLinks(ctx, LooseLink{}, 10)
	db.DeadQueue(ctx, 0, "", 10)
	db.IdleUploads(ctx, "", 10)
	db.DeletedProjects(ctx, DeletedProject{}, 10)
	// What happens only where something fails.
	for _, query := range []string{
		`UPDATE manifest_reviews SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
		`UPDATE links SET review_at = $3 WHERE repository_id = $1 AND digest = $2`,
	} {
		db.update(ctx, func(t *tx) error { _, err := t.exec(query, "x", "x", 0); return err })
	}
}

func callTrail(ctx context.Context, db *DB) {
	db.AppendAudit(ctx, []audit.Event{{Action: "login"}})
	for _, f := range []AuditFilter{{}, {Newest: true}, {Project: "team"}, {Project: "team", Newest: true}} {
		db.ListAudit(ctx, f, "", 10)
	}
	db.PruneAudit(ctx, db.now().AddDate(0, 0, 1), 10)
}

func callProjectLife(ctx context.Context, db *DB) {
	d := oci.SHA256.FromBytes([]byte("blob"))
	fill := func() string {
		db.CreateUpload(ctx, Upload{ID: "session-7", Repository: "team/app", Algorithm: oci.SHA256, Hash: []byte{}})
		u, _ := db.LeaseUpload(ctx, "team/app", "session-7", 0)
		db.CommitBlob(ctx, u, d)
		db.CreateUpload(ctx, Upload{ID: "session-8", Repository: "team/app", Algorithm: oci.SHA256, Hash: []byte{}})
		p, _ := db.ProjectAccess(ctx, "team")
		return p.ID
	}
	id := fill()
	db.UploadVersion(ctx, "session-8")
	db.CheckUsage(ctx, "")
	db.RepairUsage(ctx, id)
	db.CountProject(ctx, id)
	storage := int64(1)
	db.SetPlan(ctx, Change{}, "default", PlanChange{Storage: &storage})
	db.PutManifest(ctx, PutManifest{Repository: "team/app", Digest: d, Content: []byte("xx"), Parsed: &oci.Manifest{}})
	db.RenameProject(ctx, Change{}, id, "crew")
	db.RenameProject(ctx, Change{}, id, "team")
	db.DeleteProject(ctx, Change{}, id)
	db.RestoreProject(ctx, Change{}, id)
	db.DeleteProject(ctx, Change{}, id)
	db.PurgeProjects(ctx, db.now().AddDate(0, 0, 1), 1000)
}

// TestMountLooksAtOneRepository: a blob may be linked by as many repositories
// as there are, and the writer must not go over them.
func TestMountLooksAtOneRepository(t *testing.T) {
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, from := range []string{"team/app", ""} {
		db.Mount(t.Context(), "team/other", from, oci.SHA256.FromBytes(nil))
	}
	asked := 0
	for _, text := range db.engine.(*sqliteEngine).writer.stmts.texts() {
		if !strings.Contains(text, "FROM blobs") && !strings.Contains(text, "JOIN blobs") {
			continue
		}
		asked++
		for _, step := range db.plan(t, text) {
			if strings.Contains(step, "links_digest") || strings.HasPrefix(step, "SCAN ") {
				t.Errorf("%s\nfor %s", step, text)
			}
		}
	}
	if asked != 2 {
		t.Errorf("%d statements were asked for", asked)
	}
}
