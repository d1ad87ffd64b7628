package meta

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	postgresTimeout = 10 * time.Second // of a statement, unless Options says otherwise
	checkTimeout    = 10 * time.Minute // the same for checks
	postgresLock    = 10 * time.Second // that a statement waits for a lock
	postgresIdle    = 10 * time.Second // of a transaction whose process hangs
	postgresGrace   = 2 * time.Second  // beyond the statement's time, of a read or a transaction in all
	connectTimeout  = 5 * time.Second  // unless the URL says otherwise
	migrationLock   = 0x6265727468     // of the schema, a key of pg_advisory_lock
)

// postgresEngine keeps the rows on a PostgreSQL server, which other processes
// use too.
type postgresEngine struct {
	pool        *sql.DB
	config      *pgx.ConnConfig
	connections int
	slots       *slots // as many as there are connections
	timeout     time.Duration
	outage      *outage
	hear        Observer
	walks       bool   // reads whole tables, for a check
	emits       bool   // may commit in two steps
	waits       string // the statement that makes a transaction wait for the disk

	mu     sync.RWMutex // held for reading by each call
	closed bool
}

func openPostgres(ctx context.Context, o Options) (*postgresEngine, error) {
	config, err := pgx.ParseConfig(o.Postgres)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err) // which hides the password
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "berth"
	}
	e := &postgresEngine{config: config.Copy(), timeout: o.Timeout, hear: o.Observe, walks: o.Existing}
	if e.timeout == 0 && o.Existing {
		e.timeout = checkTimeout
	}
	e.timeout = cmp.Or(e.timeout, postgresTimeout)
	e.outage = newOutage(e.timeout)
	config.DialFunc = dialer.DialContext // for migrations, which take their time
	if err := e.open(ctx, config, o); err != nil {
		e.close()
		return nil, fmt.Errorf("PostgreSQL database %q on %s: %w", config.Database, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), classify(err))
	}
	return e, nil
}

// dialer notices within half a minute that a server is gone without a word.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}

// dial connects for statements, which do not wait so long.
func (e *postgresEngine) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: conn, limit: e.timeout + postgresGrace/2}, nil
}

func (e *postgresEngine) open(ctx context.Context, config *pgx.ConnConfig, o Options) error {
	if err := prepareSchema(ctx, config, o.Existing); err != nil {
		return err
	}
	var err error
	if e.waits, err = waiting(ctx, config); err != nil {
		return err
	}
	e.config.DialFunc = e.dial
	e.pool = stdlib.OpenDB(*e.config, stdlib.OptionAfterConnect(e.settle))
	e.connections = cmp.Or(o.Connections, max(16, 4*runtime.GOMAXPROCS(0)))
	e.slots = newSlots(e.connections)
	e.pool.SetMaxOpenConns(e.connections)
	e.pool.SetMaxIdleConns(e.connections)
	e.pool.SetConnMaxIdleTime(5 * time.Minute)
	e.pool.SetConnMaxLifetime(time.Hour)
	return e.pool.QueryRowContext(ctx, mayEmit).Scan(&e.emits)
}

// settle sets up a new connection. Its transactions wait for the disk where they
// say so.
//
// Statements are planned once for each connection and as the tests want them to
// be: a plan made while a table was small, or was believed to be, must not read
// it whole when it has grown. Checks do walk tables.
func (e *postgresEngine) settle(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT
		set_config('enable_seqscan', $4, false), set_config('jit', 'off', false),
		set_config('plan_cache_mode', 'force_generic_plan', false),
		set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false),
		set_config('idle_in_transaction_session_timeout', $3, false),
		set_config('default_transaction_isolation', 'read committed', false),
		set_config('synchronous_commit', 'off', false)`,
		inMillis(e.timeout), inMillis(min(postgresLock, e.timeout)), inMillis(postgresIdle), onOff(e.walks))
	return err
}

// waiting is the statement that makes a transaction wait for the disk as those of
// other programs do. A server that does not by its own settings does so here; one
// that waits for more, such as a standby, keeps doing that.
func waiting(ctx context.Context, config *pgx.ConnConfig) (string, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var level string
	err = conn.QueryRow(ctx, `SHOW synchronous_commit`).Scan(&level)
	if level == "off" {
		level = "on"
	}
	return `SELECT set_config('synchronous_commit', '` + level + `', true)`, err
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func inMillis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// prepareSchema brings the schema up to date, one process at a time, and
// checks what the rows' order depends on.
func prepareSchema(ctx context.Context, config *pgx.ConnConfig, check bool) error {
	pool := stdlib.OpenDB(*config)
	defer pool.Close()
	pool.SetMaxOpenConns(2) // the lock's and the migrations'
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // which ends the lock, at the latest with the pool
	if err := checkEncoding(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return err
	}
	if check {
		if err := checkPresent(ctx, conn); err != nil {
			return err
		}
	}
	if err := migrate(ctx, goose.DialectPostgres, pool, bytewise{migrations}, check); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, migrationLock); err != nil {
		return err
	}
	return checkCollation(ctx, conn)
}

// checkPresent finds out, without making anything, whether there is a schema.
func checkPresent(ctx context.Context, conn *sql.Conn) error {
	var there bool
	err := conn.QueryRowContext(ctx, `SELECT to_regclass('goose_db_version') IS NOT NULL`).Scan(&there)
	if err == nil && !there {
		err = errors.New("no schema: is this the database of a registry? Start `berth serve` once to make one")
	}
	return err
}

func checkEncoding(ctx context.Context, conn *sql.Conn) error {
	var encoding string
	err := conn.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding)
	if err == nil && encoding != "UTF8" {
		err = fmt.Errorf("its encoding is %s: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", encoding)
	}
	return err
}

// checkCollation wants all text of the schema to sort by its bytes.
func checkCollation(ctx context.Context, conn *sql.Conn) error {
	tables, err := tableNames()
	if err != nil {
		return err
	}
	var column string
	err = conn.QueryRowContext(ctx, `SELECT c.relname || '.' || a.attname
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_collation l ON l.oid = a.attcollation
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname = ANY($1)
		AND a.attnum > 0 AND NOT a.attisdropped AND l.collname NOT IN ('C', 'POSIX') ORDER BY 1 LIMIT 1`, tables).Scan(&column)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err == nil:
		return fmt.Errorf(`column %s does not sort bytewise: its collation must be "C", as berth's own migrations make it; restore the database from a dump with its schema`, column)
	}
	return err
}

var createTable = regexp.MustCompile(`(?m)^CREATE TABLE (\w+)`)

// tableNames are the tables that the migrations make.
func tableNames() (names []string, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, match := range createTable.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names, nil
}

// bytewise is the migrations with every text column in the collation "C", which
// SQLite has as its only one and does not know by that name.
type bytewise struct{ embed.FS }

var textColumn = regexp.MustCompile(`\bTEXT\b`)

// Open opens a file or folder.
func (b bytewise) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &textFile{f, bytes.NewReader(textColumn.ReplaceAll(text, []byte(`TEXT COLLATE "C"`)))}, nil
}

// ReadFile is fs.ReadFile, not that of the files below.
func (b bytewise) ReadFile(name string) ([]byte, error) {
	f, err := b.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

type textFile struct {
	fs.File
	content io.Reader
}

func (f *textFile) Read(p []byte) (int, error) { return f.content.Read(p) }

// query reads outside of any transaction. It is tried again where the server
// has just ended the connection, as it does with all when it restarts, or has
// none to give.
func (e *postgresEngine) query(ctx context.Context, query string, args []any) (list *rows, err error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return nil, ErrClosed
	}
	ctx = context.WithoutCancel(ctx)
	end := e.limit()
	for try := 1; ; try++ {
		if err := e.enter(ctx, end); err != nil {
			return nil, err
		}
		start := e.outage.now()
		result, err := e.pool.QueryContext(ctx, query, args...)
		if err != nil {
			e.slots.release()
		}
		last := err == nil || try >= maxLost || worth(err) != maxLost || time.Now().After(end) || !pause(ctx, try)
		err = late(err)
		e.outage.heard(start, err, last, e.ask)
		switch {
		case err == nil:
			return &rows{Rows: result, done: e.slots.release}, nil
		case last:
			return nil, err
		}
		e.hear.retried(err)
	}
}

// limit is when a read or a transaction that begins now has no time for another
// statement, or another attempt. Each statement is bounded by the server's time
// limit, and by that of the connection where the server does not answer at all.
func (e *postgresEngine) limit() time.Time { return time.Now().Add(e.timeout + postgresGrace) }

// enter waits for a connection to be free, at most until end, and takes its slot.
// It fails while the server is known not to answer.
func (e *postgresEngine) enter(ctx context.Context, end time.Time) error {
	if err := e.outage.wait(ctx); err != nil {
		return err
	}
	if err := e.slots.take(ctx, end); err != nil {
		return late(err)
	}
	if err := e.outage.err(); err != nil { // it began meanwhile
		e.slots.release()
		return err
	}
	return nil
}

// preceding: a server that crashes loses the end of its log, and this process goes
// on with another.
func (e *postgresEngine) preceding() kind { return durable }

// check looks for constraints and indexes that the server does not vouch for.
// Whether its pages are whole is for pg_amcheck and its checksums.
func (e *postgresEngine) check(ctx context.Context) ([]string, error) {
	list, err := e.query(ctx, `SELECT 'constraint ' || conname || ' of ' || conrelid::regclass || ' is not validated'
		FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND NOT convalidated
		UNION ALL SELECT 'index ' || indexrelid::regclass || ' is not valid' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND NOT i.indisvalid LIMIT 20`, nil)
	if err != nil {
		return nil, err
	}
	return collect(list, scanString)
}

func (e *postgresEngine) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.outage.close()
	if e.pool == nil {
		return nil
	}
	return e.pool.Close()
}
