package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// cloudTime bounds each request to a cloud.
const cloudTime = 20 * time.Second

// Exchange is where a cloud's own credentials, from wherever its tools take them,
// are exchanged for those of its registry.
type Exchange struct {
	// Kind is "ecr", "gcp" or "acr".
	Kind string
	// Upstream is the address of the registry.
	Upstream *url.URL
	// Transport is that to the registry itself. nil: http.DefaultTransport.
	Transport http.RoundTripper
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// NewExchange returns the source of an exchange.
func NewExchange(x Exchange) (Source, error) {
	if x.Now == nil {
		x.Now = time.Now
	}
	if x.Transport == nil {
		x.Transport = http.DefaultTransport
	}
	switch x.Kind {
	case "ecr":
		return newECR(x), nil
	case "gcp":
		return newGCP(x), nil
	case "acr":
		return newACR(x), nil
	}
	return nil, fmt.Errorf("credential exchange %.40q: must be ecr, gcp or acr", x.Kind)
}

// cloudClient is for what a cloud says outside of its registry.
func cloudClient() *http.Client {
	return &http.Client{Timeout: cloudTime, CheckRedirect: sameOrigin}
}

var cloudWord = regexp.MustCompile(`^[A-Za-z0-9_.#-]{1,80}$`)

// exchangeFor sends a request of an exchange and decodes its answer. What a cloud
// refuses is ErrRefused, with the word in the answer that says why, if it is one.
func exchangeFor(client *http.Client, req *http.Request, what string, answer any, why func([]byte) string) error {
	req.Header.Set("User-Agent", userAgent)
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, withoutURL(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case resp.StatusCode != http.StatusOK:
		return cloudRefusal(what, resp.StatusCode, why(body))
	case len(body) > maxAnswer || json.Unmarshal(body, answer) != nil:
		return fmt.Errorf("%s gave an answer that makes no sense", what)
	}
	return nil
}

// cloudRefusal is the error for an answer without a credential. word says why, if
// it is a word.
func cloudRefusal(what string, status int, word string) error {
	text := fmt.Sprintf("%s answered %d", what, status)
	if cloudWord.MatchString(word) {
		text += " " + word
	}
	if status >= 500 || status == http.StatusTooManyRequests || strings.Contains(word, "Throttl") {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %w", text, ErrRefused)
}

// oauthError is the word of an OAuth error.
func oauthError(body []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &e) // of another form: no word
	return e.Error
}

// postForm is a request with a form.
func postForm(ctx context.Context, to string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, withoutURL(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}
