package apihttp

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/meta/metatest"
)

const onceKey = "5f0c1c1e-6a0d-4b6e-9a3b-2f6f0b0f7c11"

func TestOnce(t *testing.T) {
	file := metatest.File(t)
	s := serve(t, file)
	s.populate()
	const what, body = "POST /projects/app/keys", `{"name":"k","role":"writer","expires":"2031-01-01T00:00:00Z"}`
	first := s.do("maintainer", what, body, onceHeader, onceKey).wants(201)
	again := s.do("maintainer", what, body, onceHeader, onceKey).wants(201)
	if again.body != first.body {
		t.Errorf("first %s, then %s", first.body, again.body)
	}
	var k CreatedKey
	first.into(&k)
	s.secrets["k"] = "Bearer " + k.Secret
	s.do("k", "GET /me", "").wants(200).says(k.Key.ID)
	s.do("maintainer", what, strings.Replace(body, "writer", "reader", 1), onceHeader, onceKey).wants(422).says("came with another request")
	s.do("maintainer", "POST /projects/lib/keys", body, onceHeader, onceKey).wants(403)
	s.do("owner", what, body, onceHeader, onceKey).wants(409) // of somebody else it is another request
	s.do("maintainer", what, body).wants(409)
	for _, bad := range []string{"short", strings.Repeat("x", 129), "with a blank", "caf\u00e9 caf\u00e9"} {
		s.do("maintainer", what, body, onceHeader, bad).wants(422).says(onceHeader)
	}
	for _, name := range []string{file, file + "-wal"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{k.Secret, onceKey} {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s holds %s", name, secret)
			}
		}
	}
	// The right is asked for again.
	s.do("root", "PUT /projects/app/members/user/maintainer", `{"role":"writer"}`).wants(200)
	s.do("maintainer", what, body, onceHeader, onceKey).wants(403)
}

// TestOnceOfAll: the answer sent again is that of before, whatever was made.
func TestOnceOfAll(t *testing.T) {
	s := populated(t)
	for what, body := range map[string]string{
		"POST /organizations":            `{"name":"new","plan":"small"}`,
		"POST /projects":                 `{"name":"new","visibility":"public","newcomers":"claim","organization":"team"}`,
		"POST /projects/app/trust-rules": `{"name":"new","issuer":"https://ci.example.com","audience":"berth","claims":{"ref":"main"},"role":"owner","prefixes":["app/x"]}`,
		"POST /users":                    `{"name":"new","password":"long enough","plan":"small"}`,
		"POST /users/owner/keys":         `{"name":"new","prefixes":["app"],"addresses":["192.0.2.0/24"]}`,
		"POST /me/keys":                  `{"name":"new"}`,
		"POST /groups":                   `{"name":"new","claim":"c"}`,
		"POST /plans":                    `{"name":"new","rates":[{"per":"key","unit":"bytes","window":"day","amount":5}],"maxBlob":7}`,
		"POST /signing-keys":             `{}`,
	} {
		first := s.do("root", what, body, onceHeader, onceKey+what[6:]).wants(201)
		again := s.do("root", what, body, onceHeader, onceKey+what[6:]).wants(201)
		if again.body != first.body {
			t.Errorf("first %s, then %s", first.body, again.body)
		}
		_, name, _ := strings.Cut(what, " ")
		if name == "/projects" || name == "/organizations" || name == "/users" || name == "/groups" || name == "/plans" {
			var got, want map[string]any
			first.into(&want)
			s.do("root", "GET "+name+"/new", "").wants(200).into(&got)
			delete(got, "usage")
			delete(got, "content")
			for k, v := range want {
				if _, list := v.([]any); !list && got[k] != v {
					t.Errorf("%s was answered with %s %v, and is %v", what, k, v, got[k])
				}
			}
		}
	}
}

func TestOnceInARace(t *testing.T) {
	s := populated(t)
	var all sync.WaitGroup
	answers := make([]answered, 8)
	for i := range answers {
		all.Go(func() {
			answers[i] = s.do("owner", "POST /projects/app/keys", `{"name":"race","role":"reader"}`, onceHeader, onceKey)
		})
	}
	all.Wait()
	for _, a := range answers {
		a.wants(201)
		if a.body != answers[0].body {
			t.Errorf("%s and %s", answers[0].body, a.body)
		}
	}
}
