package authhttp

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/auth"
)

const (
	maxForm     = 64 << 10 // bytes
	formTimeout = 30 * time.Second
	maxAccount  = 255 // bytes of account, client_id and user names
)

// request is what a client asks for.
type request struct {
	service string
	scopes  []auth.Scope
	client  string
	offline bool // it would like a refresh token
}

// parse reads what GET and POST have in common.
func (x *exchange) parse(v url.Values) (q request, err error) {
	for _, name := range [...]string{"service", "account", "client_id", "username"} {
		switch values := v[name]; {
		case len(values) > 1:
			return q, malformed("%s is given twice", name)
		case name != "username" && !auth.Printable(v.Get(name)):
			return q, malformed("%s must be ASCII without quotes, backslashes and control characters", name)
		case name != "service" && len(v.Get(name)) > maxAccount:
			return q, malformed("%s has more than %d bytes", name, maxAccount)
		}
	}
	var known bool
	if q.service, known = x.h.Tokens.Service(v.Get("service")); !known {
		return q, malformed("this server gives no tokens for that service; see the challenge of the registry")
	}
	if q.scopes, err = auth.ParseScopes(v["scope"]); err != nil {
		return q, malformed("%s", err)
	}
	for i, s := range q.scopes {
		if s.Type == "repository" {
			q.scopes[i].Name = x.h.Repository(x.r, s.Name)
		}
	}
	q.client = v.Get("client_id")
	q.offline = v.Get("offline_token") == "true" || v.Get("access_type") == "offline"
	return q, nil
}

// query parses the URL's query.
func (x *exchange) query() (url.Values, error) {
	v, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return nil, malformed("the query is malformed")
	}
	return v, nil
}

// form reads a POST's body, which is the only place for credentials there.
func (x *exchange) form() (url.Values, error) {
	kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, &failure{http.StatusUnsupportedMediaType, "UNSUPPORTED", "send a form: application/x-www-form-urlencoded"}
	}
	if x.r.ContentLength > maxForm {
		return nil, tooLarge()
	}
	ctl := http.NewResponseController(x.w)
	// A ResponseWriter without deadlines (a test's recorder) has no connection to guard.
	_ = ctl.SetReadDeadline(time.Now().Add(formTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxForm))
	_ = ctl.SetReadDeadline(time.Time{})
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, tooLarge()
	}
	if err != nil {
		return nil, malformed("the form could not be read to its end")
	}
	v, err := url.ParseQuery(string(body))
	if err != nil || strings.Contains(string(body), "\x00") {
		return nil, malformed("the form is malformed")
	}
	return v, nil
}

func tooLarge() error {
	return &failure{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the form is too large"}
}

// one is the only value of a field that must be there.
func one(v url.Values, name string) (string, error) {
	if len(v[name]) != 1 || v[name][0] == "" {
		return "", malformed("give %s once", name)
	}
	return v[name][0], nil
}
