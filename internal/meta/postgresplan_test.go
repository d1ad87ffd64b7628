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
