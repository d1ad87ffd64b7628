package meta

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPostgresQueryPlans has PostgreSQL plan every statement that the verbs have
// prepared on SQLite: it takes them all, and none has to read a table whole.
func TestPostgresQueryPlans(t *testing.T) {
	lite, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "berth.db"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	callEveryVerb(t.Context(), lite)
	callManagement(t.Context(), lite)
	callLogins(t.Context(), lite)
	e := lite.engine.(*sqliteEngine)
	texts := slices.Concat(e.stmts.texts(), e.writer.stmts.texts())
	pool, err := sql.Open("pgx", schemaOnly.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	if _, err := pool.ExecContext(t.Context(), `SELECT set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false)`); err != nil {
		t.Fatal(err)
	}
	planned := 0
	for i, text := range texts {
		verb, _, _ := strings.Cut(text, " ")
		if !slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, verb) || strings.Contains(text, "pragma_") {
			continue
		}
		planned++
		plan := explain(t, pool, fmt.Sprint("s", i), text)
		if slices.ContainsFunc(walks, func(w string) bool { return strings.HasPrefix(text, w) }) {
			continue
		}
		if strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s\n%s", text, plan)
		}
	}
	if planned < 150 {
		t.Errorf("only %d statements were planned", planned)
	}
}

func explain(t *testing.T, pool *sql.DB, name, text string) string {
	t.Helper()
	if _, err := pool.ExecContext(t.Context(), `PREPARE `+name+` AS `+text); err != nil {
		t.Errorf("%s: %v", text, err)
		return ""
	}
	var args []string
	for n := 1; strings.Contains(text, fmt.Sprint("$", n)); n++ {
		args = append(args, "NULL")
	}
	list := ""
	if len(args) > 0 {
		list = "(" + strings.Join(args, ", ") + ")"
	}
	found, err := pool.QueryContext(t.Context(), `EXPLAIN EXECUTE `+name+list)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return ""
	}
	lines, err := collect(&rows{Rows: found}, scanString)
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return strings.Join(lines, "\n")
}

// TestPostgresPullPlans: what a pull looks up goes by whole keys, also where the
// planner knows nothing of the tables yet: never over all that a repository has.
func TestPostgresPullPlans(t *testing.T) {
	db, err := Open(t.Context(), Options{Postgres: schemaOnly.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pool := db.engine.(*postgresEngine).pool
	pool.SetMaxOpenConns(1)
	for query, keys := range map[string][]string{
		selectManifest + manifestByTag:    {"manifests_pkey", "tags_pkey", "repositories_name_key"},
		selectManifest + manifestByDigest: {"manifests_pkey", "manifest_reviews_pkey", "repositories_name_key"},
		selectBlob:                        {"links_pkey", "blobs_pkey", "repositories_name_key"},
	} {
		plan := explain(t, pool, fmt.Sprint("p", len(query)), query)
		for _, key := range keys {
			if !strings.Contains(plan, "using "+key) {
				t.Errorf("no look-up by %s for %s:\n%s", key, query, plan)
			}
		}
		if n := strings.Count(plan, "_pkey"); n != len(keys)-1 || strings.Count(plan, "Index Cond: ((repository_id = ") != n-strings.Count(plan, "blobs_pkey") || strings.Contains(plan, "Filter: (digest") {
			t.Errorf("parts of keys for %s:\n%s", query, plan)
		}
	}
}

// TestPostgresSyncs: transactions wait for the disk unless they are hints, and as
// the server is set up to do, but never not at all.
func TestPostgresSyncs(t *testing.T) {
	for set, want := range map[string]string{"on": "on", "off": "on", "local": "local", "remote_apply": "remote_apply"} {
		url := schemaOnly.Database(t)
		admin, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		var name string
		if err := admin.QueryRow(`SELECT current_database()`).Scan(&name); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Exec(`ALTER DATABASE ` + name + ` SET synchronous_commit = ` + set); err != nil {
			t.Fatal(err)
		}
		defer admin.Exec(`ALTER DATABASE ` + name + ` RESET synchronous_commit`)
		db, err := Open(t.Context(), Options{Postgres: url})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		e := db.engine.(*postgresEngine)
		if !e.emits {
			t.Error("transactions cannot commit in two steps")
		}
		const ask = `SELECT current_setting('synchronous_commit')`
		for k, want := range map[kind]string{durable: want, alone: want, relaxed: "off"} {
			var got string
			if err := e.write(t.Context(), k, func(t *tx) error { return t.queryRow(ask).Scan(&got) }); err != nil || got != want {
				t.Errorf("set to %s, kind %d: %q, want %q, %v", set, k, got, want, err)
			}
		}
		var got string
		if err := e.hint(t.Context(), ask, nil).Scan(&got); err != nil || got != "off" {
			t.Errorf("a hint: %q, %v", got, err)
		}
	}
}
