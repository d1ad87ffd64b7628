// Package apiclient is the Go client of the management API, generated from the
// server's own document.
package apiclient

// The document is written first: it comes from the server's types.
//go:generate go test ../apihttp -run TestDocumentIsCommitted -update
//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config config.yaml ../../docs/api/openapi.yaml
//go:generate go test . -run TestClientIsCurrent -update
