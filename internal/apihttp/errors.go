package apihttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/registry"
)

// statuses of the codes of manage.
var statuses = map[manage.Code]int{
	manage.Invalid:      http.StatusUnprocessableEntity,
	manage.Unauthorized: http.StatusUnauthorized,
	manage.Denied:       http.StatusForbidden,
	manage.NotFound:     http.StatusNotFound,
	manage.Conflict:     http.StatusConflict,
	manage.KeyReused:    http.StatusUnprocessableEntity,
	manage.TooMany:      http.StatusTooManyRequests,
}

const (
	challenge  = `Basic realm="Berth API", charset="UTF-8"`
	loginHint  = "log in with a user name and password, or with a key as the password"
	internal   = "internal error; its cause is in the server's log under the id in X-Request-Id"
	retryAfter = 10 * time.Second // where nobody knows better
	retrySoon  = 5 * time.Second  // what mends itself, and most often fast
)

// refusal is what an error looks like on the wire.
type refusal struct {
	status int
	detail string
	retry  time.Duration
}

// describe finds the form of an error. Of those that are the server's fault it
// tells nothing.
func describe(err error) refusal {
	var own *manage.Error
	var throttled *auth.ThrottledError
	var coded *registry.Error
	switch {
	case errors.As(err, &own):
		return refusal{statuses[own.Code], own.Detail, own.Retry}
	case errors.As(err, &throttled):
		return refusal{http.StatusTooManyRequests, "too many log-ins failed; wait and try again", throttled.RetryAfter}
	case errors.Is(err, auth.ErrCredentials), registry.IsCode(err, registry.Unauthorized):
		return refusal{status: http.StatusUnauthorized, detail: loginHint}
	case errors.As(err, &coded) && coded.Code == registry.TooManyRequests:
		r := refusal{http.StatusTooManyRequests, "too many requests; wait and try again", retryAfter}
		if coded.Limit != nil {
			r.retry = coded.Limit.RetryAfter
		}
		return r
	case errors.Is(err, access.ErrUnavailable):
		return refusal{http.StatusServiceUnavailable, "the registry's database is not available; try again", retrySoon}
	case errors.Is(err, context.DeadlineExceeded), registry.IsCode(err, registry.Unavailable):
		return refusal{http.StatusServiceUnavailable, "temporarily unavailable; try again", retryAfter}
	}
	return refusal{status: http.StatusInternalServerError, detail: internal}
}

// headers that belong to a refusal.
func (f refusal) headers() http.Header {
	h := http.Header{}
	switch {
	case f.status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", challenge)
	case f.retry > 0:
		seconds := (f.retry + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	return h
}

// problem is what a verb's error is answered with. Its cause is for the log.
func (a *api) problem(ctx context.Context, err error) error {
	f := describe(err)
	exchangeOf(ctx).err = err
	return huma.ErrorWithHeaders(problem(f.status, f.detail), f.headers())
}

// problem is an RFC 9457 object.
func problem(status int, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
}

// respondError answers what never came to a verb.
func respondError(w http.ResponseWriter, f refusal) {
	for key, values := range f.headers() {
		w.Header()[http.CanonicalHeaderKey(key)] = values
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(f.status)
	// Who does not take in an answer cannot be told so.
	_ = json.NewEncoder(w).Encode(problem(f.status, f.detail))
}

// withoutSecrets takes what was sent out of errors about it: it may be a
// password. Of errors that are the server's fault nothing stays.
func withoutSecrets(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	clean := *e
	clean.Errors = nil
	if e.Status >= http.StatusInternalServerError {
		return &clean, nil
	}
	for _, detail := range e.Errors {
		clean.Errors = append(clean.Errors, &huma.ErrorDetail{Message: detail.Message, Location: detail.Location})
	}
	return &clean, nil
}
