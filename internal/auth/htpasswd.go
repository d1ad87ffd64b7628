package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	reloadEvery   = time.Second // how often the file is looked at, at most
	maxRemembered = 4096        // successful log-ins kept per version of the file
)

// Htpasswd authenticates against a file of users and bcrypt hashes. The file is
// read again when it changes; one that cannot be used leaves the users as they
// were. It is safe for concurrent use.
type Htpasswd struct {
	path   string
	log    *slog.Logger
	secret [sha256.Size]byte // keys the memory of log-ins, so that it holds nothing to guess from
	work   chan struct{}     // a slot per bcrypt that may run at once
	users  atomic.Pointer[users]

	mu      sync.Mutex // held while looking at the file
	looked  time.Time
	version fs.FileInfo // of the file last read, whether it could be used or not
}

// users is one version of the file, with the log-ins that it allowed.
type users struct {
	hashes map[string][]byte
	decoy  []byte // compared for unknown names: it costs what a known name costs

	mu         sync.Mutex
	remembered map[[sha256.Size]byte]struct{}
}

// OpenHtpasswd reads the file at path. Lines are USER:HASH; empty lines and
// those that begin with # are skipped. Its error names the line and what to do.
// What happens to the file later is told to log.
func OpenHtpasswd(path string, log *slog.Logger) (*Htpasswd, error) {
	h := &Htpasswd{
		path: path,
		log:  log,
		// Half of the processors: guessing passwords must not stop the pulls.
		work:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		looked: time.Now(),
	}
	if _, err := rand.Read(h.secret[:]); err != nil {
		return nil, err
	}
	u, version, err := readHtpasswd(path)
	if err != nil {
		return nil, fmt.Errorf("htpasswd: %w", err)
	}
	h.users.Store(u)
	h.version = version
	return h, nil
}

// Authenticate says who sent r, by its HTTP Basic credentials. Absent and wrong
// ones are ErrCredentials; any other error is that of r's context, which ended
// while the request waited for its turn.
func (h *Htpasswd) Authenticate(r *http.Request) (Identity, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return Identity{}, fmt.Errorf("no Basic credentials: %w", ErrCredentials)
	}
	if err := checkUser(name); err != nil {
		return Identity{}, fmt.Errorf("user name: %w: %w", err, ErrCredentials)
	}
	if strings.Contains(password, "\x00") { // bcrypt would take it for other passwords
		return Identity{}, fmt.Errorf("password with a NUL: %w", ErrCredentials)
	}
	right, err := h.verify(r.Context(), h.current(), name, password)
	if err != nil {
		return Identity{}, fmt.Errorf("waiting to check the password: %w", err)
	}
	if !right {
		return Identity{}, fmt.Errorf("wrong user or password: %w", ErrCredentials)
	}
	return Identity{Name: name}, nil
}

// verify compares a password, unless the same log-in succeeded before.
func (h *Htpasswd) verify(ctx context.Context, u *users, name, password string) (bool, error) {
	hash, known := u.hashes[name]
	if !known {
		hash = u.decoy
	}
	login := h.fingerprint(name, password, hash)
	if u.remembers(login) {
		return true, nil
	}
	select {
	case h.work <- struct{}{}:
		defer func() { <-h.work }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if u.remembers(login) { // a client's parallel requests: the first has paid for all
		return true, nil
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false, nil
	}
	u.remember(login)
	return true, nil
}

// fingerprint stands for a log-in without telling anything of it. Neither names
// nor hashes hold a NUL.
func (h *Htpasswd) fingerprint(name, password string, hash []byte) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, h.secret[:])
	mac.Write([]byte(name + "\x00"))
	mac.Write(hash)
	mac.Write([]byte("\x00" + password))
	mac.Sum(sum[:0])
	return sum
}

func (u *users) remembers(login [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.remembered[login]
	return ok
}

func (u *users) remember(login [sha256.Size]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.remembered) >= maxRemembered {
		for other := range u.remembered {
			delete(u.remembered, other)
			break
		}
	}
	u.remembered[login] = struct{}{}
}

// current is the newest usable version of the file. One request looks at the
// file, the others go on with what there is.
func (h *Htpasswd) current() *users {
	if h.mu.TryLock() {
		defer h.mu.Unlock()
		if now := time.Now(); now.Sub(h.looked) >= reloadEvery {
			h.looked = now
			h.reload()
		}
	}
	return h.users.Load()
}

// reload reads the file if it has changed since it was last read. Each version
// of a broken file is logged once.
func (h *Htpasswd) reload() {
	seen, err := os.Stat(h.path)
	if err == nil && sameVersion(seen, h.version) || err != nil && h.version == nil {
		return
	}
	u, version, err := readHtpasswd(h.path)
	if version == nil {
		version = seen // found, but not to be opened
	}
	h.version = version
	if err != nil {
		h.log.Error("htpasswd file cannot be used; the users stay as they were", "path", h.path, "error", err)
		return
	}
	h.users.Store(u)
	h.log.Info("htpasswd file read again", "path", h.path, "users", len(u.hashes))
}

// sameVersion reports whether two looks found the same file unchanged. A hash
// has a fixed length, so a file replaced within the clock's grain may have the
// same time and size: it is then another file.
func sameVersion(a, b fs.FileInfo) bool {
	return a != nil && b != nil && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}
