package oidc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"regexp"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
)

const maxKeyRequest = 4 << 10 // bytes

var verifierText = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

type keyRequest struct {
	Code     string `json:"code"`
	Verifier string `json:"verifier"`
}

type keyAnswer struct {
	User      string    `json:"user"`
	Key       string    `json:"key"`
	ExpiresAt time.Time `json:"expires_at"`
}

// key changes the code of a log-in for a new key of the user. A code is gone
// with the first try: whoever has it without the verifier may not guess.
func (p *People) key(w http.ResponseWriter, r *http.Request) {
	q, status, problem := readKeyRequest(w, r)
	if problem != "" {
		p.problem(w, status, problem)
		return
	}
	var g granted
	switch err := p.take(r.Context(), "code", q.Code, &g); {
	case errors.Is(err, access.ErrNotFound):
		p.problem(w, http.StatusForbidden, "the code is wrong, used or older than two minutes: log in once more")
		return
	case err != nil:
		p.keyFailed(w, err)
		return
	}
	sum := sha256.Sum256([]byte(q.Verifier))
	if !same(base64.RawURLEncoding.EncodeToString(sum[:]), g.Challenge) {
		p.refuse(r, http.StatusForbidden, "the code of a log-in came with a wrong verifier")
		p.problem(w, http.StatusForbidden, "the verifier is not of this log-in: log in once more")
		return
	}
	key, hash := auth.NewKey(auth.UserKey)
	expires := p.o.Now().Add(p.o.KeyLifetime).Truncate(time.Second).UTC()
	user, err := p.o.Store.CreateLoginKey(r.Context(), access.Key{UserID: g.User, Name: g.Label, ExpiresAt: expires}, hash)
	if err != nil {
		p.keyFailed(w, err)
		return
	}
	p.answer(w, http.StatusOK, "application/json", keyAnswer{user, key, expires})
}

// readKeyRequest reads and checks the body; a problem says what is wrong.
func readKeyRequest(w http.ResponseWriter, r *http.Request) (q keyRequest, status int, problem string) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return q, http.StatusUnsupportedMediaType, "send application/json"
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxKeyRequest)).Decode(&q)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return q, http.StatusRequestEntityTooLarge, "the request is too large"
	case err != nil:
		return q, http.StatusBadRequest, `send {"code": "…", "verifier": "…"}`
	case !challengeText.MatchString(q.Code):
		return q, http.StatusBadRequest, "the code is not one from a log-in page"
	case !verifierText.MatchString(q.Verifier):
		return q, http.StatusBadRequest, "the verifier must be 43 to 128 characters of A-Z a-z 0-9 . _ ~ -"
	}
	return q, 0, ""
}

func (p *People) keyFailed(w http.ResponseWriter, err error) {
	if errors.Is(err, access.ErrNotFound) {
		p.problem(w, http.StatusForbidden, "the user is gone: log in once more")
		return
	}
	status, text := p.storeProblem(err)
	retrySoon(w, err)
	p.problem(w, status, text)
}

// problem answers as RFC 9457 says.
func (p *People) problem(w http.ResponseWriter, status int, detail string) {
	p.answer(w, status, "application/problem+json", struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
}

func (p *People) answer(w http.ResponseWriter, status int, kind string, v any) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.o.Log.Debug("a key was not sent whole", "error", err)
	}
}
