package requestid

import (
	"net/http"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for given, kept := range map[string]bool{
		"a-B_9.z": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a\"b": false, "é": false,
	} {
		r := &http.Request{Header: http.Header{Header: {given}}}
		id := Of(r)
		if (id == given) != kept || !Plain(id, 64) {
			t.Errorf("%q became %q", given, id)
		}
		if again := Of(r); again != id {
			t.Errorf("%q: asked again, it is %q", id, again)
		}
	}
	if a, b := Of(&http.Request{Header: http.Header{}}), Of(&http.Request{Header: http.Header{}}); a == b {
		t.Errorf("two requests are called %s", a)
	}
}
