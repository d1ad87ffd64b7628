package apiclient

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "note the document that the client was generated from")

// TestClientIsCurrent: the client was generated from the document as it is now.
func TestClientIsCurrent(t *testing.T) {
	const file = "document.sha256"
	document, err := os.ReadFile("../../docs/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(document)
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(sum[:])+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	noted, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(noted)) != hex.EncodeToString(sum[:]) {
		t.Error("the client is not generated from this document; run go generate ./internal/apiclient")
	}
}
