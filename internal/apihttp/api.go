// Package apihttp is the management API. It gives each verb of package manage
// its form on the wire; the OpenAPI document is made from the same types that
// requests are read into and answers written from.
package apihttp

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// Prefix of all paths.
const Prefix = "/api/v1"

// documentPath is where the document is, without its suffix.
const documentPath = Prefix + "/openapi"

// documentVersion is that of the API, not of the server.
const documentVersion = "1.0.0"

// Options of New. All are required but Log and Version.
type Options struct {
	Manage *manage.Manager
	// Identify says who a request is by. Errors: auth.ErrCredentials, a
	// *registry.Error of code TooManyRequests; any other is the server's fault.
	Identify func(*http.Request) (auth.Identity, error)
	Log      *slog.Logger // nil: none
	Version  string       // of the server
}

// api is the routes and their document.
type api struct {
	Options
	mux  *http.ServeMux
	huma huma.API
}

// New returns the handler of everything below Prefix.
func New(o Options) http.Handler {
	return &handler{api: newAPI(o), cross: newCrossOrigin()}
}

func newAPI(o Options) *api {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{Options: o, mux: http.NewServeMux()}
	a.huma = humago.NewWithPrefix(a.mux, Prefix, config())
	for _, routes := range []func(*api){
		organizations, projects, members, projectKeys, trustRules, users, me, groups, plans, trail, tokens, signingKeys, proxies,
	} {
		routes(a)
	}
	a.documentHeaders()
	a.document(".json", "application/openapi+json", func() ([]byte, error) { return json.Marshal(a.huma.OpenAPI()) })
	a.document(".yaml", "application/openapi+yaml", a.huma.OpenAPI().YAML)
	return a
}

// document serves the document, which is written when it is first asked for.
func (a *api) document(suffix, media string, write func() ([]byte, error)) {
	written := sync.OnceValues(write)
	a.mux.HandleFunc("GET "+documentPath+suffix, func(w http.ResponseWriter, _ *http.Request) {
		text, err := written()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(text) // who does not take in an answer cannot be told so
	})
}

func config() huma.Config {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Berth API",
				Version:     documentVersion,
				Description: about,
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"basic":  {Type: "http", Scheme: "basic", Description: "A user's name and password, or a key as the password of any name that is no user's."},
					"bearer": {Type: "http", Scheme: "bearer", Description: "A key."},
				},
			},
			Security: []map[string][]string{{"basic": {}}, {"bearer": {}}},
			Servers:  []*huma.Server{{URL: Prefix, Description: "This server"}},
			Tags:     tags(),
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{withoutSecrets},
	}
	return c
}

// schemaName is what a type is called in the document.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.PkgPath() == reflect.TypeFor[proxyspec.Proxy]().PkgPath() {
		return "ProxySpec" + strings.TrimPrefix(name, "Proxy")
	}
	return name
}

// about is what holds for all operations.
const about = `Organizations, projects, members, keys and what else decides who may do what in a Berth registry.

Errors are problem objects (RFC 9457): detail says what to do, errors what is wrong with which part of the request. What you may not see is 404 as if it were not there; what you see but may not do is 403.

Lists come in pages: limit bounds a page, and next, where it is there, is the after of the next one.

A request that creates something may carry an Idempotency-Key, so that it can be sent again when its answer was lost.

Every answer has an X-Request-Id, which is in the server's log and in the audit trail; a short one that you send is kept. No answer may be stored by caches.`

// documentHeaders says which headers come with which errors.
func (a *api) documentHeaders() {
	challenge := map[string]*huma.Param{"WWW-Authenticate": {
		Description: "How to log in", Schema: &huma.Schema{Type: huma.TypeString},
	}}
	retry := map[string]*huma.Param{"Retry-After": {
		Description: "Seconds until it makes sense to try again", Schema: &huma.Schema{Type: huma.TypeInteger},
	}}
	for _, item := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				op.Responses["401"].Headers, op.Responses["429"].Headers, op.Responses["503"].Headers = challenge, retry, retry
			}
		}
	}
}

func tags() []*huma.Tag {
	return []*huma.Tag{
		{Name: "organizations", Description: "Groups of projects, and who has roles in all of them."},
		{Name: "projects", Description: "First segments of repository names, with what holds for all below."},
		{Name: "members", Description: "Who has which role in a project."},
		{Name: "keys", Description: "Credentials of programs."},
		{Name: "trust rules", Description: "Jobs that come with the ID token of their CI system."},
		{Name: "users", Description: "People."},
		{Name: "me", Description: "Yourself."},
		{Name: "groups", Description: "Users that roles are given to together."},
		{Name: "plans", Description: "Bounds of what is used."},
		{Name: "audit", Description: "Who did what."},
		{Name: "tokens", Description: "Long-lived tokens of clients."},
		{Name: "signing keys", Description: "Keys that sign tokens."},
		{Name: "proxies", Description: "Pull-through caches of other registries."},
	}
}

// op describes an operation.
type op struct {
	method, path, id, tag string
	summary, description  string
	status                int // of success; 0: 200 or, without a body, 204
	// content is what success holds where the type of the answer does not say.
	content map[string]*huma.MediaType
}

// add registers an operation. verb runs with the caller of the request; its
// error is answered as a problem.
func add[I, O any](a *api, o op, verb func(context.Context, *manage.Caller, *I) (*O, error)) {
	huma.Register(a.huma, a.operation(o), func(ctx context.Context, in *I) (*O, error) {
		out, err := verb(ctx, callerOf(ctx), in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// operation is o with what all operations have in common.
func (a *api) operation(o op) huma.Operation {
	h := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Tags: []string{o.tag},
		Summary: o.summary, Description: o.description, DefaultStatus: o.status,
		MaxBodyBytes: maxBody, BodyReadTimeout: -1, // it is read already
		Errors: []int{401, 403, 404, 422, 429, 500, 503},
	}
	if o.content != nil {
		h.Responses = map[string]*huma.Response{"200": {Description: http.StatusText(http.StatusOK), Content: o.content}}
	}
	switch o.method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		h.Errors = append(h.Errors, 400, 409, 413, 415)
	case http.MethodDelete:
		h.Errors = append(h.Errors, 409)
	}
	if o.status == http.StatusCreated {
		h.Parameters = append(h.Parameters, idempotencyParameter())
	}
	return h
}

func idempotencyParameter() *huma.Param {
	least, most := minOnce, maxOnce
	return &huma.Param{
		Name: onceHeader, In: "header",
		Description: "Of your choice, unguessable and new for each request, such as a UUID. The same request with the same key within a day gets the same answer and does nothing more.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most, Pattern: "^[!-~]+$"},
		Example:     "5f0c1c1e-6a0d-4b6e-9a3b-2f6f0b0f7c11",
	}
}

// body is an answer with a body.
type body[T any] struct{ Body T }

// none is an answer without one.
type none struct{}

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

func empty(err error) (*none, error) {
	if err != nil {
		return nil, err
	}
	return &none{}, nil
}

// Paging is how a page of a list is asked for.
type Paging struct {
	After string `query:"after" maxLength:"512" doc:"The next of the page before; absent: the first page"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many" example:"100"`
}

func (p Paging) page() manage.Page { return manage.Page{After: p.After, Limit: p.Limit} }

// List is a page of a list.
type List[T any] struct {
	Items []T    `json:"items" nullable:"false" doc:"The page"`
	Next  string `json:"next,omitempty" doc:"The after of the next page; absent: this is the last"`
}

// list is an answer with a page.
func list[M, T any](page manage.List[M], err error, form func(M) T) (*body[List[T]], error) {
	if err != nil {
		return nil, err
	}
	items := make([]T, len(page.Items))
	for i, item := range page.Items {
		items[i] = form(item)
	}
	return &body[List[T]]{List[T]{items, page.Next}}, nil
}
