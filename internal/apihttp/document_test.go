package apihttp

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the document and the golden files anew")

// documents are committed copies of what the server serves.
var documents = map[string]string{
	"/openapi.yaml": "../../docs/api/openapi.yaml",
}

// TestDocumentIsCommitted: go generate ./internal/apiclient writes them anew.
func TestDocumentIsCommitted(t *testing.T) {
	h := New(Options{})
	for path, file := range documents {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Prefix+path, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		if *update {
			if err := os.WriteFile(file, w.Body.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		committed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(committed) != w.Body.String() {
			t.Errorf("%s is not what the server serves; run go generate ./internal/apiclient", file)
		}
	}
}
