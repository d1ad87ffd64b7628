// Package archtest holds the code to the arrows of its design: who may import
// whom, and what the product depends on.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berth-registry/berth"

// ours are all arrows between packages of this module, apart from those of
// app, cmd and tests. A package that is not named may import none of them.
var ours = map[string][]string{
	"internal/apihttp":               {"internal/access", "internal/audit", "internal/auth", "internal/manage", "internal/meta", "internal/registry", "internal/requestid"},
	"internal/audit/recorder":        {"internal/audit", "internal/registry"},
	"internal/auth":                  {"internal/access", "internal/directory"},
	"internal/authhttp":              {"internal/access", "internal/audit", "internal/auth", "internal/oci", "internal/requestid"},
	"internal/blob/fsblob":           {"internal/blob", "internal/disk"},
	"internal/blob/memblob":          {"internal/blob"},
	"internal/blob/s3blob":           {"internal/blob"},
	"internal/blob/blobtest":         {"internal/blob"},
	"internal/config":                {"internal/notation", "internal/proxyspec"},
	"internal/credential":            {"internal/registry"},
	"internal/directory":             {"internal/access"},
	"internal/hosted":                {"internal/registry", "internal/blob", "internal/meta", "internal/oci"},
	"internal/jobs":                  {"internal/meta"},
	"internal/limit":                 {"internal/access", "internal/auth", "internal/clientaddr", "internal/directory", "internal/registry"},
	"internal/manage":                {"internal/access", "internal/audit", "internal/auth", "internal/directory", "internal/meta", "internal/oci"},
	"internal/meta":                  {"internal/oci", "internal/disk", "internal/access", "internal/audit"},
	"internal/meta/metatest":         {"internal/access", "internal/audit", "internal/oci", "internal/meta", "internal/pgtest"},
	"internal/metrics":               {"internal/registry"},
	"internal/namespace":             {"internal/notation", "internal/proxyspec", "internal/requestid"},
	"internal/ocihttp":               {"internal/access", "internal/audit", "internal/auth", "internal/oci", "internal/registry", "internal/requestid"},
	"internal/oidc":                  {"internal/access", "internal/audit", "internal/auth", "internal/meta"},
	"internal/policy":                {"internal/access", "internal/audit", "internal/auth", "internal/directory", "internal/oci", "internal/registry"},
	"internal/proxy":                 {"internal/meta", "internal/oci", "internal/registry"},
	"internal/proxyspec":             {"internal/access", "internal/notation"},
	"internal/registry":              {"internal/oci"},
	"internal/registry/registrytest": {"internal/oci", "internal/registry"},
	"internal/tracing":               {"internal/registry"},
	"internal/remote":                {"internal/registry", "internal/oci"},
	"internal/upstream":              {"internal/credential", "internal/oci", "internal/registry", "internal/remote"},
	"internal/virtual":               {"internal/oci", "internal/registry"},
}

// theirs are the modules that the product imports, and by which packages. Each
// is justified in a record under docs/adr.
var theirs = map[string][]string{
	"github.com/aws/aws-sdk-go-v2":                                    {"internal/blob/s3blob", "internal/blob/s3blob/s3test", "internal/credential"},
	"github.com/aws/aws-sdk-go-v2/config":                             {"internal/blob/s3blob", "internal/credential"},
	"github.com/aws/aws-sdk-go-v2/credentials":                        {"internal/blob/s3blob/s3test"},
	"github.com/aws/aws-sdk-go-v2/service/s3":                         {"internal/blob/s3blob", "internal/blob/s3blob/s3test"},
	"github.com/aws/smithy-go":                                        {"internal/blob/s3blob"},
	"github.com/coreos/go-oidc/v3":                                    {"internal/oidc"},
	"github.com/danielgtaylor/huma/v2":                                {"internal/apihttp"},
	"github.com/go-jose/go-jose/v4":                                   {"internal/auth", "internal/oidc"},
	"github.com/goccy/go-yaml":                                        {"internal/config"},
	"github.com/google/uuid":                                          {"internal/hosted", "internal/meta", "internal/meta/metatest"},
	"github.com/jackc/pgx/v5":                                         {"internal/meta", "internal/pgtest"},
	"github.com/oapi-codegen/runtime":                                 {"internal/apiclient"},
	"github.com/prometheus/client_golang":                             {"internal/metrics"},
	"github.com/pressly/goose/v3":                                     {"internal/meta"},
	"github.com/spf13/cobra":                                          {"cmd/berth"},
	"go.opentelemetry.io/otel":                                        {"internal/tracing"},
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp": {"internal/tracing"},
	"go.opentelemetry.io/otel/sdk":                                    {"internal/tracing"},
	"go.opentelemetry.io/otel/trace":                                  {"internal/tracing"},
	"golang.org/x/crypto":                                             {"internal/auth"},
	"golang.org/x/net":                                                {"internal/credential"},
	"golang.org/x/oauth2":                                             {"internal/credential", "internal/oidc"},
	"modernc.org/sqlite":                                              {"internal/meta"},
}

// fronts speak HTTP, as servers or as clients; everything below them does not.
var fronts = []string{
	"cmd/berth", "internal/blob/s3blob", "internal/blob/s3blob/s3test", "internal/apiclient", "internal/apihttp", "internal/app", "internal/auth", "internal/authhttp",
	"internal/clientaddr", "internal/credential", "internal/metrics", "internal/namespace", "internal/ocihttp", "internal/oidc", "internal/remote", "internal/requestid", "internal/tracing", "internal/upstream",
}

// top packages are imported by app and cmd alone.
var top = []string{
	"internal/apiclient", "internal/apihttp", "internal/app", "internal/authhttp", "internal/config", "internal/ocihttp", "internal/oidc",
}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// list asks the go command for the product's packages and all they depend on.
func list(t *testing.T) (own []listed, all map[string]listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard,Module", "./...")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all = map[string]listed{}
	for dec := json.NewDecoder(out); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
		if name, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok {
			p.ImportPath = name
			own = append(own, p)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(own) < len(ours) {
		t.Fatalf("go list names only %d packages", len(own))
	}
	return own, all
}

func TestArrows(t *testing.T) {
	own, all := list(t)
	for _, p := range own {
		head := p.ImportPath == "internal/app" || strings.HasPrefix(p.ImportPath, "cmd/")
		for _, path := range p.Imports {
			target := all[path]
			name, isOurs := strings.CutPrefix(path, module+"/")
			switch {
			case path == "net/http" && !slices.Contains(fronts, p.ImportPath):
				t.Errorf("%s imports net/http, which is for %v", p.ImportPath, fronts)
			case path == "C" || path == "unsafe":
				t.Errorf("%s imports %s", p.ImportPath, path)
			case target.Standard:
			case isOurs && head:
			case isOurs && slices.Contains(top, name):
				t.Errorf("%s imports %s, which is for app and cmd alone", p.ImportPath, name)
			case isOurs && !slices.Contains(ours[p.ImportPath], name):
				t.Errorf("%s imports %s; it may import %v", p.ImportPath, name, ours[p.ImportPath])
			case !isOurs && (target.Module == nil || !slices.Contains(theirs[target.Module.Path], p.ImportPath)):
				t.Errorf("%s imports %s; see the table of modules in this test", p.ImportPath, path)
			}
		}
	}
}

// TestTablesAreCurrent: a row that no package needs any more must go.
func TestTablesAreCurrent(t *testing.T) {
	own, all := list(t)
	imports, modules := map[string]bool{}, map[string]bool{}
	for _, p := range own {
		for _, path := range p.Imports {
			imports[p.ImportPath+" "+strings.TrimPrefix(path, module+"/")] = true
			if m := all[path].Module; m != nil {
				modules[p.ImportPath+" "+m.Path] = true
			}
		}
	}
	for from, list := range ours {
		for _, to := range list {
			if !imports[from+" "+to] {
				t.Errorf("%s need not import %s any more", from, to)
			}
		}
	}
	for path, list := range theirs {
		for _, from := range list {
			if !modules[from+" "+path] {
				t.Errorf("%s need not import %s any more", from, path)
			}
		}
	}
}

// TestDependenciesAreRecorded: each module has its reason in a decision record.
func TestDependenciesAreRecorded(t *testing.T) {
	files, err := filepath.Glob("../../docs/adr/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("decision records: %v, %v", files, err)
	}
	var records strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		records.Write(text)
	}
	for path := range theirs {
		if !strings.Contains(records.String(), path) {
			t.Errorf("no record in docs/adr names %s", path)
		}
	}
}

// TestOnlySmallPackagesBelow: oci and registry pull no module into who uses them.
func TestOnlySmallPackagesBelow(t *testing.T) {
	for _, name := range []string{"internal/access", "internal/audit", "internal/blob", "internal/oci", "internal/registry"} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.FieldsSeq(string(out)) {
			if path != module+"/"+name && path != module+"/internal/oci" {
				t.Errorf("%s depends on %s", name, path)
			}
		}
	}
}
