package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leaseOver is longer than a replica keeps an upload session after it has died.
const leaseOver = 20 * time.Second

// twins are two replicas with an image.
func twins(t *testing.T) (a, b *world, s stock) {
	t.Helper()
	a = newWorld(t, streaming...)
	s = a.stock()
	return a, a.twin(), s
}

// goOn finishes a session that another replica has begun, as a client does: it
// asks where the session stands, and again while another request has it.
func (w *world) goOn(u *session) error {
	w.t.Helper()
	var err error
	for end := time.Now().Add(leaseOver); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		path, offset, failed := w.api.uploadOffset(u.path)
		if failed != nil {
			return failed
		}
		u.path = path
		if offset < u.acked {
			return fmt.Errorf("the session stands at %d, %d bytes were acknowledged", offset, u.acked)
		}
		u.acked = offset
		err = u.finish(w.api, u.content.digest())
		var status *statusError
		if err == nil || !errors.As(err, &status) || status.got != 416 {
			return err
		}
	}
	return fmt.Errorf("the session was never given up: %w", err)
}

func (w *world) begin(seed uint64, size int64) *session {
	w.t.Helper()
	path, err := w.api.startUpload("fault/app")
	if err != nil {
		w.t.Fatal(err)
	}
	return &session{repo: "fault/app", path: path, content: stuff{seed, size}}
}

// sound wants every blob whole at every replica, and nothing that the integrity
// check finds.
func sound(t *testing.T, sessions []*session, all ...*world) {
	t.Helper()
	for _, w := range all {
		for _, u := range sessions {
			if err := w.api.checkBlob(u.repo, u.content.digest(), u.content.size); err != nil {
				t.Error(err)
			}
			if _, err := w.api.send("GET", u.path, nil, nil, 404); err != nil {
				t.Errorf("a session that was committed: %v", err)
			}
		}
	}
	w := all[0]
	cmd := exec.Command(shared.binary, "check", "--data", w.data)
	cmd.Env = append(berth().Env, w.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("berth check: %v\n%s", err, out)
	}
}

// TestReplicaKilled kills one in the middle of a PATCH: the other goes on where
// the last answer stood, or behind it.
func TestReplicaKilled(t *testing.T) {
	a, b, s := twins(t)
	u := a.begin(71, 12<<20)
	if err := u.patch(a.api, 6<<20); err != nil {
		t.Fatal(err)
	}
	half := *u
	slowPatch(a.api, &session{path: u.path, content: stuff{71, 4 << 20}})
	time.Sleep(500 * time.Millisecond)
	a.kill()
	if err := b.goOn(&half); err != nil {
		t.Fatal(err)
	}
	sound(t, []*session{&half}, b)
	b.whole(s)
}

// TestReplicaFrozen stops one in the middle of a PATCH, for longer than its
// lease, and lets it go on when another has finished and committed the upload.
func TestReplicaFrozen(t *testing.T) {
	a, b, s := twins(t)
	u := a.begin(72, 24<<20)
	if err := u.patch(a.api, 6<<20); err != nil {
		t.Fatal(err)
	}
	// Other bytes than those that will be committed, to be sure to see them.
	finish := slowPatch(a.api, &session{path: u.path, content: stuff{1072, 24 << 20}})
	time.Sleep(500 * time.Millisecond) // the request has arrived
	freeze(t, a)
	if err := b.goOn(u); err != nil {
		t.Fatal(err)
	}
	sound(t, []*session{u}, b)
	thaw(t, a)
	err := finish()
	var status *statusError
	if err == nil || errors.As(err, &status) && status.got < 400 {
		t.Errorf("the frozen replica acknowledges bytes of a session that is over: %v", err)
	}
	t.Logf("what its client is told: %.200v", err)
	sound(t, []*session{u}, a, b)
	a.whole(s)
}

func freeze(t *testing.T, w *world) {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

func thaw(t *testing.T, w *world) {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// TestReplicaFrozenAtCommit freezes one replica at several points of its commits,
// with the statements on the wire: another goes on with each session, and
// commits. When the first wakes and its statements arrive, nothing changes.
func TestReplicaFrozenAtCommit(t *testing.T) {
	a, b, s := twins(t)
	var all []*session
	for i := range uint64(8) {
		size := int64(3 << 20) // one object
		if i%2 == 1 {
			size = 11 << 20 // parts
		}
		u := a.begin(80+i, size)
		if err := u.patch(a.api, size/2); err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	a.toPG.slow(20*time.Millisecond, 0)
	answers := make(chan error, len(all))
	for _, u := range all {
		last := *u
		go func() { answers <- last.finish(a.api, last.content.digest()) }()
		time.Sleep(300 * time.Millisecond)
	}
	a.toPG.freeze()
	freeze(t, a)
	over, late := 0, 0
	for _, u := range all {
		var status *statusError
		err := b.goOn(u)
		if errors.As(err, &status) && status.got == 404 {
			// Its commit was done, or its parts were already made an object, to
			// which nothing can be added: then the client starts anew.
			if b.api.checkLink(u.repo, u.content.digest()) == nil {
				over, err = over+1, nil
			} else {
				_, err = b.api.pushBlob(u.repo, u.content.bytes())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sound(t, all, b)
	a.toPG.slow(0, 0)
	a.toPG.pass() // what the replica had said arrives before it can think
	time.Sleep(200 * time.Millisecond)
	thaw(t, a)
	for range all {
		if err := <-answers; err != nil {
			late++
		}
	}
	t.Logf("of %d commits %d were done before the freeze; %d were refused after it", len(all), over, late)
	if over == len(all) {
		t.Error("all commits were done before the freeze: nothing was tested")
	}
	sound(t, all, a, b)
	a.whole(s)
}

// TestReplicaPartitioned cuts one replica off from PostgreSQL, then from S3. The
// other serves on, also what the first had begun.
func TestReplicaPartitioned(t *testing.T) {
	a, b, s := twins(t)
	u := a.begin(91, 9<<20)
	if err := u.patch(a.api, 6<<20); err != nil {
		t.Fatal(err)
	}
	a.toPG.freeze()
	a.ask("GET", "/v2/fault/app/manifests/v1", nil).unavailable(t)
	a.ask("PATCH", u.path, bytes.NewReader(stuff{5, 1000}.bytes())).unavailable(t)
	a.alive("database")
	b.alive("")
	if err := b.goOn(u); err != nil {
		t.Fatal(err)
	}
	a.toPG.pass()
	a.soon(func() error { return a.api.checkBlob("fault/app", u.content.digest(), u.content.size) })

	u2 := a.begin(92, 9<<20)
	a.toS3.freeze()
	a.ask("GET", "/v2/fault/app/blobs/"+s.blob.Digest, nil).unavailable(t)
	a.ask("PATCH", u2.path, io.LimitReader(u2.content.from(0), 6<<20)).unavailable(t)
	a.ask("GET", "/v2/fault/app/manifests/v1", nil).is(t, 200)
	if status, body := b.probe("/readyz?storage"); status != 200 || strings.Contains(body, "storage") {
		t.Errorf("the other replica: %d %s", status, body)
	}
	if err := b.goOn(u2); err != nil {
		t.Fatal(err)
	}
	a.toS3.pass()
	sound(t, []*session{u, u2}, a, b)
	a.wholeS3(s)
}
