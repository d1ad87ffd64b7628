package meta

import (
	"errors"
	"fmt"
	"testing"
)

// TestGenerationIsDurableFirst: two steps are for transactions that others wait
// for, but what raises the generation shows nobody what a crash may undo.
func TestGenerationIsDurableFirst(t *testing.T) {
	e := &postgresEngine{emits: true, waits: `SELECT 1`}
	for name, c := range map[string]struct {
		kind kind
		t    tx
		want string
	}{
		"wanted":             {durable, tx{wanted: true}, e.commitFreeing()},
		"wanted, and raises": {durable, tx{wanted: true, raised: new(int64)}, `COMMIT`},
		"not wanted":         {durable, tx{}, `COMMIT`},
		"alone":              {alone, tx{wanted: true}, `COMMIT`},
		"a hint":             {relaxed, tx{wanted: true}, `COMMIT`},
	} {
		if got := e.commit(c.kind, &c.t); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestSilenceIsUnavailable: also where a server falls silent amid the rows of an
// answer, which no attempt sees.
func TestSilenceIsUnavailable(t *testing.T) {
	if err := classify(fmt.Errorf("read: %w", errSilent)); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}
