package credential

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// googleScope is what Google's registries want tokens for.
const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// newGCP takes Google's application default credentials: a key file, a workload's
// identity, or the metadata server of the machine.
func newGCP(x Exchange) Source {
	return keep(x.Now, func(ctx context.Context) (Credential, time.Duration, error) {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, cloudClient())
		found, err := google.FindDefaultCredentials(ctx, googleScope)
		if err != nil {
			return Credential{}, 0, fmt.Errorf("credentials of Google Cloud: %w", err)
		}
		token, err := found.TokenSource.Token()
		if err != nil {
			return Credential{}, 0, googleError(err)
		}
		c := Credential{Username: "oauth2accesstoken", Password: token.AccessToken, Expires: token.Expiry}
		return c.until(x.Now())
	})
}

// googleError keeps what a server says, which may be anything, out of logs.
func googleError(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return fmt.Errorf("token of Google Cloud: %w", withoutURL(err))
	}
	return cloudRefusal("the token service of Google Cloud", refused.Response.StatusCode, oauthError(refused.Body))
}
