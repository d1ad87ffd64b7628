// Package authhttp serves the tokens that clients pull and push with, as the
// Docker token protocol has it, and the keys that verify them.
//
// Its one idea: the grant is what was asked for and is allowed, and a smaller
// or empty one is no error. Only bad credentials are.
package authhttp

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
)

// KeysPath is where the keys are that verify tokens.
const KeysPath = "/.well-known/jwks.json"

// Options of New. Authenticator, Tokens and Allow are required.
type Options struct {
	Authenticator *auth.Authenticator
	Tokens        *auth.Tokens
	// Refresh makes refresh tokens; nil: there are none.
	Refresh *auth.Refresh
	// Allow is what of a scope's actions a caller may do.
	Allow func(context.Context, auth.Identity, auth.Scope) ([]string, error)
	// Repository is the name here of what a client calls a repository, which may
	// depend on how it came here. nil: the same.
	Repository func(r *http.Request, name string) string
	// Record is told of log-ins and grants; it must not wait. nil: nobody is.
	Record func(audit.Event)
	// Log gets one line a request; nil: none.
	Log *slog.Logger
}

type handler struct{ Options }

// New returns a handler of auth.TokenPath and KeysPath; other paths are answered
// with 404. The RemoteAddr of requests must be the client's true address.
func New(o Options) http.Handler {
	if o.Record == nil {
		o.Record = func(audit.Event) {}
	}
	if o.Repository == nil {
		o.Repository = func(_ *http.Request, name string) string { return name }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{o}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(h, w, r)
	x.finish(x.run())
}

// serve finds the handler of a path and method.
func (x *exchange) serve() error {
	switch x.r.URL.Path {
	case auth.TokenPath:
		switch x.r.Method {
		case http.MethodGet:
			return x.getToken()
		case http.MethodPost:
			return x.postToken()
		}
		return x.notAllowed("GET, POST")
	case KeysPath:
		if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
			return x.getKeys()
		}
		return x.notAllowed("GET, HEAD")
	}
	return &failure{http.StatusNotFound, "UNSUPPORTED", "there is nothing here"}
}

func (x *exchange) notAllowed(methods string) error {
	x.w.Header().Set("Allow", methods)
	return &failure{http.StatusMethodNotAllowed, "UNSUPPORTED", "use " + methods}
}

func (x *exchange) getKeys() error {
	keys, err := x.h.Tokens.JWKS(x.r.Context())
	if err != nil {
		return err
	}
	x.w.Header().Set("Cache-Control", "public, max-age=60")
	x.respond(http.StatusOK, "application/jwk-set+json", keys)
	return nil
}
