package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

const docsFile = "../../docs/configuration.md"

// TestDocs holds the table of docs/configuration.md against the table of keys;
// `go test ./internal/config -update` writes it.
func TestDocs(t *testing.T) {
	const begin, end = "<!-- keys: written by go test ./internal/config -update -->\n", "<!-- end of keys -->\n"
	content, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(content), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q around its table", docsFile, begin, end)
	}
	want := docsTable()
	if *update {
		if err := os.WriteFile(docsFile, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want {
		t.Errorf("%s differs from the keys; run go test ./internal/config -update.\ngot:\n%s\nwant:\n%s", docsFile, table, want)
	}
}

var update = flag.Bool("update", false, "write the table of keys into the documentation")

func docsTable() string {
	var out strings.Builder
	out.WriteString("| Key | Default | Environment | Meaning |\n|---|---|---|---|\n")
	for i := range keys {
		k := &keys[i]
		initial := k.derived
		switch {
		case k.initial != "":
			initial = "`" + k.initial + "`"
		case initial == "":
			initial = "none"
		}
		fmt.Fprintf(&out, "| `%s` | %s | `%s` | %s |\n", k.path, initial, k.env(), k.doc)
	}
	return out.String()
}
