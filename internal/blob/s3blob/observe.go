package s3blob

import (
	"context"
	"errors"
	"net/http"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Call is one operation of the service, with all attempts at it. The body of an
// object that is read comes after it.
type Call struct {
	Operation string // as S3 calls it: PutObject, UploadPart …
	Outcome   string // one of Outcomes
	Start     time.Time
	Took      time.Duration
	Attempts  int   // requests that were sent
	Sent      int64 // bytes of their bodies
	Received  int64 // bytes of the answer's body, by its header
}

// Outcomes are those of all calls: done; absent, no such object; taken, there is
// one already, which the call must not replace; refused, other than busy, by the service's rules or for the credentials; busy, the service
// asked for patience; failed within the service; unreachable, the service or the
// way to it; canceled by the caller.
func Outcomes() []string {
	return []string{"done", "absent", "taken", "refused", "busy", "failed", "unreachable", "canceled"}
}

// outcome is the one of Outcomes that a call's error stands for.
func outcome(err error) string {
	code := status(err)
	switch {
	case err == nil:
		return "done"
	case hasCode(err, "NoSuchBucket"):
		return "refused"
	case isGone(err), code == http.StatusNotFound:
		return "absent"
	case isTaken(err):
		return "taken"
	case code == http.StatusServiceUnavailable, code == http.StatusTooManyRequests, hasCode(err, "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"):
		return "busy"
	case code >= http.StatusInternalServerError:
		return "failed"
	case code >= http.StatusMultipleChoices:
		return "refused"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "unreachable"
}

// observer is a pair of steps in the SDK's handling of a call: the outermost,
// and one around each attempt.
type observer struct {
	tell func(context.Context, Call)
}

func (o observer) install(stack *middleware.Stack) error {
	return errors.Join(
		stack.Initialize.Add(middleware.InitializeMiddlewareFunc("BerthCall", o.call), middleware.Before),
		stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("BerthAttempt", attempt), middleware.After),
	)
}

type callKey struct{}

// call tells of what was sent. Making a presigned URL sends nothing.
func (o observer) call(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	c := &Call{Operation: awsmiddleware.GetOperationName(ctx), Start: time.Now()}
	out, data, err := next.HandleInitialize(context.WithValue(ctx, callKey{}, c), in)
	if c.Attempts > 0 {
		c.Took, c.Outcome = time.Since(c.Start), outcome(err)
		o.tell(ctx, *c)
	}
	return out, data, err
}

// attempt counts. Attempts of one call follow each other.
func attempt(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, data, err := next.HandleDeserialize(ctx, in)
	c, ok := ctx.Value(callKey{}).(*Call)
	if !ok {
		return out, data, err
	}
	c.Attempts++
	if r, ok := in.Request.(*smithyhttp.Request); ok && r.ContentLength > 0 {
		c.Sent += r.ContentLength
	}
	if r, ok := out.RawResponse.(*smithyhttp.Response); ok && r != nil && r.Request != nil && r.Request.Method != http.MethodHead && r.ContentLength > 0 {
		c.Received += r.ContentLength
	}
	return out, data, err
}
