package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/directory"
)

// WorkloadUser is the user name whose password is a job's ID token.
const WorkloadUser = "oidc"

const (
	maxName       = 255             // bytes of a user name
	maxRemembered = 4096            // log-ins, right ones and wrong ones
	wrongFor      = time.Minute     // how long a wrong log-in is remembered
	touchEvery    = time.Hour       // how exact the last use of a key is
	touchTimeout  = 5 * time.Second // of noting it
	maxTouches    = 4               // that run at once
)

// Directory says what credentials belong to, and whether they still count;
// *directory.Directory is one.
type Directory interface {
	Login(ctx context.Context, name string) (*access.Login, error)
	KeyByHash(ctx context.Context, hash string) (*access.Key, error)
	Standing(ctx context.Context, p *access.Principal) (directory.Standing, error)
}

// Options of NewAuthenticator. Directory, Tokens, Failures and TouchKeys are
// required.
type Options struct {
	Directory Directory
	Tokens    *Tokens
	Failures  FailureStore
	// TouchKeys notes when keys were last used, by id.
	TouchKeys func(ctx context.Context, used map[string]time.Time) error
	// Open says that nobody is asked to log in now: those who send no
	// credentials are local. nil: never.
	Open func(context.Context) (bool, error)
	// Exchange says whom a job's ID token stands for; its error for one that is
	// not good is ErrCredentials. nil: no such log-in.
	Exchange func(ctx context.Context, idToken string) (access.Principal, error)
	Hasher   *Hasher // nil: one of its own
	Throttle Throttle
	Log      *slog.Logger     // nil: none
	Now      func() time.Time // nil: time.Now
}

// Authenticator finds out who callers are by their credentials. It is safe for
// concurrent use. Its errors are ErrCredentials (also those below it), a
// *ThrottledError, or one that is no fault of the caller.
type Authenticator struct {
	o      Options
	secret [sha256.Size]byte // keys the memory of log-ins, so that it holds nothing to guess from
	right  *memory[fingerprint, struct{}]
	wrong  *memory[fingerprint, time.Time] // and when they were looked at

	mu      sync.Mutex
	running map[fingerprint]chan struct{} // log-ins that are being looked at

	touched  *memory[string, time.Time] // keys, and when that was last noted
	touches  chan struct{}
	touching sync.WaitGroup
}

// fingerprint stands for a log-in without telling anything of it.
type fingerprint [sha256.Size]byte

// NewAuthenticator returns an Authenticator. The caller closes it.
func NewAuthenticator(o Options) *Authenticator {
	o.Throttle.setDefaults()
	if o.Hasher == nil {
		o.Hasher = NewHasher()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authenticator{
		o:       o,
		right:   newMemory[fingerprint, struct{}](maxRemembered),
		wrong:   newMemory[fingerprint, time.Time](maxRemembered),
		running: map[fingerprint]chan struct{}{},
		touched: newMemory[string, time.Time](maxRemembered),
		touches: make(chan struct{}, maxTouches),
	}
	rand.Read(a.secret[:])
	return a
}

// Close waits until the last uses of keys are noted. No request may run.
func (a *Authenticator) Close() { a.touching.Wait() }

// Identify says who sent r. Its RemoteAddr must be the client's true address.
// Credentials that are sent must be good, whoever is let in without any.
func (a *Authenticator) Identify(r *http.Request) (Identity, error) {
	from := AddressOf(r)
	switch headers := r.Header["Authorization"]; {
	case len(headers) == 0:
		return a.nobody(r.Context(), from)
	case len(headers) > 1:
		return Identity{}, refuse("several Authorization headers")
	}
	if name, secret, ok := r.BasicAuth(); ok {
		return a.Login(r.Context(), name, secret, from)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Identity{}, refuse("malformed Authorization header")
	}
	if LooksLikeKey(token) { // tools that know no user names send it so
		return a.Login(r.Context(), "", token, from)
	}
	return a.bearer(r.Context(), token, from)
}

// AddressOf is the address in a request's RemoteAddr, which a server or a
// middleware has set; invalid where there is none.
func AddressOf(r *http.Request) netip.Addr {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap()
	}
	addr, _ := netip.ParseAddr(r.RemoteAddr)
	return addr.Unmap()
}

// nobody is who came without credentials.
func (a *Authenticator) nobody(ctx context.Context, from netip.Addr) (Identity, error) {
	id := Identity{Principal: access.Principal{Address: from}}
	if a.o.Open == nil {
		return id, nil
	}
	open, err := a.o.Open(ctx)
	if open && err == nil {
		id.Kind = access.Local
	}
	return id, err
}

func (a *Authenticator) bearer(ctx context.Context, token string, from netip.Addr) (Identity, error) {
	p, scopes, err := a.o.Tokens.Verify(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	p.Address = from
	if p.Kind == access.Anonymous {
		id, err := a.nobody(ctx, from)
		if id.Kind == access.Anonymous {
			id.IssuedAt, id.Scopes = p.IssuedAt, &scopes
		}
		return id, err
	}
	id, err := a.standing(ctx, p, ErrInvalidToken)
	id.Scopes = &scopes
	return id, err
}

// standing makes a principal an identity, if its credential counts; a lapsed one
// is an error of that kind.
func (a *Authenticator) standing(ctx context.Context, p access.Principal, kind error) (Identity, error) {
	s, err := a.o.Directory.Standing(ctx, &p)
	if err != nil {
		return Identity{}, lapsed(err, kind, &p)
	}
	if p.Kind != access.Workload || p.Name == "" {
		p.Name = s.Subject.Name
	}
	a.touch(s.Key)
	return Identity{Principal: p}, nil
}

// Login says who logs in with a name and a secret: a password, a key, or a
// job's ID token.
func (a *Authenticator) Login(ctx context.Context, name, secret string, from netip.Addr) (Identity, error) {
	if len(name) > maxName || strings.Contains(name, "\x00") {
		return Identity{}, refuse("no user can have this name")
	}
	if name == WorkloadUser && !LooksLikeKey(secret) {
		return a.Workload(ctx, secret, from)
	}
	user, err := a.login(ctx, name)
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	switch {
	case LooksLikeKey(secret):
		id, err = a.key(ctx, user, name, secret, from)
	case name == "" || checkPassword(secret) != nil:
		err = refuse("no user can have this name and password")
	default:
		id, err = a.password(ctx, user, name, secret, from)
	}
	if err != nil && user.UserID != "" {
		err = meant(err, name)
	}
	return id, err
}

// key is a log-in with a key, under any name that is not another user's. A good
// one always passes: nobody can lock its holder out by trying wrong ones.
func (a *Authenticator) key(ctx context.Context, user *access.Login, name, secret string, from netip.Addr) (Identity, error) {
	id, err := a.goodKey(ctx, secret, user, from)
	if !errors.Is(err, ErrCredentials) {
		return id, err
	}
	at, failed := a.attemptAs(ctx, name, user.UserID, from)
	if failed != nil {
		return Identity{}, failed
	}
	if throttled := a.allow(ctx, at); throttled != nil {
		return Identity{}, throttled
	}
	digest := sha256.Sum256([]byte(secret))
	if failed := a.failed(ctx, at, digest[:]); failed != nil {
		return Identity{}, failed
	}
	return Identity{}, err
}

func (a *Authenticator) goodKey(ctx context.Context, secret string, user *access.Login, from netip.Addr) (Identity, error) {
	_, hash, err := ParseKey(secret)
	if err != nil {
		return Identity{}, refuse(err.Error())
	}
	k, err := a.o.Directory.KeyByHash(ctx, hash)
	switch {
	case errors.Is(err, access.ErrNotFound):
		return Identity{}, refuse("unknown key")
	case err != nil:
		return Identity{}, err
	case user.UserID != "" && user.UserID != k.UserID:
		return Identity{}, refuse("the key is not this user's")
	}
	return a.standing(ctx, principalOf(k.UserID, k.ID, from), ErrCredentials)
}

// principalOf is a user, with or without a key, or a project's key.
func principalOf(userID, keyID string, from netip.Addr) access.Principal {
	if userID == "" {
		return access.Principal{Kind: access.Robot, ID: keyID, KeyID: keyID, Address: from}
	}
	return access.Principal{Kind: access.User, ID: userID, KeyID: keyID, Address: from}
}

// login finds a user by name; without an id: there is none.
func (a *Authenticator) login(ctx context.Context, name string) (*access.Login, error) {
	user, err := a.o.Directory.Login(ctx, name)
	if errors.Is(err, access.ErrNotFound) {
		return &access.Login{}, nil
	}
	return user, err
}

func (a *Authenticator) password(ctx context.Context, user *access.Login, name, password string, from netip.Addr) (Identity, error) {
	if err := a.check(ctx, user, name, password, from); err != nil {
		return Identity{}, err
	}
	p := principalOf(user.UserID, "", from)
	p.Since = user.ValidAfter
	return a.standing(ctx, p, ErrCredentials)
}

// check compares a password, unless the same log-in was looked at before.
func (a *Authenticator) check(ctx context.Context, user *access.Login, name, password string, from netip.Addr) error {
	login := a.fingerprint(name, user.Password, password)
	for {
		if known, err := a.recall(login); known {
			return err
		}
		mine, others := a.begin(login)
		if mine {
			defer a.end(login)
			return a.compare(ctx, login, user, name, password, from)
		}
		select { // a client's parallel requests: the first pays for all
		case <-others:
		case <-ctx.Done():
			return fmt.Errorf("waiting to check the password: %w", ctx.Err())
		}
	}
}

// begin reports whether the caller is the one to look at a log-in; if not, when
// the one who is has done so.
func (a *Authenticator) begin(login fingerprint) (mine bool, done <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if done, busy := a.running[login]; busy {
		return false, done
	}
	a.running[login] = make(chan struct{})
	return true, nil
}

func (a *Authenticator) end(login fingerprint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.running[login])
	delete(a.running, login)
}

// compare does the work of a check, and remembers what came of it.
func (a *Authenticator) compare(ctx context.Context, login fingerprint, user *access.Login, name, password string, from netip.Addr) error {
	if known, err := a.recall(login); known { // since it was asked last
		return err
	}
	at, err := a.attemptAs(ctx, name, user.UserID, from)
	if err != nil {
		return err
	}
	if err := a.allow(ctx, at); err != nil {
		return err
	}
	release, err := a.o.Hasher.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	// Others may have failed while this one waited. What they did in that time is
	// seen here, so that no more than the slots' number slips through.
	if err := a.allow(ctx, at); err != nil {
		return err
	}
	right, digest, err := a.o.Hasher.compare(user.Password, name, password)
	switch {
	case err != nil:
		return err
	case right:
		a.right.put(login, struct{}{})
		return nil
	}
	if err := a.failed(ctx, at, digest); err != nil {
		return err
	}
	a.wrong.put(login, a.o.Now())
	return errWrong
}

var errWrong = refuse("wrong user name or password")

// recall is what a log-in came to before, if that is known.
func (a *Authenticator) recall(login fingerprint) (known bool, err error) {
	if _, right := a.right.get(login); right {
		return true, nil
	}
	at, wrong := a.wrong.get(login)
	if age := a.o.Now().Sub(at); wrong && age >= 0 && age < wrongFor {
		return true, errWrong
	}
	return false, nil
}

// fingerprint of a log-in. It holds the stored hash, so that a new password
// makes an old one unknown. Neither names nor hashes hold a NUL.
func (a *Authenticator) fingerprint(name, stored, password string) (f fingerprint) {
	mac := hmac.New(sha256.New, a.secret[:])
	mac.Write([]byte(name + "\x00" + stored + "\x00" + password))
	mac.Sum(f[:0])
	return f
}

// Workload says whom a job's ID token stands for. Wrong ones count by address
// alone: jobs share the one name.
func (a *Authenticator) Workload(ctx context.Context, idToken string, from netip.Addr) (Identity, error) {
	// What is not even like a token may be somebody's password, of which nothing
	// is kept.
	if a.o.Exchange == nil || len(idToken) > maxToken || strings.Count(idToken, ".") != 2 || len(idToken) < 64 {
		return Identity{}, refuse("no ID token, or no log-in with one")
	}
	at := attempt{address: addressBucket(from)}
	if err := a.allow(ctx, at); err != nil {
		return Identity{}, err
	}
	p, err := a.o.Exchange(ctx, idToken)
	if errors.Is(err, ErrCredentials) {
		digest := sha256.Sum256([]byte(idToken))
		if failed := a.failed(ctx, at, digest[:]); failed != nil {
			return Identity{}, failed
		}
		return Identity{}, refuse(err.Error())
	}
	if err != nil {
		return Identity{}, err
	}
	p.Address = from
	return a.standing(ctx, p, ErrCredentials)
}

// touch notes that a key was used, at most once an hour and beside the request.
// Where too much is being noted already, the next use will do.
func (a *Authenticator) touch(k *access.Key) {
	if k == nil {
		return
	}
	now := a.o.Now()
	noted, _ := a.touched.get(k.ID)
	if now.Sub(k.LastUsed) < touchEvery || now.Sub(noted) < touchEvery {
		return
	}
	select {
	case a.touches <- struct{}{}:
	default:
		return
	}
	a.touched.put(k.ID, now)
	a.touching.Go(func() {
		defer func() { <-a.touches }()
		ctx, cancel := context.WithTimeout(context.Background(), touchTimeout)
		defer cancel()
		if err := a.o.TouchKeys(ctx, map[string]time.Time{k.ID: now}); err != nil {
			a.touched.forget(k.ID)
			a.o.Log.Warn("the use of a key could not be noted", "key", k.ID, "error", err)
		}
	})
}

// Hash makes the PHC form of a password that is to be stored; see Hasher.
func (a *Authenticator) Hash(ctx context.Context, password string) (string, error) {
	return a.o.Hasher.Hash(ctx, password)
}

// Verify reports whether a password is the one of a user, who may not exist. A
// wrong one counts for the user alone.
func (a *Authenticator) Verify(ctx context.Context, name, password string) (bool, error) {
	if checkPassword(password) != nil {
		return false, nil
	}
	user, err := a.login(ctx, name)
	if err != nil {
		return false, err
	}
	err = a.check(ctx, user, name, password, netip.Addr{})
	if errors.Is(err, ErrCredentials) {
		return false, nil
	}
	return err == nil, err
}
