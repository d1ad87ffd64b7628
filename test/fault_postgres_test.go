package test

import (
	"bytes"
	"testing"
	"time"
)

// everything sends one request of each kind and returns the answers.
func (w *world) everything(image descriptor, blob descriptor, session string) (all []reply) {
	content := stuff{99, 1000}
	for _, r := range []struct {
		method, path string
		body         []byte
	}{
		{"GET", "/v2/", nil},
		{"GET", "/v2/fault/app/manifests/v1", nil},
		{"HEAD", "/v2/fault/app/manifests/v1", nil},
		{"HEAD", "/v2/fault/app/blobs/" + blob.Digest, nil},
		{"GET", "/v2/fault/app/blobs/" + blob.Digest, nil},
		{"GET", "/v2/fault/app/tags/list", nil},
		{"GET", "/v2/fault/app/referrers/" + image.Digest, nil},
		{"GET", "/v2/_catalog", nil},
		{"POST", "/v2/fault/app/blobs/uploads/", nil},
		{"PATCH", session, content.bytes()},
		{"PUT", session + "?digest=" + content.digest(), nil},
		{"DELETE", session, nil},
		{"PUT", "/v2/fault/app/manifests/v2", []byte("{}")},
		{"DELETE", "/v2/fault/app/manifests/v1", nil},
		{"GET", "/auth/token?scope=repository:fault/app:pull", nil},
		{"GET", "/api/v1/projects", nil},
	} {
		all = append(all, w.ask(r.method, r.path, bytes.NewReader(r.body)))
	}
	return all
}

func TestFaultFirstLook(t *testing.T) {
	w := newWorld(t)
	r := &repo{t, w.api, "fault/app"}
	image := r.pushImage("v1", 1)
	blob := r.must(w.api.pushBlob("fault/app", stuff{5, 100_000}.bytes()))
	session, err := w.api.startUpload("fault/app")
	if err != nil {
		t.Fatal(err)
	}
	w.alive("")
	for name, f := range map[string]func(){"refuse": w.toPG.refuse, "freeze": w.toPG.freeze} {
		t.Log(name)
		f()
		begin := time.Now()
		for _, r := range w.everything(image, blob, session) {
			t.Log(r.what, r.status, r.took, r.body, r.header.Get("Retry-After"), r.err)
			if time.Since(begin) > 100*time.Second {
				break
			}
		}
		w.toPG.pass()
		w.heals(func() error { _, _, err := w.api.manifest("fault/app", "v1"); return err })
	}
}
