package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// What htpasswd -nbB writes for the passwords wonderland (-C 4) and builder (-C 5).
const (
	alice = "alice:$2y$04$9E/oEjucGJbF4J.KTxqKheEwk5NeckEBRTQesSdJRRmW2yHtQmRfy\n"
	bob   = "bob:$2y$05$k.NErUfqVX4B0qUziY.Gf.2euaxpAXl6IhHIlSHdc8rVeqDnPg3f6\n"
)

// write replaces the file at name the way htpasswd does: in place.
func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// opened is an Htpasswd over a new file of content, and the file's name.
func opened(t *testing.T, content string) (*Htpasswd, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "htpasswd")
	write(t, name, content)
	h, err := OpenHtpasswd(name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h, name
}

func request(user, password string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.SetBasicAuth(user, password)
	return r
}

// logIn reports whether the log-in succeeds. An error other than ErrCredentials
// fails the test.
func logIn(t *testing.T, h *Htpasswd, user, password string) bool {
	t.Helper()
	id, err := h.Authenticate(request(user, password))
	if err != nil && !errors.Is(err, ErrCredentials) {
		t.Fatal(err)
	}
	if want := (Identity{Name: user}); err == nil && id != want || err != nil && id != (Identity{}) {
		t.Errorf("identity %+v, error %v", id, err)
	}
	return err == nil
}

func hashOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func TestAuthenticate(t *testing.T) {
	h, _ := opened(t, "# users\n\n"+alice+strings.TrimSpace(bob)+"\r\n")
	for _, tt := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "wonderland", true},
		{"alice", "wonderland", true}, // remembered
		{"bob", "builder", true},
		{"alice", "builder", false},
		{"alice", "", false},
		{"alice", "wonderland\x00wonderland", false}, // the same to bcrypt
		{"Alice", "wonderland", false},
		{"nobody", "wonderland", false},
		{"", "", false},
		{"al\nice", "wonderland", false},
		{strings.Repeat("a", 256), "wonderland", false},
	} {
		if got := logIn(t, h, tt.user, tt.password); got != tt.want {
			t.Errorf("%q with %q: %t", tt.user, tt.password, got)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	h, _ := opened(t, alice)
	for name, header := range map[string]string{"none": "", "bearer": "Bearer x", "not base64": "Basic ???", "no colon": "Basic YWxpY2U="} {
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.Header.Set("Authorization", header)
		if _, err := h.Authenticate(r); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEmptyFileAllowsNobody(t *testing.T) {
	h, _ := opened(t, "")
	for _, password := range []string{"", "x", strings.Repeat(".", 53)} {
		if logIn(t, h, "alice", password) {
			t.Errorf("password %q is accepted", password)
		}
	}
}

// The decoy is a real user's hash: that user's password must not open the door
// to an unknown name.
func TestUnknownUserWithTheDecoysPassword(t *testing.T) {
	h, _ := opened(t, bob)
	for _, turn := range []string{"first", "second"} {
		if logIn(t, h, "mallory", "builder") {
			t.Errorf("an unknown user is logged in the %s time", turn)
		}
	}
}

func TestUnusableFiles(t *testing.T) {
	const remedy = "htpasswd -nbB"
	damaged := strings.TrimSpace(alice)[:40]
	for _, tt := range []struct{ name, file, want string }{
		{"MD5", alice + "carol:$apr1$abcdefgh$0123456789abcdefghijkl\n", `:2: user "carol" has an MD5 (apr1) hash; only bcrypt is accepted, make the line with: htpasswd -nbB USER PASSWORD`},
		{"SHA-1", "carol:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", ":1: user \"carol\" has a SHA-1 hash"},
		{"crypt", "carol:rqXexS6ZhobKA\n", "no bcrypt hash"},
		{"plain", "carol:swordfish\n", "no bcrypt hash"},
		{"damaged", damaged, "a damaged bcrypt hash"},
		{"cost", "carol:$2y$31$" + strings.Repeat("a", 53), "a bcrypt cost that is not from 4 to 15"},
		{"no colon", "\n\nswordfish\n", ":3: must be USER:HASH"},
		{"no name", ":" + strings.Repeat("a", 60), ":1: user name: must not be empty"},
		{"name too long", strings.Repeat("a", 256) + ":x", "must have at most 255 bytes"},
		{"control character", "a\x01:x", "without colons and control characters"},
		{"twice", alice + bob + alice, `:3: user "alice" is in the file twice`},
		{"long line", "a:" + strings.Repeat("x", 1<<20), ":1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "htpasswd")
			write(t, name, tt.file)
			_, err := OpenHtpasswd(name, slog.New(slog.DiscardHandler))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got:  %v\nwant: %s", err, tt.want)
			}
			if strings.Contains(tt.want, "bcrypt") && !strings.Contains(err.Error(), remedy) {
				t.Errorf("no remedy: %v", err)
			}
			for _, secret := range []string{"swordfish", "$apr1$", "W6ph5", "rqXex"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error tells a secret: %v", err)
				}
			}
		})
	}
	if _, err := OpenHtpasswd(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

// In a synctest bubble the clock moves by Sleep alone; files are real.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, name := opened(t, alice)
		if !logIn(t, h, "alice", "wonderland") {
			t.Fatal("alice cannot log in")
		}
		write(t, name, "alice:"+hashOf(t, "looking-glass")+"\n"+bob)
		if !logIn(t, h, "alice", "wonderland") || logIn(t, h, "bob", "builder") {
			t.Error("the file was looked at again within a second")
		}
		time.Sleep(reloadEvery)
		if logIn(t, h, "alice", "wonderland") {
			t.Error("the old password is remembered beyond the old file")
		}
		if !logIn(t, h, "alice", "looking-glass") || !logIn(t, h, "bob", "builder") {
			t.Error("the new file is not in use")
		}
	})
}

// A file moved over the old one, with the same size and time, is another file.
func TestReloadAfterRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, name := opened(t, "alice:"+hashOf(t, "one")+"\n")
		old, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, name+".new", "alice:"+hashOf(t, "two")+"\n")
		if err := errors.Join(os.Chtimes(name+".new", old.ModTime(), old.ModTime()), os.Rename(name+".new", name)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(reloadEvery)
		if !logIn(t, h, "alice", "two") {
			t.Error("the new file is not in use")
		}
	})
}

func TestBrokenFileKeepsUsers(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		h, name := opened(t, alice)
		h.log = slog.New(slog.NewTextHandler(&log, nil))
		looks := func(what string, reports int) {
			t.Helper()
			log.Reset()
			for range 3 {
				time.Sleep(reloadEvery)
				if !logIn(t, h, "alice", "wonderland") {
					t.Errorf("%s: alice cannot log in", what)
				}
			}
			if got := strings.Count(log.String(), "level=ERROR"); got != reports {
				t.Errorf("%s: logged %d times, want %d:\n%s", what, got, reports, &log)
			}
		}
		write(t, name, "carol:swordfish\n")
		looks("broken", 1)
		if strings.Contains(log.String(), "swordfish") {
			t.Errorf("the log tells a secret: %s", &log)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		looks("absent", 1)
		write(t, name, alice+bob)
		looks("mended", 0)
		if !logIn(t, h, "bob", "builder") {
			t.Error("the mended file is not in use")
		}
	})
}

// A remembered log-in needs no bcrypt: it succeeds while every slot is taken.
func TestRememberedLogInsNeedNoSlot(t *testing.T) {
	h, _ := opened(t, alice)
	if !logIn(t, h, "alice", "wonderland") {
		t.Fatal("alice cannot log in")
	}
	for range cap(h.work) {
		h.work <- struct{}{}
	}
	if !logIn(t, h, "alice", "wonderland") {
		t.Error("the log-in is not remembered")
	}
	for _, user := range []string{"alice", "nobody"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := h.Authenticate(request(user, "wrong").WithContext(ctx))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrCredentials) {
			t.Errorf("%s with a wrong password does not wait for a slot: %v", user, err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	h, _ := opened(t, alice)
	u := h.current()
	for i := range 2 * maxRemembered {
		u.remember(h.fingerprint(fmt.Sprint(i), "", nil))
	}
	if len(u.remembered) != maxRemembered {
		t.Errorf("%d log-ins are remembered, want %d", len(u.remembered), maxRemembered)
	}
	if !u.remembers(h.fingerprint(fmt.Sprint(2*maxRemembered-1), "", nil)) {
		t.Error("the newest log-in was forgotten")
	}
}

func TestConcurrentUse(t *testing.T) {
	h, name := opened(t, alice)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 20 {
				if !logIn(t, h, "alice", "wonderland") || i%5 == 0 && logIn(t, h, "alice", "wrong") {
					t.Error("wrong answer")
				}
			}
		})
	}
	write(t, name+".new", alice+bob)
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.reload()
	h.mu.Unlock()
	all.Wait()
	if !logIn(t, h, "bob", "builder") {
		t.Error("the new file is not in use")
	}
}
