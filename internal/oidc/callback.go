package oidc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"golang.org/x/oauth2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/meta"
)

const maxParameter = 4 << 10 // bytes of what comes with a callback

// granted is a log-in that came back and waits for its client.
type granted struct {
	User string `json:"user"` // id
	client
}

// callback takes a browser that comes back from the provider.
func (p *People) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	log, ok := p.pending(w, r, q.Get("state"))
	if !ok {
		return
	}
	code := q.Get("code")
	switch iss := q.Get("iss"); {
	case iss != "" && iss != p.o.Issuer:
		p.stop(w, r, http.StatusBadRequest, "This answer is from another identity provider.", log.client)
		return
	case q.Get("error") != "":
		p.refused(w, r, q.Get("error"), log)
		return
	case code == "" || len(code) > maxParameter:
		p.stop(w, r, http.StatusBadRequest, "The identity provider sent no code.", log.client)
		return
	}
	person, err := p.person(r.Context(), log, code)
	if err != nil {
		p.failPerson(w, r, err, log)
		return
	}
	u, err := p.o.Store.LogInUser(r.Context(), person)
	if err != nil {
		p.failStore(w, err, log.again())
		return
	}
	p.grant(w, r, u, log.client)
}

// pending finds the log-in that a state belongs to, in the browser that began
// it, or answers why not.
func (p *People) pending(w http.ResponseWriter, r *http.Request, state string) (log pending, ok bool) {
	const gone = "This log-in has expired, or was finished before."
	if !challengeText.MatchString(state) {
		p.fail(w, http.StatusBadRequest, gone, "")
		return log, false
	}
	switch err := p.take(r.Context(), "state", state, &log); {
	case errors.Is(err, access.ErrNotFound):
		p.fail(w, http.StatusBadRequest, gone, "")
		return log, false
	case err != nil:
		p.failStore(w, err, "")
		return log, false
	}
	over := p.cookie(log.Redirect, state, "")
	cookie, err := r.Cookie(over.Name)
	if err != nil || !same(digest(cookie.Value), log.Browser) {
		p.stop(w, r, http.StatusBadRequest, "This log-in was begun in another browser, or cookies are off.", log.client)
		return log, false
	}
	over.MaxAge = -1
	http.SetCookie(w, over)
	return log, true
}

// refused answers for a provider that did not let the person in.
func (p *People) refused(w http.ResponseWriter, r *http.Request, reason string, log pending) {
	status := http.StatusBadGateway
	switch reason {
	case "access_denied":
		status = http.StatusForbidden
	case "temporarily_unavailable":
		status = http.StatusServiceUnavailable
	}
	p.stop(w, r, status, fmt.Sprintf("The identity provider did not log you in (%s).", shortened(reason)), log.client)
}

// person asks the provider who sent the code. Errors: auth.ErrInvalidToken,
// auth.ErrUnavailable.
func (p *People) person(ctx context.Context, log pending, code string) (meta.ProvidedUser, error) {
	k, err := p.issuer.know(ctx, nil)
	if err != nil {
		return meta.ProvidedUser{}, err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, p.o.Client)
	token, err := p.oauth(k, log.Redirect).Exchange(ctx, code, oauth2.VerifierOption(log.Verifier))
	if err != nil {
		return meta.ProvidedUser{}, exchangeError(err)
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" || len(raw) > maxDocument {
		return meta.ProvidedUser{}, invalid("the provider sent none")
	}
	id, claims, err := p.issuer.verify(ctx, raw, p.o.ClientID)
	if err != nil {
		return meta.ProvidedUser{}, err
	}
	azp, _ := claims["azp"].(string)
	switch {
	case !same(id.Nonce, log.Nonce):
		return meta.ProvidedUser{}, invalid("it is not of this log-in")
	case azp != "" && azp != p.o.ClientID || azp == "" && len(id.Audience) > 1:
		return meta.ProvidedUser{}, invalid("it is for another client")
	case id.Subject == "" || len(id.Subject) > 255:
		return meta.ProvidedUser{}, invalid("it has no usable subject")
	}
	if err := p.askMore(ctx, k, token.AccessToken, id.Subject, claims); err != nil {
		return meta.ProvidedUser{}, err
	}
	groups, err := p.groups(claims)
	if err != nil {
		return meta.ProvidedUser{}, err
	}
	return meta.ProvidedUser{Issuer: p.o.Issuer, Subject: id.Subject, Name: p.name(claims), Groups: groups}, nil
}

// exchangeError keeps what a provider says, which may be anything, out of logs.
func exchangeError(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return fmt.Errorf("%w: its token endpoint: %w", auth.ErrUnavailable, err)
	}
	status := 0
	if refused.Response != nil {
		status = refused.Response.StatusCode
	}
	if status >= 500 {
		return fmt.Errorf("%w: its token endpoint answers %d", auth.ErrUnavailable, status)
	}
	return invalid("the provider's token endpoint answers %d %s", status, shortened(refused.ErrorCode))
}

// askMore adds claims that the ID token lacks and the provider tells those who
// ask for them.
func (p *People) askMore(ctx context.Context, k *knowledge, bearer, subject string, claims map[string]any) error {
	_, named := find(claims, p.o.NameClaim)
	_, grouped := find(claims, p.o.GroupsClaim)
	if named && grouped || k.UserInfo == "" || bearer == "" {
		return nil
	}
	more := map[string]any{}
	if err := fetch(ctx, p.o.Client, k.UserInfo, bearer, &more); err != nil {
		return fmt.Errorf("%w: %w", auth.ErrUnavailable, err)
	}
	if sub, _ := more["sub"].(string); !same(sub, subject) {
		return invalid("the provider's user info is of somebody else")
	}
	signed := maps.Clone(claims)
	maps.Copy(claims, more)
	maps.Copy(claims, signed)
	return nil
}

// failPerson answers for an error of person, of which people are told less.
func (p *People) failPerson(w http.ResponseWriter, r *http.Request, err error, log pending) {
	status, text := http.StatusServiceUnavailable, "The identity provider cannot be reached."
	if errors.Is(err, auth.ErrInvalidToken) {
		status, text = http.StatusBadGateway, "The identity provider's answer cannot be used; the server's log says why."
	}
	p.o.Log.Warn("log-in at the identity provider failed", "issuer", p.o.Issuer, "error", err)
	p.refuse(r, status, err.Error())
	p.fail(w, status, text, log.again())
}

// stop ends a log-in that was under way.
func (p *People) stop(w http.ResponseWriter, r *http.Request, status int, text string, c client) {
	p.refuse(r, status, text)
	p.fail(w, status, text, c.again())
}

// grant sends the browser on with a code that the client changes for a key.
func (p *People) grant(w http.ResponseWriter, r *http.Request, u access.Subject, c client) {
	code := secret()
	if err := p.save(r.Context(), "code", code, granted{u.ID, c}, codeTime); err != nil {
		p.failStore(w, err, c.again())
		return
	}
	if c.Port == 0 {
		p.page(w, http.StatusOK, page{
			Title: "Logged in as " + u.Name,
			Text:  "Paste this code into the terminal where you ran `berth login`, within two minutes. If you did not, close this page and give the code to nobody: it stands for you.",
			Code:  code,
		})
		return
	}
	to := url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(c.Port), Path: "/", RawQuery: url.Values{"code": {code}}.Encode()}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, to.String(), http.StatusFound)
}
