package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/registry"
)

// errSlow is what is said of an origin that has not answered yet.
var errSlow = &registry.Error{Code: registry.Unavailable, Detail: "the upstream registry has not answered in time; try again"}

// coded gives an error of the state its code.
func coded(err error, here string) error {
	if errors.Is(err, meta.ErrUnavailable) {
		return &registry.Error{Code: registry.Unavailable, Repo: here, Detail: "the registry's database is not available; try again", Err: err}
	}
	return err
}

// plainlyAbsent reports whether an origin says that it does not have something,
// and not that it does not show it.
func plainlyAbsent(err error) bool { return notThere(err) && !errors.Is(err, registry.ErrRefused) }

// theirs gives an error of the origin a code that means to clients what it means
// here: what the origin has against us is no affair of theirs.
func theirs(err error, there string) error {
	switch c := registry.CodeOf(err); c {
	case registry.Unauthorized, registry.Denied, registry.Unsupported, registry.ManifestTooLarge, registry.BlobTooLarge, registry.InsufficientStorage:
		return &registry.Error{Code: registry.Faulty, Repo: there, Err: err,
			Detail: "the upstream registry does not serve this: " + c.String() + "; the operator of this registry can look into it with berth proxy test"}
	}
	return err
}

// retryAfter is for how long whoever caused err wants to be left alone.
func retryAfter(err error) time.Duration {
	var e *registry.Error
	if errors.As(err, &e) && e.Limit != nil {
		return e.Limit.RetryAfter
	}
	return 0
}

// HTTP statuses that an origin's answers stand for.
const (
	statusOK              = 200
	statusNotFound        = 404
	statusTooManyRequests = 429
)

// statusOf is the HTTP status of an origin's error, 0 where it is not known.
func statusOf(err error) int {
	var answer interface{ HTTPStatus() int }
	switch {
	case errors.As(err, &answer):
		return answer.HTTPStatus()
	case plainlyAbsent(err):
		return statusNotFound
	case registry.IsCode(err, registry.TooManyRequests):
		return statusTooManyRequests
	}
	return 0
}

// detailOf is one token that says what was wrong with the origin.
func detailOf(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, errSlow):
		return "upstream-slow"
	case errors.Is(err, registry.ErrRefused):
		return "upstream-refused"
	}
	switch registry.CodeOf(err) {
	case registry.TooManyRequests:
		return "upstream-limit"
	case registry.Unavailable:
		return "upstream-unavailable"
	case registry.Faulty:
		return "upstream-faulty"
	}
	return "upstream-error"
}
