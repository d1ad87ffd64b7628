package main

import (
	"database/sql"

	"github.com/rogpeppe/go-internal/testscript"
)

// newer FILE makes the schema of a SQLite database one of a newer release.
func newerCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "newer FILE")
	db, err := sql.Open("sqlite", ts.MkAbs(args[0])) // the driver of internal/meta
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, TRUE)`)
	ts.Check(err)
}
