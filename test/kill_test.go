package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

// TestKill kills the server at random moments while clients push, BERTH_KILLS
// times. After each restart everything acknowledged since the one before must
// be there, and at the end everything ever acknowledged.
func TestKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	var pushers []*pusher
	for i := range 8 {
		pushers = append(pushers, &pusher{
			repo: fmt.Sprint("kill/", i), number: uint64(i), ledger: ledger{tags: map[string]*promisedTag{}},
		})
	}
	var f fates
	for range number(t, "BERTH_KILLS", 25) {
		s := mustStart(t, data)
		pushUntilKilled(t, s, pushers)
		restarted := mustStart(t, data)
		recoverAll(t, restarted, pushers, &f)
		restarted.kill()
	}
	s := mustStart(t, data)
	for _, p := range pushers {
		p.api = s.api
	}
	if err := together(pushers, (*pusher).checkAll); err != nil {
		t.Fatal(err)
	}
	blobs, manifests := 0, 0
	for _, p := range pushers {
		blobs, manifests = blobs+len(p.blobs), manifests+len(p.manifests)
	}
	t.Logf("%d blobs and %d manifests acknowledged and intact; unfinished uploads: %d resumed, %d committed before the answer, %d gone with their last request",
		blobs, manifests, f.resumed, f.committed, f.gone)
	if blobs == 0 || manifests == 0 || f.resumed == 0 {
		t.Fatal("the kills came before anything happened: nothing was tested")
	}
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	if out, err := check(data, "--deep"); err != nil {
		t.Fatalf("berth check after the kills: %v\n%s", err, out)
	}
}

// pushUntilKilled lets all push and kills the server at a random moment.
func pushUntilKilled(t *testing.T, s *server, pushers []*pusher) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		ended <- together(pushers, func(p *pusher) error {
			p.api = s.api
			err := p.pushImages()
			if errors.As(err, new(*statusError)) {
				return err
			}
			return nil // the connection broke, as it must
		})
	}()
	time.Sleep(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
	s.kill()
	if err := <-ended; err != nil {
		t.Fatalf("before the kill: %v", err)
	}
}

// recoverAll does what clients do after a crash, and holds the server to what
// it promised since it was started last.
func recoverAll(t *testing.T, s *server, pushers []*pusher, f *fates) {
	t.Helper()
	for _, p := range pushers {
		p.api = s.api
		if err := errors.Join(p.resume(f), p.settleTags()); err != nil {
			t.Fatalf("after the restart: %v", err)
		}
	}
	if err := together(pushers, (*pusher).checkNew); err != nil {
		t.Fatalf("after the restart: %v", err)
	}
}
