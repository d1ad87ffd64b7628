package meta_test

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

// valve is a TCP proxy that can be shut: then it takes what comes, and says
// nothing.
type valve struct {
	target string
	mu     sync.RWMutex // held for writing while shut
}

// newValve puts one before a database and returns the URL through it.
func newValve(t *testing.T, database string) (*valve, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	v := &valve{target: u.Host}
	u.Host = l.Addr().String()
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go v.serve(near)
		}
	}()
	return v, u.String()
}

func (v *valve) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", v.target)
	if err != nil {
		return
	}
	defer far.Close()
	go func() { io.Copy(gated{v, far}, near); far.Close() }()
	io.Copy(gated{v, near}, far)
}

type gated struct {
	v *valve
	io.Writer
}

func (g gated) Write(p []byte) (int, error) {
	g.v.mu.RLock()
	defer g.v.mu.RUnlock()
	return g.Writer.Write(p)
}

// TestPostgresSilent: a server that does not answer keeps nobody for longer than
// the time limit, however many wait, and hardly anybody once that is known. All
// is well as soon as it answers.
func TestPostgresSilent(t *testing.T) {
	v, through := newValve(t, metatest.URL(t))
	db := open(t, meta.Options{Postgres: through, Timeout: time.Second, Connections: 4})
	put(t, db, "team/app")
	time.Sleep(600 * time.Millisecond) // what is remembered of the generation is old
	v.mu.Lock()
	shut := true
	defer func() {
		if shut {
			v.mu.Unlock()
		}
	}()
	ask := func() (slowest time.Duration) {
		t.Helper()
		var all sync.WaitGroup
		var mu sync.Mutex
		for i := range 60 {
			all.Go(func() {
				begin := time.Now()
				var err error
				switch i % 3 {
				case 0:
					_, err = db.Generation(t.Context())
				case 1:
					_, err = db.Tags(t.Context(), "team/app", "", 1)
				case 2:
					err = db.DeleteTag(t.Context(), "team/app", "x")
				}
				if !errors.Is(err, meta.ErrUnavailable) {
					t.Errorf("call %d of a database that does not answer: %v", i, err)
				}
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, time.Since(begin))
			})
		}
		all.Wait()
		return slowest
	}
	// One after the other 20 questions for the generation would take a minute.
	first, second := ask(), ask()
	t.Logf("the slowest was told after %v at first, %v then", first, second)
	if first > 15*time.Second || second > first {
		t.Errorf("calls were kept waiting for %v, and then for %v", first, second)
	}
	v.mu.Unlock()
	shut = false
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err = db.Tags(t.Context(), "team/app", "", 1); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("it answers again: %v", err)
	}
	if _, err := db.Generation(t.Context()); err != nil {
		t.Error(err)
	}
}
