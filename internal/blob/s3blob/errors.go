package s3blob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/berth-registry/berth/internal/blob"
)

// Codes of S3 and of services like it.
var (
	absent  = []string{"NoSuchKey", "NotFound"}
	undone  = []string{"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}
	taken   = []string{"PreconditionFailed", conflict}
	full    = []string{"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "StorageCapExceeded", "ExceededStorageLimit"}
	perhaps = []string{"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}
)

// conflict: others are writing the object, or deleting it.
const conflict = "ConditionalRequestConflict"

// unconditional is how services refuse a conditional write that they lack.
var unconditional = []string{"NotImplemented", "InvalidArgument", "InvalidRequest"}

// advice is what ends an error that its operator must end.
var advice = map[string]string{
	"AccessDenied":                 "allow these credentials to read, write, list and delete in the bucket, multipart uploads included",
	"InvalidAccessKeyId":           "the service does not know the access key: look at the credentials this process gets",
	"SignatureDoesNotMatch":        "the secret key is not that of the access key, or a proxy changes requests",
	"RequestTimeTooSkewed":         "this machine's clock differs from the service's: set it",
	"ExpiredToken":                 "the credentials have run out: look at where this process gets them",
	"NoSuchBucket":                 "create the bucket, or correct its name, the region or the endpoint",
	"PermanentRedirect":            "the bucket is in another region: correct the region",
	"AuthorizationHeaderMalformed": "the bucket is in another region, or the service wants another one: correct the region",
}

func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode())
}

// isGone reports that an object, a part or a multipart upload is not there.
func isGone(err error) bool { return hasCode(err, absent...) || hasCode(err, undone...) }

// isTaken reports that a write found an object that it must not replace.
func isTaken(err error) bool {
	return hasCode(err, taken...) || status(err) == http.StatusPreconditionFailed
}

func status(err error) int {
	var resp *awshttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}

// failure maps errors of the service to those of a blob store.
func failure(err error) error {
	var api smithy.APIError
	switch {
	case err == nil, errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrSealed), errors.Is(err, blob.ErrFull), errors.Is(err, blob.ErrUnavailable):
		return err
	case isGone(err):
		return fmt.Errorf("%w: %w", blob.ErrNotFound, err)
	case hasCode(err, full...) || status(err) == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	case hasCode(err, perhaps...), status(err) >= 500, status(err) == http.StatusTooManyRequests,
		status(err) == http.StatusConflict: // with what others do at this moment
		return fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
	case errors.As(err, &api):
		if hint := advice[api.ErrorCode()]; hint != "" {
			// Nothing is wrong with what the client wants: it may come back.
			return fmt.Errorf("%w: %w (%s)", blob.ErrUnavailable, err, hint)
		}
		return err
	case errors.Is(err, context.Canceled):
		return err
	case isTransport(err):
		return fmt.Errorf("%w: %w", blob.ErrUnavailable, err)
	}
	return err
}

// isTransport reports that the service could not be spoken to.
func isTransport(err error) bool {
	var op *smithy.OperationError
	return errors.As(err, &op)
}

// scratchFailure is an error of the folder for parts that memory has no room for.
func scratchFailure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: the folder for large parts: %w", blob.ErrFull, err)
	}
	return fmt.Errorf("the folder for large parts: %w", err)
}
