package meta

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var freeze = flag.Bool("freeze", false, "take down the statements of this release")

// releaseFile has the statements of the last release, each on a line.
const releaseFile = "testdata/release.golden"

// TestReleaseBefore: while replicas are replaced one by one, those of the last
// release go on with the new schema. All its statements must still be understood,
// on both engines, and its inserts know nothing of new columns, which must do
// without. What its rows mean to this release is for the tests of the verbs. When
// a release is made, run this with -freeze.
func TestReleaseBefore(t *testing.T) {
	lite, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	if *freeze {
		takeDown(t, lite)
	}
	content, err := os.ReadFile(releaseFile)
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(texts) < 150 {
		t.Fatalf("only %d statements", len(texts))
	}
	e := lite.engine.(*sqliteEngine)
	for _, text := range texts {
		st, err := e.read.PrepareContext(t.Context(), strings.ReplaceAll(text, "$", "?"))
		if err != nil {
			t.Errorf("SQLite: %v\nfor %s", err, text)
			continue
		}
		st.Close()
		doesWithout(t, e.read, text)
	}
	prepareAll(t, texts)
}

// prepareAll has PostgreSQL understand all texts.
func prepareAll(t *testing.T, texts []string) {
	pool, err := sql.Open("pgx", schemaOnly.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	for i, text := range texts {
		if _, err := pool.ExecContext(t.Context(), fmt.Sprintf("PREPARE r%d AS %s", i, text)); err != nil {
			t.Errorf("PostgreSQL: %v\nfor %s", err, text)
		}
	}
}

var statement = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE) `)

var insertInto = regexp.MustCompile(`^INSERT INTO (\w+) \(([^)]*)\)`)

// doesWithout wants a value for each column that an insert does not name.
func doesWithout(t *testing.T, pool *sql.DB, text string) {
	match := insertInto.FindStringSubmatch(text)
	if match == nil {
		return
	}
	named := strings.Split(strings.ReplaceAll(match[2], " ", ""), ",")
	list, err := pool.QueryContext(t.Context(), `SELECT name FROM pragma_table_info(?) WHERE "notnull" AND dflt_value IS NULL`, match[1])
	if err != nil {
		t.Fatal(err)
	}
	needed, err := collect(&rows{Rows: list}, scanString)
	if err != nil || len(needed) == 0 {
		t.Fatalf("the columns of %s: %v, %v", match[1], needed, err)
	}
	for _, column := range needed {
		if !slices.Contains(named, column) {
			t.Errorf("column %s of %s has no default\nfor %s", column, match[1], text)
		}
	}
}

// takeDown writes all statements that the verbs have prepared to releaseFile.
func takeDown(t *testing.T, db *DB) {
	callEveryVerb(t.Context(), db)
	callManagement(t.Context(), db)
	callLogins(context.WithoutCancel(t.Context()), db)
	e := db.engine.(*sqliteEngine)
	var texts []string
	for _, text := range slices.Concat(e.stmts.texts(), e.writer.stmts.texts()) {
		if !statement.MatchString(text) || strings.Contains(text, "pragma_") {
			continue // which only SQLite is asked
		}
		lines := strings.Split(text, "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		texts = append(texts, strings.Join(lines, " "))
	}
	slices.Sort(texts)
	if err := os.WriteFile(releaseFile, []byte(strings.Join(slices.Compact(texts), "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
