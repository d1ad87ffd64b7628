package metatest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var concurrentCases = []testCase{
	{"concurrent/failures undo nothing but themselves", func(e *env) {
		errs := together(60, func(i int) error {
			p := image(repo, fmt.Sprint("m", i))
			p.Tags = []string{fmt.Sprint("t", i)}
			if i%3 == 0 {
				p.Parsed.Blobs = descriptors([]oci.Digest{digest("absent")})
			}
			return e.db.PutManifest(e.Context(), p)
		})
		for i, err := range errs {
			var missing *meta.MissingError
			if i%3 == 0 {
				if !errors.As(err, &missing) {
					e.Errorf("put %d: %v, want it refused", i, err)
				}
				e.noManifest(repo, oci.TagRef(fmt.Sprint("t", i)), meta.ErrNotFound)
				continue
			}
			e.ok(err)
			e.wantManifest(repo, oci.TagRef(fmt.Sprint("t", i)), fmt.Sprint("m", i))
		}
	}},
	{"concurrent/one blob is kept once", func(e *env) {
		uploads := make([]meta.Upload, 16)
		for i := range uploads {
			uploads[i] = e.lease(fmt.Sprint("team/app", i%4), 1)
		}
		kept := make([]bool, len(uploads))
		errs := together(len(uploads), func(i int) (err error) {
			kept[i], err = e.db.CommitBlob(e.Context(), uploads[i], digest("a"))
			return err
		})
		e.ok(errors.Join(errs...))
		key := ""
		for i, k := range kept {
			if k && key != "" {
				e.Error("two uploads of one blob are kept")
			}
			if k {
				key = uploads[i].ID
			}
		}
		for i := range 4 {
			if b := e.hasBlob(fmt.Sprint("team/app", i), digest("a")); b.Key != key {
				e.Errorf("team/app%d serves %s, want %s", i, b.Key, key)
			}
		}
		if n := len(e.dead()); n != len(uploads)-1 {
			e.Errorf("%d dead objects, want %d", n, len(uploads)-1)
		}
	}},
	{"concurrent/one lease", func(e *env) {
		u := meta.Upload{ID: uuid.NewString(), Repository: repo, Algorithm: oci.SHA256, Hash: []byte{}}
		e.ok(e.db.CreateUpload(e.Context(), u))
		won := 0
		for _, err := range together(16, func(int) error {
			_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
			return err
		}) {
			if err == nil {
				won++
			} else {
				e.wantErr("lease at once", err, meta.ErrLeased)
			}
		}
		if won != 1 {
			e.Errorf("%d callers hold one lease", won)
		}
	}},
	{"concurrent/push against delete", func(e *env) {
		for i := range 20 {
			d, _ := e.push(repo, fmt.Sprint("blob", i))
			errs := together(2, func(k int) error {
				if k == 0 {
					return e.db.DeleteBlob(e.Context(), repo, d)
				}
				return e.db.PutManifest(e.Context(), image(repo, fmt.Sprint("m", i), d))
			})
			if (errs[0] == nil) == (errs[1] == nil) {
				e.Fatalf("delete: %v, push: %v; one of them must win", errs[0], errs[1])
			}
		}
	}},
}

// together runs f for 0 … n-1 at once.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	all.Wait()
	return errs
}
