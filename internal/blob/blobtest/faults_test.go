package blobtest_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
	"github.com/berth-registry/berth/internal/blob/memblob"
)

var errFault = errors.New("chosen fault")

func TestFaultyPassesThrough(t *testing.T) {
	blobtest.Options{InMemory: true}.Run(t, func(*testing.T) blob.Store {
		return &blobtest.Faulty{Store: memblob.New()}
	})
}

// invoke calls a method of a store once, by its name.
func invoke(t *testing.T, s blob.Store, method string) (err error) {
	t.Helper()
	const key = "invoked"
	ctx := t.Context()
	switch method {
	case "Open":
		_, err = s.Open(ctx, key, 0, 0)
	case "URL":
		_, err = s.URL(ctx, key, 0)
	case "Create":
		_, err = s.Create(ctx, key)
	case "Append":
		_, err = s.Append(ctx, key, blob.State{}, strings.NewReader("some"))
	case "Seal":
		err = s.Seal(ctx, key, blob.State{})
	case "Abort":
		err = s.Abort(ctx, key, blob.State{})
	case "Delete":
		err = s.Delete(ctx, key)
	case "List":
		for _, err = range s.List(ctx, "") {
			if err != nil {
				break
			}
		}
	case "Check":
		err = s.Check(ctx)
	default:
		t.Fatalf("no method %s", method)
	}
	return err
}

func TestFaultyFailsTheChosenCall(t *testing.T) {
	for _, method := range []string{"Open", "URL", "Create", "Append", "Seal", "Abort", "Delete", "List", "Check"} {
		t.Run(method, func(t *testing.T) {
			f := &blobtest.Faulty{Store: memblob.New()}
			invoke(t, f, method)
			f.Fail(method, 2, errFault)
			for n, want := range []bool{false, true, false} {
				if err := invoke(t, f, method); errors.Is(err, errFault) != want {
					t.Errorf("call %d after Fail(2): %v", n+1, err)
				}
			}
			if n := f.Calls(method); n != 4 {
				t.Errorf("Calls = %d, want 4", n)
			}
		})
	}
}

func TestFaultyRefusesUnknownMethod(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a method that does not exist was accepted")
		}
	}()
	new(blobtest.Faulty).Fail("Appendd", 1, errFault)
}

// TestFaultyFull fills the store in the middle of the second Append, frees it,
// and goes on from the first.
func TestFaultyFull(t *testing.T) {
	ctx := t.Context()
	under := memblob.New()
	f := &blobtest.Faulty{Store: under}
	f.Room(6)
	first, err := f.Append(ctx, "full", blob.State{}, strings.NewReader("abcd"))
	if err != nil || first.Size != 4 {
		t.Fatalf("with room: %+v, %v", first, err)
	}
	for range 2 {
		again, err := f.Append(ctx, "full", first, strings.NewReader("EFGH"))
		if !errors.Is(err, blob.ErrFull) || again.Size != 4 {
			t.Fatalf("without room: %+v, %v", again, err)
		}
	}
	f.Unlimited()
	last, err := f.Append(ctx, "full", first, strings.NewReader("e"))
	if err != nil || last.Size != 5 {
		t.Fatalf("with room again: %+v, %v", last, err)
	}
	if err := f.Seal(ctx, "full", last); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, under, "full", 5); got != "abcde" {
		t.Errorf("content %q", got)
	}
}

// TestFaultyFullLeavesBytes: what fitted lies behind the returned state.
func TestFaultyFullLeavesBytes(t *testing.T) {
	under := memblob.New()
	f := &blobtest.Faulty{Store: under}
	f.Room(2)
	if _, err := f.Append(t.Context(), "left", blob.State{}, strings.NewReader("abcd")); !errors.Is(err, blob.ErrFull) {
		t.Fatalf("without room: %v", err)
	}
	for o, err := range under.List(t.Context(), "") {
		if err != nil || o.Size != 2 {
			t.Errorf("%+v, %v; want 2 bytes left behind", o, err)
		}
	}
}

func TestFaultyAfterSeal(t *testing.T) {
	ctx := t.Context()
	under := memblob.New()
	f := &blobtest.Faulty{Store: under, AfterSeal: func(key string, s blob.State) error {
		if got := contentOf(t, under, key, s.Size); got != "sealed" {
			t.Errorf("in AfterSeal the object holds %q", got)
		}
		return errFault
	}}
	s, err := f.Append(ctx, "seal", blob.State{}, strings.NewReader("sealed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Seal(ctx, "seal", s); !errors.Is(err, errFault) {
		t.Errorf("Seal = %v, want the callback's error", err)
	}
	contentOf(t, under, "seal", s.Size)
}

func contentOf(t *testing.T, s blob.Store, key string, size int64) string {
	t.Helper()
	rc, err := s.Open(t.Context(), key, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
