package meta

import (
	"context"
	"strings"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
)

// record writes an event of the transaction's caller into the trail; where
// nobody was named, the registry itself is at work and leaves none.
func (db *DB) record(t *tx, ctx context.Context, fill func(*audit.Event)) error {
	c := audit.CallerOf(ctx)
	if c == nil {
		return nil
	}
	e := c.Event("")
	fill(&e)
	return db.insertAudit(t, e)
}

// insertAudit gives an event its id and, where it has none, its time.
func (db *DB) insertAudit(t *tx, e audit.Event) error {
	if e.Time.IsZero() {
		e.Time = db.now()
	}
	if e.Project == "" {
		e.Project = access.ProjectOf(e.Repository)
	}
	_, err := t.exec(`INSERT INTO audit
		(id, at, request, identity, key_id, address, agent, action, project, repository, reference, digest, bytes, status, reason)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		newID(), e.Time.UnixMilli(), e.Request, e.Identity, e.Key, e.Address, printable(e.Agent), e.Action,
		e.Project, e.Repository, e.Reference, e.Digest, e.Bytes, e.Status, printable(e.Reason))
	return err
}

// printable keeps what clients send from being anything but a short line.
func printable(s string) string {
	const most = 256
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
