package meta

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

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

const auditColumns = `id, at, request, identity, key_id, address, agent, action, project, repository, reference, digest, bytes, status, reason`

// auditWidth is the number of those columns.
const auditWidth = 15

// auditRows are how many events one statement may insert, the most first: a few
// texts, so that each is prepared once.
var auditRows = [...]int{32, 8, 1}

// auditInserts are the statements, of auditRows.
var auditInserts = func() (texts [len(auditRows)]string) {
	for i, n := range auditRows {
		list := make([]string, n)
		for row := range list {
			args := make([]string, auditWidth)
			for column := range args {
				args[column] = "$" + strconv.Itoa(row*auditWidth+column+1)
			}
			list[row] = "(" + strings.Join(args, ", ") + ")"
		}
		texts[i] = `INSERT INTO audit (` + auditColumns + `) VALUES ` + strings.Join(list, ", ")
	}
	return texts
}()

// insertAudit cleans events and gives each its id and, where it has none, its
// time.
func (db *DB) insertAudit(t *tx, events ...audit.Event) error {
	args := make([]any, 0, min(len(events), auditRows[0])*auditWidth)
	for i, most := range auditRows {
		for len(events) >= most {
			args = args[:0]
			for j := range events[:most] {
				args = db.auditRow(args, events[j])
			}
			if _, err := t.exec(auditInserts[i], args...); err != nil {
				return err
			}
			events = events[most:]
		}
	}
	return nil
}

func (db *DB) auditRow(args []any, e audit.Event) []any {
	if e.Time.IsZero() {
		e.Time = db.now()
	}
	if e.Project == "" {
		e.Project = access.ProjectOf(e.Repository)
	}
	e.Clean()
	return append(args, auditID(e.Time), e.Time.UnixMilli(), e.Request, e.Identity, e.Key, e.Address, e.Agent, e.Action,
		e.Project, e.Repository, e.Reference, e.Digest, e.Bytes, e.Status, e.Reason)
}

// auditID makes an id that sorts by the time of the event, which may be written
// later than another: a UUIDv7 of that time. Events of one moment sort as they
// are written.
func auditID(at time.Time) string {
	u, now := auditBound(at), uuid.Must(uuid.NewV7()) // which never repeats its time
	written := binary.BigEndian.Uint64(now[:])>>16<<12 | uint64(binary.BigEndian.Uint16(now[6:])&0xfff)
	binary.BigEndian.PutUint16(u[6:], 0x7000|uint16(at.UnixNano()%1e6>>8))
	binary.BigEndian.PutUint64(u[8:], 1<<63|written<<22&(1<<62-1)|rand.Uint64()>>42)
	return u.String()
}

// auditBound is the least id of the events since that millisecond.
func auditBound(at time.Time) (u uuid.UUID) {
	binary.BigEndian.PutUint64(u[:], uint64(max(at.UnixMilli(), 0))<<16)
	return u
}

// AppendAudit writes events that happened outside of any other transaction, all
// or none. They outlive the process at once, a loss of power with the next
// synced transaction: what changes something is recorded along with it.
func (db *DB) AppendAudit(ctx context.Context, events []audit.Event) error {
	return db.hint(ctx, func(t *tx) error { return db.insertAudit(t, events...) })
}

// PruneAudit deletes up to n of the oldest events that happened before the
// given time and returns how many.
func (db *DB) PruneAudit(ctx context.Context, before time.Time, n int) (pruned int, err error) {
	err = db.hint(ctx, func(t *tx) error {
		gone, err := t.exec(`DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id < $1 ORDER BY id LIMIT $2)`,
			auditBound(before).String(), n)
		pruned = int(gone)
		return err
	})
	return pruned, err
}

// AuditFilter says which events are listed: those for which all fields that are
// not zero hold.
type AuditFilter struct {
	Project    string
	Identity   string // kind:name
	Action     string // one that ends in a dot stands for all below: project.
	Repository string
	Since      time.Time // and later, to the millisecond
	Until      time.Time // and earlier, without it
	Newest     bool      // first; else the oldest
}

// auditScan bounds the rows that one page may look at.
const auditScan = 10_000

// ListAudit lists up to n events behind the cursor after, "" for the beginning.
// A page may be short, even empty, where few events match: only an empty next
// says that there are no more. The id of an event is a cursor too.
func (db *DB) ListAudit(ctx context.Context, f AuditFilter, after string, n int) (page []audit.Event, next string, err error) {
	s := f.span(after)
	// Where the look ends, which an index alone answers.
	err = db.queryRow(ctx, `SELECT id FROM audit `+s.where+s.order+` LIMIT 1 OFFSET $4`, s.from, s.to, s.project, auditScan-1).Scan(&next)
	switch {
	case err == nil && f.Newest:
		s.from = next
	case err == nil:
		s.to = behind(next)
	case !errors.Is(err, ErrNotFound):
		return nil, "", err
	}
	low, high := f.actions()
	rows, err := db.query(ctx, `SELECT `+auditColumns+` FROM audit `+s.where+`AND action >= $4 AND action < $5
		AND ($6 = '' OR identity = $6) AND ($7 = '' OR repository = $7) `+s.order+` LIMIT $8`,
		s.from, s.to, s.project, low, high, f.Identity, f.Repository, n)
	if err != nil {
		return nil, "", err
	}
	page, err = collect(rows, scanAudit)
	if len(page) == n && n > 0 {
		next = page[n-1].ID
	}
	return page, next, err
}

// span is a range of ids, from <= id < to, and how it is walked.
type span struct {
	from, to     string
	project      string
	where, order string
}

func (f AuditFilter) span(after string) span {
	s := span{to: "g", project: f.Project, order: `ORDER BY id`} // behind every id
	if !f.Since.IsZero() {
		s.from = auditBound(f.Since).String()
	}
	if !f.Until.IsZero() {
		s.to = auditBound(f.Until).String()
	}
	switch {
	case f.Newest:
		s.order = `ORDER BY id DESC`
		if after != "" {
			s.to = min(s.to, after)
		}
	case after != "":
		s.from = max(s.from, behind(after))
	}
	if s.project == "" {
		s.project = access.ProjectOf(f.Repository)
	}
	s.where = `WHERE id >= $1 AND id < $2 AND $3 = '' `
	if s.project != "" {
		s.where = `WHERE id >= $1 AND id < $2 AND project = $3 `
	}
	return s
}

// behind sorts next after an id.
func behind(id string) string { return id + "!" }

// actions is the range of actions that match.
func (f AuditFilter) actions() (low, high string) {
	switch {
	case f.Action == "":
		return "", "\u007f"
	case strings.HasSuffix(f.Action, "."):
		return f.Action, strings.TrimSuffix(f.Action, ".") + "/"
	}
	return f.Action, f.Action + "!"
}

func scanAudit(r *sql.Rows) (e audit.Event, err error) {
	var at int64
	err = r.Scan(&e.ID, &at, &e.Request, &e.Identity, &e.Key, &e.Address, &e.Agent, &e.Action,
		&e.Project, &e.Repository, &e.Reference, &e.Digest, &e.Bytes, &e.Status, &e.Reason)
	e.Time = time.UnixMilli(at).UTC()
	return e, err
}
