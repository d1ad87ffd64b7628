package apihttp

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/berth-registry/berth/internal/apiclient"
)

// TestClient: the generated client understands the server.
func TestClient(t *testing.T) {
	s := populated(t)
	srv := httptest.NewServer(s.handler)
	defer srv.Close()
	c, err := apiclient.NewClientWithResponses(srv.URL+Prefix, apiclient.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", s.secrets["owner"])
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	role := apiclient.NewKeyRoleWriter
	made, err := c.CreateProjectKeyWithResponse(t.Context(), "app", &apiclient.CreateProjectKeyParams{IdempotencyKey: new(onceKey)},
		apiclient.NewKey{Name: "made", Role: &role})
	if err != nil || made.JSON201 == nil {
		t.Fatalf("%v %s", err, made.Body)
	}
	s.secrets["made"] = "Bearer " + made.JSON201.Secret
	s.do("made", "GET /me", "").wants(200)
	got, err := c.PutProjectMemberWithResponse(t.Context(), "app", "user", "stranger",
		&apiclient.PutProjectMemberParams{Prefix: new("app/web")}, apiclient.RoleGrant{Role: "writer"})
	if err != nil || got.JSON200 == nil || got.JSON200.Name != "stranger" {
		t.Fatalf("%v %s", err, got.Body)
	}
	refused, err := c.ListUsersWithResponse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := refused.ApplicationproblemJSONDefault; p == nil || p.Status == nil || *p.Status != 403 || p.Detail == nil {
		t.Errorf("problem %+v of %s", p, refused.Body)
	}
}
