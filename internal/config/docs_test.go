package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/proxyspec"
)

const docsFile = "../../docs/configuration.md"

// TestDocs holds the tables of docs/configuration.md against the keys and the
// fields of lists; `go test ./internal/config -update` writes them.
func TestDocs(t *testing.T) {
	content, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	written := string(content)
	for name, table := range map[string]string{
		"keys":    docsTable(),
		"proxies": fieldsTable(reflect.TypeFor[proxyspec.Proxy]()),
		"virtual": fieldsTable(reflect.TypeFor[proxyspec.Virtual]()),
	} {
		begin, end := "<!-- "+name+": written by go test ./internal/config -update -->\n", "<!-- end of "+name+" -->\n"
		head, rest, ok := strings.Cut(written, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no lines %q and %q around a table", docsFile, begin, end)
		}
		written = head + begin + table + end + tail
	}
	if *update {
		if err := os.WriteFile(docsFile, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if written != string(content) {
		t.Errorf("%s differs from the code; run go test ./internal/config -update. It should be:\n%s", docsFile, written)
	}
}

// fieldsTable describes what the items of a list hold.
func fieldsTable(t reflect.Type) string {
	var out strings.Builder
	out.WriteString("| Key | Meaning |\n|---|---|\n")
	for _, f := range specFields(t, "") {
		fmt.Fprintf(&out, "| `%s` | %s |\n", f.path, strings.NewReplacer("*", "\\*", "|", "\\|").Replace(f.doc))
	}
	return out.String()
}

// TestFieldsAreDocumented: all that can be set says what it is.
func TestFieldsAreDocumented(t *testing.T) {
	var undocumented func(path string, s reflect.Type)
	undocumented = func(path string, s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			below := f.Type
			if below.Kind() == reflect.Slice {
				below = below.Elem()
			}
			if below.Kind() == reflect.Struct {
				undocumented(path+"."+jsonName(f), below)
			} else if f.Tag.Get("doc") == "" {
				t.Errorf("%s.%s has no doc", path, jsonName(f))
			}
		}
	}
	undocumented("proxies", reflect.TypeFor[proxyspec.Proxy]())
	undocumented("virtual", reflect.TypeFor[proxyspec.Virtual]())
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
