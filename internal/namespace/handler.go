package namespace

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/berth-registry/berth/internal/notation"
	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/requestid"
)

const (
	root      = "/v2/"
	parameter = "ns"
	// header says whose content an answer is, to who asked with ns.
	header = "Oci-Namespace"
)

// Handler has next see each request under the name that its repository has here.
// The table is asked for with every request.
func Handler(table func(*http.Request) *Table, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.EscapedPath(), root)
		if !ok || path == "" {
			next.ServeHTTP(w, r)
			return
		}
		there, err := table(r).find(r, path)
		switch {
		case err != nil:
			err.answer(w, r)
			return
		case there.namespace != "":
			w.Header()[header] = []string{there.namespace}
		}
		next.ServeHTTP(w, there.request(r))
	})
}

// found is what a request means.
type found struct {
	prefix    string // to put in front of the repository's name; "": nothing
	namespace string // that was asked for, in its normal form
	query     string // without ns
}

// find says what the request means whose escaped path goes on with rest.
func (t *Table) find(r *http.Request, rest string) (f found, refused *refusal) {
	f.query = r.URL.RawQuery
	asked, refused := namespaceOf(r)
	if refused != nil {
		return f, refused
	}
	host := t.HostOf(r)
	first, _, _ := strings.Cut(rest, "/")
	upstreams, prefixed := t.prefixes[first]
	var meant string // by ns
	if asked != "" {
		f.query = without(f.query, parameter)
		switch name, known := t.namespaces[asked]; {
		case known:
			meant, f.namespace = name, asked
		case t.meansThis(asked, r) || prefixed:
		default:
			return f, unknown(asked)
		}
	}
	switch {
	case host != "" && meant != "" && host != meant:
		return f, contradiction(host, meant)
	case prefixed && upstreams && meant != "" && meant != first:
		return f, contradiction(first, meant)
	case prefixed && upstreams && host != "" && host != first:
		return f, contradiction(first, host)
	case prefixed || rest == "_catalog":
		return f, nil
	case meant != "":
		f.prefix = meant
	default:
		f.prefix = host
	}
	if f.prefix != "" {
		f.query = t.source(f.query, f.prefix)
	}
	return f, nil
}

// namespaceOf is the parameter ns in its normal form, "" for none.
func namespaceOf(r *http.Request) (string, *refusal) {
	if !strings.Contains(r.URL.RawQuery, parameter) && !strings.Contains(r.URL.RawQuery, "%") {
		return "", nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", nil // who parses it next refuses it
	}
	values := query[parameter]
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", nil
	case len(values) > 1:
		return "", malformed("parameter ns stands %d times; send it once", len(values))
	case len(values[0]) > proxyspec.MaxNamespace:
		return "", malformed("parameter ns has %d bytes; at most %d are allowed", len(values[0]), proxyspec.MaxNamespace)
	}
	ns, ok := proxyspec.NormalNamespace(values[0])
	if !ok {
		return "", unknown(values[0])
	}
	return ns, nil
}

// without is a query that can be parsed, without a parameter.
func without(query, name string) string {
	return mapped(query, func(key, pair string) (string, bool) { return pair, key != name })
}

// source puts the prefix in front of the repository that a blob is to be mounted
// from, unless it has one.
func (t *Table) source(query, prefix string) string {
	return mapped(query, func(key, pair string) (string, bool) {
		if key != "from" {
			return pair, true
		}
		_, value, _ := strings.Cut(pair, "=")
		repo, err := url.QueryUnescape(value)
		if err != nil || repo == "" || t.prefixed(repo) {
			return pair, true
		}
		return "from=" + url.QueryEscape(prefix+"/"+repo), true
	})
}

// mapped is a query with each of its pairs as f has it, or without it. What is
// not touched stays as it was written.
func mapped(query string, f func(key, pair string) (string, bool)) string {
	if query == "" {
		return ""
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		written, _, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(written)
		if err != nil {
			kept = append(kept, pair)
			continue
		}
		if pair, keep := f(key, pair); keep {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// request is r for what was found. The path behind the prefix stays as it was
// written, so that nothing has two spellings.
func (f found) request(r *http.Request) *http.Request {
	if f.prefix == "" && f.query == r.URL.RawQuery {
		return r
	}
	changed, u := *r, *r.URL
	changed.URL = &u
	u.RawQuery = f.query
	if f.prefix != "" {
		u.Path = root + f.prefix + "/" + strings.TrimPrefix(u.Path, root)
		if u.RawPath != "" {
			u.RawPath = root + f.prefix + "/" + strings.TrimPrefix(u.RawPath, root)
		}
	}
	return &changed
}

// refusal answers a request in the form of the distribution API.
type refusal struct {
	status                int
	code, message, detail string
}

func malformed(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "UNSUPPORTED", http.StatusText(http.StatusBadRequest), fmt.Sprintf(format, args...)}
}

func contradiction(a, b string) *refusal {
	return malformed("the request means %s by one part and %s by another; send it with one of them", a, b)
}

func unknown(ns string) *refusal {
	return &refusal{http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to this registry",
		fmt.Sprintf("this server stands before no registry that is called %q; its administrator can add it", notation.Shown(ns))}
}

func (e *refusal) answer(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": e.code, "message": e.message, "detail": e.detail}}})
	if err != nil { // texts always have a form
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(requestid.Header, requestid.Of(r))
	w.WriteHeader(e.status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
