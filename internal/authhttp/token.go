package authhttp

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
)

// Events of the audit trail.
const (
	actionLogin = "login"       // with credentials, whatever came of it
	actionGrant = "token.grant" // of a repository's actions
)

// grantExchange is what RFC 8693 calls the exchange of a foreign token.
const grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

// getToken answers who sends Basic credentials, or none.
func (x *exchange) getToken() error {
	v, err := x.query()
	if err != nil {
		return err
	}
	q, err := x.parse(v)
	if err != nil {
		return err
	}
	id, err := x.basic()
	if err != nil {
		return x.refused(err)
	}
	return x.grant(id, q, false)
}

// basic says who sent the request. Without credentials that is nobody, whoever
// is let in without any elsewhere: no token may outlive such a state.
func (x *exchange) basic() (auth.Identity, error) {
	from := auth.AddressOf(x.r)
	switch headers := x.r.Header["Authorization"]; len(headers) {
	case 0:
		return auth.Identity{Principal: access.Principal{Address: from}}, nil
	case 1:
		if name, secret, ok := x.r.BasicAuth(); ok {
			return x.h.Authenticator.Login(x.r.Context(), name, secret, from)
		}
	}
	// A token is not to be had for a token: it would never end.
	return auth.Identity{}, &auth.Refusal{Reason: "no Basic credentials in the Authorization header", Err: auth.ErrCredentials}
}

// postToken answers who sends credentials in a form.
func (x *exchange) postToken() error {
	v, err := x.form()
	if err != nil {
		return err
	}
	q, err := x.parse(v)
	if err != nil {
		return err
	}
	id, err := x.granted(v, q)
	if err != nil {
		return x.refused(err)
	}
	return x.grant(id, q, true)
}

// granted says whom a form's credentials stand for.
func (x *exchange) granted(v url.Values, q request) (auth.Identity, error) {
	kind, err := one(v, "grant_type")
	if err != nil {
		return auth.Identity{}, err
	}
	switch kind {
	case "password":
		return x.passwordGrant(v)
	case "refresh_token":
		return x.refreshGrant(v, q)
	case grantExchange:
		return x.exchangeGrant(v)
	}
	return auth.Identity{}, malformed("unknown grant_type; use password, refresh_token or %s", grantExchange)
}

func (x *exchange) passwordGrant(v url.Values) (auth.Identity, error) {
	password, err := one(v, "password")
	if err != nil {
		return auth.Identity{}, err
	}
	return x.h.Authenticator.Login(x.r.Context(), v.Get("username"), password, auth.AddressOf(x.r))
}

// refreshGrant takes a key, too: clients that are given a secret without a user
// name send it so.
func (x *exchange) refreshGrant(v url.Values, q request) (auth.Identity, error) {
	secret, err := one(v, "refresh_token")
	if err != nil {
		return auth.Identity{}, err
	}
	switch from := auth.AddressOf(x.r); {
	case auth.LooksLikeKey(secret):
		return x.h.Authenticator.Login(x.r.Context(), "", secret, from)
	case x.h.Refresh != nil:
		return x.h.Refresh.Redeem(x.r.Context(), secret, q.service, from)
	}
	return auth.Identity{}, &auth.Refusal{Reason: "refresh tokens are turned off", Err: auth.ErrCredentials}
}

// exchangeGrant takes a job's ID token, under the name of the RFC or the one
// that people guess.
func (x *exchange) exchangeGrant(v url.Values) (auth.Identity, error) {
	name := "subject_token"
	if v.Has("id_token") {
		name = "id_token"
	}
	token, err := one(v, name)
	if err != nil {
		return auth.Identity{}, err
	}
	return x.h.Authenticator.Workload(x.r.Context(), token, auth.AddressOf(x.r))
}

// refused records a log-in that failed, and returns its error.
func (x *exchange) refused(err error) error {
	if e, refused := Refused(&x.caller, err); refused {
		x.h.Record(e)
	}
	return err
}

// Refused is the record of a log-in that failed because of the credentials, or
// of too many wrong ones. A name that is no user's is not told: people type
// passwords where names belong.
func Refused(c *audit.Caller, err error) (e audit.Event, refused bool) {
	e = c.Event(actionLogin)
	var throttled *auth.ThrottledError
	var refusal *auth.Refusal
	switch {
	case errors.As(err, &throttled):
		e.Status, e.Reference, e.Reason = http.StatusTooManyRequests, throttled.User, throttled.Reason
	case errors.As(err, &refusal):
		e.Status, e.Reference, e.Key, e.Reason = http.StatusUnauthorized, refusal.User, refusal.Key, refusal.Reason
	default:
		return e, false
	}
	return e, true
}

// answer is the body of a token.
type answer struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"` // seconds
	IssuedAt    string `json:"issued_at"`
	Scope       string `json:"scope,omitempty"`
	Refresh     string `json:"refresh_token,omitempty"`
}

// grant answers with a token for what of the request is allowed.
func (x *exchange) grant(id auth.Identity, q request, withScope bool) error {
	ctx := x.r.Context()
	x.caller.Owner, x.caller.Identity, x.caller.Key = id.Owner(), id.String(), id.KeyID
	scopes, err := x.allowed(id, q.scopes)
	if err != nil {
		return err
	}
	token, issued, err := x.h.Tokens.Mint(ctx, id.Principal, q.service, scopes)
	switch {
	case errors.Is(err, auth.ErrScope):
		return malformed("%s", err)
	case err != nil:
		return err
	}
	a := answer{Token: token, AccessToken: token, ExpiresIn: int64(x.h.Tokens.TTL() / time.Second), IssuedAt: issued.UTC().Format(time.RFC3339)}
	if withScope {
		a.Scope = joined(scopes)
	}
	if q.offline && x.h.Refresh != nil {
		if a.Refresh, err = x.h.Refresh.Issue(ctx, &id.Principal, q.service, q.client); err != nil {
			return err
		}
	}
	x.record(id, scopes)
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	x.w.Header().Set("Cache-Control", "no-store")
	x.respond(http.StatusOK, "application/json", body)
	return nil
}

// allowed is what of the scopes is granted. One of which nothing is left is left
// out.
func (x *exchange) allowed(id auth.Identity, asked []auth.Scope) ([]auth.Scope, error) {
	var granted []auth.Scope
	for _, s := range asked {
		if s.Type == "repository" && oci.CheckRepository(s.Name) != nil {
			continue
		}
		actions, err := x.h.Allow(x.r.Context(), id, s)
		if err != nil {
			return nil, err
		}
		if len(actions) > 0 {
			granted = append(granted, auth.Scope{Type: s.Type, Name: s.Name, Actions: actions})
		}
	}
	return granted, nil
}

func joined(scopes []auth.Scope) string {
	var texts []string
	for _, s := range scopes {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, " ")
}

// record tells the trail of a log-in and of what was granted. What everybody gets
// is not worth a line: nobody shall fill the trail without logging in.
func (x *exchange) record(id auth.Identity, scopes []auth.Scope) {
	if id.Kind == access.Anonymous {
		return
	}
	x.h.Record(x.event(actionLogin, "", ""))
	for _, s := range scopes {
		if s.Type == "repository" {
			x.h.Record(x.event(actionGrant, s.Name, strings.Join(s.Actions, ",")))
		}
	}
}

func (x *exchange) event(action, repository, reference string) audit.Event {
	e := x.caller.Event(action)
	e.Status, e.Repository, e.Reference = http.StatusOK, repository, reference
	return e
}
