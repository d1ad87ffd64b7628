// Package ocihttp serves the OCI distribution API over a registry.Registry.
//
// Its one idea: a request is parsed into a value, a table gives the handler
// for its kind and method, every handler returns an error, and one place turns
// errors into answers. There is no router and no state between requests.
// docs/request-flow.md is normative for what each route does.
package ocihttp

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/registry"
)

// Limits on what one request may ask for.
const (
	maxURL      = 8 << 10  // bytes of the request target
	maxHeader   = 32 << 10 // bytes of all header fields together
	maxTags     = 100      // tag parameters of one manifest PUT
	maxPage     = 10_000   // elements of one page of a list
	maxIndex    = 4 << 20  // bytes of one page of referrers
	writeGrace  = time.Minute
	slowestRead = 10 << 10 // bytes a second that a client must take in
)

// Options of a handler.
type Options struct {
	// Open gives the registry as the caller may see it. Required. It is called
	// once a request, so it must be cheap.
	Open func(auth.Identity) registry.Registry
	// Identify says who sent the request; nil: it asks nobody, everybody is
	// local. An error answers the request, one with the code Unauthorized by 401.
	Identify func(*http.Request) (auth.Identity, error)
	// MayPush says whether a caller may push to a repository, so that who may not
	// is refused before a manifest is read into memory. It decides nothing else:
	// the registry of the caller does. nil: everybody may.
	MayPush func(ctx context.Context, id auth.Identity, repo string) (bool, error)
	// Challenge is the WWW-Authenticate value of a 401, for a request that needs
	// scope ("" for none). nil: Basic realm="Berth".
	Challenge func(r *http.Request, scope string, err error) string
	// Log gets one line a request; nil: none.
	Log *slog.Logger
	// Answered is told of each request, its route and method by one of a few
	// names. nil: nobody is.
	Answered func(route, method string, status int, took time.Duration)
	// BodyIdle cuts off a request body that brings nothing for so long; its
	// upload session stays. 0: one minute.
	BodyIdle time.Duration
	// Redirect says whether the client of a request is sent to where a blob is,
	// if the blob has an address of its own there. nil: every client is.
	Redirect func(*http.Request) bool
	// RedirectTTL is how long a URL that a client is redirected to must work.
	// 0: 15 minutes.
	RedirectTTL time.Duration
}

type handler struct{ Options }

// New returns a handler of everything under /v2/; other paths are answered
// with 404. It must see request paths as they were sent: no http.ServeMux or
// http.StripPrefix may rewrite them. Its server needs a ReadHeaderTimeout and
// an IdleTimeout, a MaxHeaderBytes above 40 KiB, and no ReadTimeout or
// WriteTimeout: the handler sets these deadlines itself.
func New(o Options) http.Handler {
	if o.Identify == nil {
		o.Identify = func(*http.Request) (auth.Identity, error) {
			return auth.Identity{Principal: access.Principal{Kind: access.Local}}, nil
		}
	}
	if o.Challenge == nil {
		o.Challenge = func(*http.Request, string, error) string { return `Basic realm="Berth"` }
	}
	if o.Answered == nil {
		o.Answered = func(string, string, int, time.Duration) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.BodyIdle == 0 {
		o.BodyIdle = time.Minute
	}
	if o.Redirect == nil {
		o.Redirect = func(*http.Request) bool { return true }
	}
	if o.RedirectTTL == 0 {
		o.RedirectTTL = 15 * time.Minute
	}
	return &handler{o}
}

// method is a column of the routes table.
type method uint8

const (
	methodOther method = iota
	methodGet
	methodHead
	methodPost
	methodPut
	methodPatch
	methodDelete
	methods
)

var methodNames = [methods]string{
	methodOther: "other",
	methodGet:   http.MethodGet, methodHead: http.MethodHead, methodPost: http.MethodPost,
	methodPut: http.MethodPut, methodPatch: http.MethodPatch, methodDelete: http.MethodDelete,
}

func methodOf(name string) method {
	for m := methodGet; m < methods; m++ {
		if methodNames[m] == name {
			return m
		}
	}
	return methodOther
}

// routes holds the handler of each kind of resource and method; nil: 405.
var routes = [kinds][methods]func(*exchange) error{
	kindPing:      {methodGet: (*exchange).ping, methodHead: (*exchange).ping},
	kindCatalog:   {methodGet: (*exchange).listRepositories, methodHead: (*exchange).listRepositories},
	kindTags:      {methodGet: (*exchange).listTags, methodHead: (*exchange).listTags},
	kindReferrers: {methodGet: (*exchange).listReferrers, methodHead: (*exchange).listReferrers},
	kindManifest: {
		methodGet: (*exchange).getManifest, methodHead: (*exchange).headManifest,
		methodPut: (*exchange).putManifest, methodDelete: (*exchange).deleteManifest,
	},
	kindBlob: {
		methodGet: (*exchange).getBlob, methodHead: (*exchange).headBlob,
		methodDelete: (*exchange).deleteBlob,
	},
	kindUploads: {methodPost: (*exchange).startUpload},
	kindUpload: {
		methodGet: (*exchange).uploadStatus, methodHead: (*exchange).uploadStatus,
		methodPatch: (*exchange).patchUpload, methodPut: (*exchange).putUpload,
		methodDelete: (*exchange).cancelUpload,
	},
}

// allowed lists the methods of a kind, except the one that was just refused.
func allowed(k kind, but method) string {
	list := ""
	for m := methodGet; m < methods; m++ {
		if routes[k][m] == nil || m == but {
			continue
		}
		if list != "" {
			list += ", "
		}
		list += methodNames[m]
	}
	return list
}
