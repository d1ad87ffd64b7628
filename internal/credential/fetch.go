package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

const (
	maxAnswer   = 1 << 20  // bytes of what a token service answers
	maxToken    = 16 << 10 // bytes of a token
	usualLife   = time.Minute
	longestLife = 24 * time.Hour
	userAgent   = "berth"
)

// ErrRefused is in errors about credentials that are wrong.
var ErrRefused = errors.New("the credentials are refused")

// fetch gets a token for a scope.
func (a *Authorizer) fetch(ctx context.Context, w way, scope string) (string, time.Duration, error) {
	c, err := a.credential(ctx)
	if err != nil {
		return "", 0, err
	}
	if err := a.lately("", c); err != nil {
		return "", 0, err
	}
	token, life, err := a.fetchAs(ctx, w, scope, c)
	if errors.Is(err, ErrRefused) {
		if next, ok := a.another(ctx, c); ok {
			return a.fetchAs(ctx, w, scope, next)
		}
	}
	return token, life, err
}

// fetchAs gets a token for a scope with a credential.
func (a *Authorizer) fetchAs(ctx context.Context, w way, scope string, c Credential) (string, time.Duration, error) {
	resp, err := a.ask(ctx, w, scope, c)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return a.decode(w, resp)
	case resp.StatusCode == http.StatusUnauthorized && !c.Anonymous():
		return "", 0, a.judge(c, a.refusal("token service", w.realm, c))
	case resp.StatusCode == http.StatusForbidden && !c.Anonymous():
		return "", 0, a.forbidden(ctx, w, scope, c)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return "", 0, withheld("the token service at %s gives no token without credentials", w.realm)
	}
	return "", 0, answered("token service", w.realm, resp)
}

// withheld is the error for what is not there, or not for us.
func withheld(format string, at *url.URL) error {
	return &registry.Error{Code: registry.NameUnknown, Err: fmt.Errorf(format+": %w", shown(at.Host), registry.ErrRefused)}
}

// forbidden finds out whom a 403 is about: some services refuse a token for a
// repository, others the credential. One for nothing in particular tells.
func (a *Authorizer) forbidden(ctx context.Context, w way, scope string, c Credential) error {
	known, err := a.judged(c)
	if !known {
		if scope == "" {
			return a.judge(c, a.refusal("token service", w.realm, c))
		}
		if _, _, err = a.fetchAs(ctx, w, "", c); err == nil {
			a.judge(c, nil)
		}
	}
	if err != nil {
		return err
	}
	return withheld("the token service at %s gives no token for this repository", w.realm)
}

// ask sends the request for a token; the caller closes its answer.
func (a *Authorizer) ask(ctx context.Context, w way, scope string, c Credential) (*http.Response, error) {
	req, err := a.request(ctx, w, scope, c)
	if err != nil {
		return nil, &registry.Error{Code: registry.Internal, Err: withoutURL(err)}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, a.unreachable("token service", w.realm, err)
	}
	return resp, nil
}

// request is a GET or, for who has a refresh token, the POST of OAuth 2.
func (a *Authorizer) request(ctx context.Context, w way, scope string, c Credential) (*http.Request, error) {
	u := *w.realm
	if c.Identity != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {c.Identity}, "client_id": {userAgent}}
		set(form, "service", w.service)
		set(form, "scope", scope)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	query := u.Query()
	set(query, "service", w.service)
	for part := range strings.FieldsSeq(scope) {
		query.Add("scope", part)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if value := c.basic(); err == nil && value != "" {
		req.Header.Set("Authorization", value)
	}
	return req, err
}

func set(values url.Values, name, value string) {
	if value != "" {
		values.Set(name, value)
	}
}

// grant is what a token service answers.
type grant struct {
	Token       string          `json:"token"`
	AccessToken string          `json:"access_token"`
	ExpiresIn   json.RawMessage `json:"expires_in"` // a number, or what some think one is
	IssuedAt    string          `json:"issued_at"`
}

func (a *Authorizer) decode(w way, resp *http.Response) (string, time.Duration, error) {
	host := shown(w.realm.Host)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return "", 0, a.unreachable("token service", w.realm, err)
	}
	var g grant
	if len(body) > maxAnswer || json.Unmarshal(body, &g) != nil {
		return "", 0, registry.Errorf(registry.Faulty, "", "what the token service at %s answers is no token", host)
	}
	token := g.Token
	if token == "" {
		token = g.AccessToken
	}
	if token == "" || len(token) > maxToken || !visible(token) {
		return "", 0, registry.Errorf(registry.Faulty, "", "the token service at %s gives no usable token", host)
	}
	now := a.o.Now()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = date // the clock that its times are of
	}
	return token, g.life(token, now), nil
}

// visible reports whether a token can stand in a header.
func visible(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}

// life is how long a token still holds, at a time of the clock that issued it.
func (g grant) life(token string, now time.Time) time.Duration {
	left := jwtExpiry(token).Sub(now)
	seconds, err := strconv.ParseFloat(strings.Trim(string(g.ExpiresIn), `"`), 64)
	if err != nil || !(seconds > 0) {
		if left > 0 {
			return min(left, longestLife)
		}
		return usualLife
	}
	life := time.Duration(min(seconds, longestLife.Seconds()) * float64(time.Second))
	if issued, err := time.Parse(time.RFC3339, g.IssuedAt); err == nil && issued.Year() > 1 {
		life -= max(0, now.Sub(issued))
	}
	if left > 0 {
		life = min(life, left)
	}
	return max(life, 0)
}

// jwtExpiry is when a token says that it ends; the zero time if it does not say.
// Nobody verified that: a lie only makes us ask again.
func jwtExpiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Expiry <= 0 || claims.Expiry > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expiry), 0)
}

// unreachable is the error for a request that got no answer, or not its own.
func (a *Authorizer) unreachable(what string, at *url.URL, err error) error {
	host := shown(at.Host)
	if errors.Is(err, errElsewhere) || errors.Is(err, errRedirects) {
		return &registry.Error{Code: registry.Faulty, Err: withoutURL(err),
			Detail: fmt.Sprintf("the %s at %s redirects to where credentials are not sent", what, host)}
	}
	var coded *registry.Error
	if errors.As(err, &coded) {
		return coded // of a transport that has its reasons
	}
	return &registry.Error{Code: registry.Unavailable, Err: withoutURL(err),
		Detail: fmt.Sprintf("no answer from the %s at %s; try again", what, host)}
}

// withoutURL takes the address off an error: its query may be a secret.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// answered is the error for an answer that is none of those expected.
func answered(what string, at *url.URL, resp *http.Response) error {
	e := &registry.Error{Code: registry.Faulty, Err: fmt.Errorf("it answered %d", resp.StatusCode),
		Detail: fmt.Sprintf("the %s at %s answered %d %s", what, shown(at.Host), resp.StatusCode, http.StatusText(resp.StatusCode))}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Code = registry.TooManyRequests
	case resp.StatusCode >= 500:
		e.Code = registry.Unavailable
	}
	if after := retryAfter(resp.Header); after > 0 && e.Code != registry.Faulty {
		e.Limit = &registry.Limit{RetryAfter: after}
	}
	return e
}

// retryAfter is how long a server wants to be left alone; 0 if it does not say.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(longestLife.Seconds()))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longestLife)
}
