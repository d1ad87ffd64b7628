package meta

import (
	"context"
	"database/sql"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// statements prepares each query text once.
type statements struct {
	prepare func(ctx context.Context, query string) (*sql.Stmt, error)

	mu    sync.RWMutex
	byTxt map[string]*sql.Stmt
}

func (s *statements) get(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.RLock()
	st := s.byTxt[query]
	s.mu.RUnlock()
	if st != nil {
		return st, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.byTxt[query]; st != nil {
		return st, nil
	}
	st, err := s.prepare(context.WithoutCancel(ctx), positions(query))
	if err != nil {
		return nil, classify(err)
	}
	if s.byTxt == nil {
		s.byTxt = map[string]*sql.Stmt{}
	}
	s.byTxt[query] = st
	return st, nil
}

var argument = regexp.MustCompile(`\$[0-9]+`)

// positions writes arguments as SQLite wants them. "$1" is a name to it, bound in
// the order of first appearance; "?1" is the position that it is to PostgreSQL.
// A number is a name too, which costs a search with each execution, so that
// those that stand in order and once are a plain "?".
func positions(query string) string {
	n, ordered := 0, true
	for _, arg := range argument.FindAllString(query, -1) {
		n++
		ordered = ordered && arg == "$"+strconv.Itoa(n)
	}
	if ordered {
		return argument.ReplaceAllString(query, "?")
	}
	return strings.ReplaceAll(query, "$", "?")
}

// ExecContext runs a statement that changes rows.
func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	st, err := s.get(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

// QueryContext runs a statement that returns rows.
func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := s.get(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// lock has nothing to do: SQLite has one writer at a time.
func (s *statements) lock(context.Context, string, ...any) error { return nil }

func (s *statements) locking() string { return "" }

func (s *statements) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.byTxt {
		st.Close()
	}
	s.byTxt = nil
}
