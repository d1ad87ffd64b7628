package hosted_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/registry/registrytest"
)

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// check runs a checker over s and returns what it finds.
func (s *stack) check(t *testing.T, repair bool) []hosted.Finding {
	t.Helper()
	var findings []hosted.Finding
	c := &hosted.Checker{DB: s.db, Blobs: s.blobs, Share: 1, Repair: repair, Report: func(f hosted.Finding) { findings = append(findings, f) }}
	if err := c.Run(t.Context()); err != nil {
		t.Fatalf("check: %v", err)
	}
	return findings
}

// wantFinding checks that there is one, and that its problem says so.
func (s *stack) wantFinding(t *testing.T, repair bool, d oci.Digest, problem string) hosted.Finding {
	t.Helper()
	findings := s.check(t, repair)
	if len(findings) != 1 {
		t.Fatalf("%d findings, want one: %+v", len(findings), findings)
	}
	f := findings[0]
	if f.Digest != d || !strings.Contains(f.Problem, problem) || (f.Repaired != "") != repair {
		t.Errorf("found %+v, want %q of %s", f, problem, d)
	}
	return f
}

func (s *stack) wantHealthy(t *testing.T) {
	t.Helper()
	if findings := s.check(t, false); len(findings) != 0 {
		t.Errorf("findings in a healthy store: %+v", findings)
	}
}

func TestCheckHealthy(t *testing.T) {
	s := newStack(t, hosted.Options{})
	s.wantHealthy(t)
	image := registrytest.PushImage(t, s, repo, "v1")
	registrytest.PushIndex(t, s, repo, []registry.Manifest{image.Manifest}, "all")
	registrytest.PushBlob(t, s, repo, nil)
	dead := registrytest.PushBlob(t, s, repo, registrytest.Random(9))
	if err := s.DeleteBlob(t.Context(), repo, dead.Digest); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	u := start(t, s)
	if err := u.Append(t.Context(), 0, reader(registrytest.Random(500))); err != nil {
		t.Fatal(err)
	}
	commit(t, s, start(t, s), []byte("long"), []byte("long"), oci.SHA512.FromBytes([]byte("long")))
	s.wantHealthy(t)
	if findings := s.check(t, true); len(findings) != 0 {
		t.Errorf("repairs in a healthy store: %+v", findings)
	}
	resume(t, s, u.ID(), 500)
}

func TestCheckProgress(t *testing.T) {
	s := newStack(t, hosted.Options{})
	image := registrytest.PushImage(t, s, repo, "v1")
	var last hosted.Progress
	c := &hosted.Checker{DB: s.db, Blobs: s.blobs, Share: 1, Report: func(f hosted.Finding) { t.Errorf("found %+v", f) },
		Progress: func(p hosted.Progress) { last = p }}
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := meta.Totals{Blobs: 2, BlobBytes: image.Config.Size + image.Layers[0].Size, Manifests: 1}
	if last.Done != want || last.Total != want {
		t.Errorf("progress ends at %+v, want %+v of the same", last, want)
	}
}

// damages are what can befall a blob's file, and what the checker says of it.
var damages = map[string]struct {
	do      func(path string) error
	problem string
}{
	"flipped byte": {func(path string) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[len(content)/2] ^= 1
		return os.WriteFile(path, content, 0o600)
	}, "its bytes have digest sha256:"},
	"truncated": {func(path string) error { return os.Truncate(path, 70) }, "70 bytes are stored, not 100"},
	"missing":   {os.Remove, "bytes are missing"},
}

func TestCheckDamagedBlob(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, hosted.Options{})
			content := registrytest.Random(100)
			d := registrytest.PushBlob(t, s, repo, content).Digest
			registrytest.PushBlob(t, s, "team/other", content)
			registrytest.PushImage(t, s, repo)
			if err := damage.do(s.file(t, s.key(t, d))); err != nil {
				t.Fatal(err)
			}
			f := s.wantFinding(t, false, d, damage.problem)
			if want := []string{repo, "team/other"}; !slices.Equal(f.Repositories, want) {
				t.Errorf("concerned are %v, want %v", f.Repositories, want)
			}
			if _, err := s.Blob(t.Context(), repo, d); err != nil {
				t.Errorf("a check without repair takes a blob out of service: %v", err)
			}
			s.wantFinding(t, true, d, damage.problem)
			for _, name := range []string{repo, "team/other"} {
				_, err := s.Blob(t.Context(), name, d)
				registrytest.WantCode(t, "find a damaged blob", err, registry.BlobUnknown)
			}
			s.wantFinding(t, false, d, "found damaged earlier")
			registrytest.PushBlob(t, s, "team/other", content)
			registrytest.WantBlob(t, s, repo, d, content)
			if _, err := s.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.wantHealthy(t)
		})
	}
}

// TestCheckUnreadable: a store that cannot be read now proves nothing.
func TestCheckUnreadable(t *testing.T) {
	s := newStack(t, hosted.Options{})
	content := registrytest.Random(100)
	d := registrytest.PushBlob(t, s, repo, content).Digest
	s.blobs.Fail("Open", 1, errBroken)
	findings := s.check(t, true)
	if len(findings) != 1 || findings[0].Repaired != "" || !strings.Contains(findings[0].Problem, errBroken.Error()) {
		t.Errorf("found %+v, want an unreadable blob that is left in service", findings)
	}
	registrytest.WantBlob(t, s, repo, d, content)
	s.wantHealthy(t)
}

func TestCheckTooLong(t *testing.T) {
	s := newStack(t, hosted.Options{})
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
	if err := os.Truncate(s.file(t, s.key(t, d)), 150); err != nil {
		t.Fatal(err)
	}
	s.wantFinding(t, false, d, "has 150 bytes, its blob 100")
}

func TestCheckOrphans(t *testing.T) {
	s := newStack(t, hosted.Options{})
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
	kept := s.file(t, s.key(t, d))
	const key = "0192f0c1-2222-7333-8444-555566667777"
	st, err := s.blobs.Append(t.Context(), key, blob.State{}, reader([]byte("orphan")))
	if err != nil || st.Size != 6 {
		t.Fatal(st, err)
	}
	orphan := s.file(t, key)
	s.wantHealthy(t) // it is young: its row may be on its way
	old := time.Now().Add(-time.Hour)
	for _, path := range []string{orphan, kept} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	s.wantFinding(t, false, "", key)
	if !exists(t, orphan) {
		t.Error("a check without repair deletes an orphan")
	}
	s.wantFinding(t, true, "", key)
	if exists(t, orphan) || !exists(t, kept) {
		t.Error("the wrong objects were repaired")
	}
	s.wantHealthy(t)
}

// exec changes the database beside package meta.
func (s *stack) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(s.path)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	res, err := db.Exec(query, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%s: %d rows, %v", query, n, err)
	}
}

func TestCheckManifest(t *testing.T) {
	for name, set := range map[string]string{
		"content": `content = replace(content, 'schemaVersion', 'schemaversion')`,
		"empty":   `content = x''`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, hosted.Options{})
			registrytest.PushImage(t, s, repo, "v1")
			m := registrytest.PushImage(t, s, "team/other").Manifest
			s.exec(t, `UPDATE manifests SET `+set+` WHERE digest = ?`, m.Digest.String())
			f := s.wantFinding(t, false, m.Digest, "does not have its digest")
			if !slices.Equal(f.Repositories, []string{"team/other"}) {
				t.Errorf("concerned are %v", f.Repositories)
			}
			if err := s.DeleteManifest(t.Context(), "team/other", m.Digest); err != nil {
				t.Fatal(err)
			}
			registrytest.PushManifest(t, s, "team/other", m)
			s.wantHealthy(t)
		})
	}
}

// TestCheckCorruptDigests: rows may hold anything; a checker must stand it.
func TestCheckCorruptDigests(t *testing.T) {
	s := newStack(t, hosted.Options{})
	m := registrytest.PushImage(t, s, repo).Manifest
	d := registrytest.PushBlob(t, s, "team/other", registrytest.Random(9)).Digest
	s.exec(t, `UPDATE manifests SET digest = 'garbage' WHERE digest = ?`, m.Digest.String())
	s.exec(t, `UPDATE blobs SET digest = 'md5:00' WHERE digest = ?`, d.String())
	var garbage, md5, keys, usage int
	for _, f := range s.check(t, true) {
		switch {
		case f.Digest == "garbage" && f.Repaired == "":
			garbage++
		case f.Digest == "md5:00" && f.Repaired == "":
			md5++
		case strings.HasPrefix(f.Problem, "database: "):
			keys++
		case strings.HasPrefix(f.Problem, "project team ") && f.Repaired != "":
			usage++
		default:
			t.Errorf("found %+v", f)
		}
	}
	if garbage != 1 || md5 != 1 || keys == 0 || usage != 1 {
		t.Errorf("%d manifests, %d blobs, %d broken keys, %d miscounts were found", garbage, md5, keys, usage)
	}
}

// TestCheckManifestSize: a wrong size is found, and that the project's usage
// cannot be right with it; both can be healed.
func TestCheckManifestSize(t *testing.T) {
	s := newStack(t, hosted.Options{})
	m := registrytest.PushImage(t, s, repo).Manifest
	s.exec(t, `UPDATE manifests SET size = size + 1`)
	findings := s.check(t, false)
	if len(findings) != 2 || findings[0].Digest != m.Digest || !strings.HasPrefix(findings[1].Problem, "project team ") {
		t.Errorf("found %+v", findings)
	}
	if err := s.DeleteManifest(t.Context(), repo, m.Digest); err != nil {
		t.Fatal(err)
	}
	registrytest.PushManifest(t, s, repo, m)
	s.wantFinding(t, true, "", "project team is said to use")
	s.wantHealthy(t)
}

// TestCheckUsage: what is miscounted is found, and set right.
func TestCheckUsage(t *testing.T) {
	for name, damage := range map[string]string{
		"storage":         `UPDATE project_usage SET storage = storage - 1 WHERE project_id = (SELECT id FROM projects WHERE name = 'team')`,
		"repositories":    `UPDATE project_usage SET repositories = 7 WHERE project_id = (SELECT id FROM projects WHERE name = 'team')`,
		"no row":          `DELETE FROM project_usage WHERE project_id = (SELECT id FROM projects WHERE name = 'team')`,
		"links of a blob": `UPDATE project_blobs SET links = 9 WHERE digest = (SELECT max(digest) FROM links)`,
		"a blob too few":  `DELETE FROM project_blobs WHERE digest = (SELECT max(digest) FROM links)`,
		"a blob too many": `INSERT INTO project_blobs (project_id, digest, links)
			SELECT p.id, max(l.digest), 1 FROM projects p, links l WHERE p.name = 'empty' GROUP BY p.id`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, hosted.Options{})
			m := registrytest.PushImage(t, s, repo, "v1")
			if _, err := s.Mount(t.Context(), "team/other", repo, m.Layers[0].Digest); err != nil {
				t.Fatal(err)
			}
			empty := registrytest.PushBlob(t, s, "empty/app", nil)
			if err := s.DeleteBlob(t.Context(), "empty/app", empty.Digest); err != nil {
				t.Fatal(err)
			}
			s.wantHealthy(t)
			s.exec(t, damage)
			s.wantFinding(t, false, "", "is said to use")
			s.wantFinding(t, true, "", "is said to use")
			s.wantHealthy(t)
		})
	}
}

func TestCheckLostUpload(t *testing.T) {
	for name, damage := range damages {
		if name == "flipped byte" {
			continue // shows when the session is committed
		}
		t.Run(name, func(t *testing.T) {
			s := newStack(t, hosted.Options{})
			u := start(t, s)
			if err := u.Append(t.Context(), 0, reader(registrytest.Random(500))); err != nil {
				t.Fatal(err)
			}
			if err := damage.do(s.file(t, u.ID())); err != nil {
				t.Fatal(err)
			}
			f := s.wantFinding(t, false, "", u.ID())
			if !slices.Equal(f.Repositories, []string{repo}) {
				t.Errorf("concerned are %v", f.Repositories)
			}
			resume(t, s, u.ID(), 500)
			s.wantFinding(t, true, "", u.ID())
			_, err := s.ResumeUpload(t.Context(), repo, u.ID())
			registrytest.WantCode(t, "resume a session that was given up", err, registry.UploadUnknown)
			s.wantHealthy(t)
		})
	}
}

// TestCheckOvertaken: what the checker saw is gone before it can repair it.
func TestCheckOvertaken(t *testing.T) {
	s := newStack(t, hosted.Options{})
	d := registrytest.PushBlob(t, s, repo, registrytest.Random(100)).Digest
	registrytest.PushImage(t, s, repo)
	if err := os.Truncate(s.file(t, s.key(t, d)), 7); err != nil {
		t.Fatal(err)
	}
	var findings []hosted.Finding
	db := overtaken{s.db, func() {
		if err := s.DeleteBlob(t.Context(), repo, d); err != nil {
			t.Error(err)
		}
	}}
	c := &hosted.Checker{DB: db, Blobs: s.blobs, Share: 1, Repair: true, Report: func(f hosted.Finding) { findings = append(findings, f) }}
	if err := c.Run(t.Context()); err != nil || len(findings) != 0 {
		t.Errorf("check: %v, %+v; want neither", err, findings)
	}
}

// overtaken is a database in which something happens before a blob is marked.
type overtaken struct {
	hosted.CheckedMetadata
	before func()
}

func (o overtaken) MarkDamaged(ctx context.Context, b meta.CheckedBlob) error {
	o.before()
	return o.CheckedMetadata.MarkDamaged(ctx, b)
}

func TestCheckCancelled(t *testing.T) {
	s := newStack(t, hosted.Options{})
	registrytest.PushImage(t, s, repo)
	ctx, cancel := context.WithCancel(t.Context())
	c := &hosted.Checker{DB: s.db, Blobs: s.blobs, Share: 1, Repair: true, Report: func(f hosted.Finding) { t.Errorf("found %+v", f) },
		Progress: func(hosted.Progress) { cancel() }}
	if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("check with a cancelled context: %v", err)
	}
}

// TestCheckBesidePushes repairs all the time while content comes and goes.
func TestCheckBesidePushes(t *testing.T) {
	for _, share := range []float64{0, 1} {
		t.Run(fmt.Sprint(share), func(t *testing.T) { checkBesidePushes(t, share) })
	}
}

func checkBesidePushes(t *testing.T, share float64) {
	s := newStack(t, hosted.Options{})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c := &hosted.Checker{DB: s.db, Blobs: s.blobs, Share: share, Repair: true, Report: func(f hosted.Finding) { t.Errorf("found %+v", f) }}
			if err := c.Run(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
		}
	}()
	for range 30 {
		image := registrytest.PushImage(t, s, repo, "v1")
		u := start(t, s)
		if err := u.Append(t.Context(), 0, io.LimitReader(bytes.NewReader(make([]byte, 1<<20)), 1<<20)); err != nil {
			t.Error(err)
		}
		if err := u.Cancel(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.DeleteManifest(t.Context(), repo, image.Manifest.Digest); err != nil {
			t.Error(err)
		}
		if err := s.DeleteBlob(t.Context(), repo, image.Layers[0].Digest); err != nil {
			t.Error(err)
		}
		if _, err := s.Collect(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}
