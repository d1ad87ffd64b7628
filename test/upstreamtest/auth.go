package upstreamtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Auth is what a registry asks of who reads from it.
type Auth struct {
	User, Secret string // "": anybody gets a token
	Basic        bool   // with each request; else there are bearer tokens
	Realm        string // of the token service; "": this registry's /token
	Expires      int    // seconds that tokens are good; 0: 300
}

// SetAuth has requests refused that have no credential.
func (u *Registry) SetAuth(a Auth) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.auth = &a
}

// Revoke makes all tokens void.
func (u *Registry) Revoke() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.tokens)
}

func (u *Registry) allowed(r *http.Request, q Request) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.auth == nil:
		return true
	case u.auth.Basic:
		user, secret, ok := r.BasicAuth()
		return ok && user == u.auth.User && secret == u.auth.Secret
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	scope, known := u.tokens[token]
	return ok && known && (q.Repo == "" || strings.HasPrefix(scope, "repository:"+q.Repo+":"))
}

func (u *Registry) challenge(q Request) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		u.mu.Lock()
		auth := *u.auth
		u.mu.Unlock()
		challenge := `Basic realm="upstream"`
		if !auth.Basic {
			realm := auth.Realm
			if realm == "" {
				realm = u.URL() + "/token"
			}
			challenge = fmt.Sprintf(`Bearer realm=%q,service="upstream"`, realm)
			if q.Repo != "" {
				challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, q.Repo)
			}
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
	}
}

// serveToken gives a token to who proves to be the user.
func (u *Registry) serveToken(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	auth := u.auth
	if auth == nil {
		refuse(w, http.StatusNotFound, "NOT_FOUND")
		return
	}
	user, secret, _ := r.BasicAuth()
	if err := r.ParseForm(); err == nil && r.Method == http.MethodPost {
		user, secret = r.PostForm.Get("username"), r.PostForm.Get("password")
	}
	if auth.User != "" && (user != auth.User || secret != auth.Secret) {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	u.issued++
	token := fmt.Sprintf("token-%d-of-%s", u.issued, u.Addr())
	u.tokens[token] = r.Form.Get("scope")
	expires := auth.Expires
	if expires == 0 {
		expires = 300
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": expires})
}
