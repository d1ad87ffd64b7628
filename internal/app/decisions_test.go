package app

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

var updateGolden = flag.Bool("update", false, "rewrite golden files")

var registryUpload = registry.UploadOptions{}

// column is a question that everybody asks of every place.
type column struct {
	name string
	// request of a question about at; session is an upload session of the asker.
	request func(w *realm, at *place, session string) *http.Request
	session bool // it needs one
	deletes bool
}

// What is pushed: a blob, and an index of nothing, which needs nothing.
const (
	newBlob     = "abc"
	newManifest = `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[]}`
)

var columns = []column{
	{name: "ping", request: getOf(func(*realm, *place) string { return "/v2/" })},
	{name: "list", request: getOf(func(*realm, *place) string { return "/v2/_catalog" })},
	{name: "tags", request: getOf(func(_ *realm, at *place) string { return at.path("tags/list") })},
	{name: "mhead", request: headOf(func(_ *realm, at *place) string { return at.path("manifests/v1") })},
	{name: "mtag", request: getOf(func(_ *realm, at *place) string { return at.path("manifests/v1") })},
	{name: "mdig", request: getOf(func(_ *realm, at *place) string { return at.path("manifests/" + string(at.image.Manifest.Digest)) })},
	{name: "bhead", request: headOf(func(_ *realm, at *place) string { return at.path("blobs/" + string(at.image.Config.Digest)) })},
	{name: "blob", request: getOf(func(_ *realm, at *place) string { return at.path("blobs/" + string(at.image.Config.Digest)) })},
	{name: "refer", request: getOf(func(_ *realm, at *place) string { return at.path("referrers/" + string(at.image.Manifest.Digest)) })},
	{name: "start", request: postOf(func(*realm, *place) string { return "" }, "")},
	{name: "whole", request: postOf(func(*realm, *place) string { return "?digest=" + string(oci.SHA256.FromBytes([]byte(newBlob))) }, newBlob)},
	{name: "mount", request: postOf(func(w *realm, _ *place) string {
		return "?from=" + w.library.Repo + "&mount=" + string(w.library.Config.Digest)
	}, "")},
	{name: "mhid", request: postOf(func(w *realm, _ *place) string {
		return "?from=" + w.secret.Repo + "&mount=" + string(w.secret.Config.Digest)
	}, "")},
	{name: "many", request: postOf(func(_ *realm, at *place) string { return "?mount=" + string(at.elsewhere.Digest) }, "")},
	{name: "stat", session: true, request: uploadBy(http.MethodGet, "", "")},
	{name: "patch", session: true, request: uploadBy(http.MethodPatch, "", newBlob)},
	{name: "put", session: true, request: uploadBy(http.MethodPut, "?digest="+string(oci.SHA256.FromBytes([]byte(newBlob))), newBlob)},
	{name: "end", session: true, request: uploadBy(http.MethodDelete, "", "")},
	{name: "alien", request: func(_ *realm, at *place, _ string) *http.Request {
		return httptest.NewRequest(http.MethodPatch, at.path("blobs/uploads/"+at.session), strings.NewReader(newBlob))
	}},
	{name: "mput", request: putManifest("new")},
	{name: "mputd", request: putManifest(string(oci.SHA256.FromBytes([]byte(newManifest))) + "?tag=new")},
	{name: "tdel", deletes: true, request: deleteOf(func(*place) string { return "manifests/old" })},
	{name: "mdel", deletes: true, request: deleteOf(func(at *place) string { return "manifests/" + string(at.spare.Manifest.Digest) })},
	{name: "bdel", deletes: true, request: deleteOf(func(at *place) string { return "blobs/" + string(at.blob.Digest) })},
}

const legend = `# Who asks what of which project, and the status of the answer. Every cell was
# asked of a whole server; go test ./internal/app -run Decisions -update.
#
# Questions: ping; list = repositories; of a repository: tags; mhead, mtag, mdig
# = manifest by HEAD, tag, digest; bhead, blob; refer = referrers; start = an
# upload; whole = one in a single request; mount = from a public repository,
# mhid = from one that is private to others, many = from any; of one's own upload
# session: stat, patch, put = the last of it, end; alien = patch somebody else's;
# mput, mputd = push a manifest by tag, by digest; tdel, mdel, bdel = delete a
# tag, manifest, blob.
#
# Behind a status: + and - say whether a list has the repository, a 200 of what
# it is about; n, m, b, u are the codes NAME_UNKNOWN, MANIFEST_UNKNOWN,
# BLOB_UNKNOWN, BLOB_UPLOAD_UNKNOWN; s and t are challenges for a token with more
# scope, and because of a token that is not good. Every 401 has one challenge
# and UNAUTHORIZED, every 403 DENIED, every 405 UNSUPPORTED. Who has a key or a
# password gets the same answers by a token that was asked for everything.
`

func (at *place) path(rest string) string { return "/v2/" + at.repo + "/" + rest }

func getOf(path func(*realm, *place) string) func(*realm, *place, string) *http.Request {
	return func(w *realm, at *place, _ string) *http.Request {
		return httptest.NewRequest(http.MethodGet, path(w, at), nil)
	}
}

func headOf(path func(*realm, *place) string) func(*realm, *place, string) *http.Request {
	return func(w *realm, at *place, _ string) *http.Request {
		return httptest.NewRequest(http.MethodHead, path(w, at), nil)
	}
}

func postOf(query func(*realm, *place) string, body string) func(*realm, *place, string) *http.Request {
	return func(w *realm, at *place, _ string) *http.Request {
		return httptest.NewRequest(http.MethodPost, at.path("blobs/uploads/")+query(w, at), strings.NewReader(body))
	}
}

func uploadBy(method, query, body string) func(*realm, *place, string) *http.Request {
	return func(_ *realm, at *place, session string) *http.Request {
		return httptest.NewRequest(method, at.path("blobs/uploads/"+session)+query, strings.NewReader(body))
	}
}

func putManifest(ref string) func(*realm, *place, string) *http.Request {
	return func(_ *realm, at *place, _ string) *http.Request {
		r := httptest.NewRequest(http.MethodPut, at.path("manifests/"+ref), strings.NewReader(newManifest))
		r.Header.Set("Content-Type", oci.MediaTypeIndex)
		return r
	}
}

func deleteOf(path func(*place) string) func(*realm, *place, string) *http.Request {
	return func(_ *realm, at *place, _ string) *http.Request {
		return httptest.NewRequest(http.MethodDelete, at.path(path(at)), nil)
	}
}

// answer is what a server said.
type answer struct {
	*httptest.ResponseRecorder
	code string // of the first error
}

// ask asks the server and checks what holds for every answer.
func (w *realm) ask(r *http.Request, header string) answer {
	w.Helper()
	r.Host = decisionHost
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	a := answer{ResponseRecorder: httptest.NewRecorder()}
	w.handler.ServeHTTP(a, r)
	var body struct{ Errors []struct{ Code string } }
	if a.Code >= 400 && r.Method != http.MethodHead {
		if err := json.Unmarshal(a.Body.Bytes(), &body); err != nil || len(body.Errors) != 1 {
			w.Fatalf("%s %s: %d with the body %q", r.Method, r.URL, a.Code, a.Body)
		}
		a.code = body.Errors[0].Code
	}
	challenges := a.Result().Header.Values("WWW-Authenticate")
	if (a.Code == http.StatusUnauthorized) != (len(challenges) == 1) || len(challenges) > 1 {
		w.Errorf("%s %s: %d with the challenges %q", r.Method, r.URL, a.Code, challenges)
	}
	return a
}

// usual codes of statuses, which a cell need not name.
var usual = map[int]string{401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED"}

var letters = map[string]string{"NAME_UNKNOWN": "n", "MANIFEST_UNKNOWN": "m", "BLOB_UNKNOWN": "b", "BLOB_UPLOAD_UNKNOWN": "u"}

// cell is the short form of an answer.
func (a answer) cell(question string, at *place) string {
	cell := fmt.Sprint(a.Code)
	switch {
	case a.Code == http.StatusUnauthorized:
		challenge := a.Result().Header.Get("WWW-Authenticate")
		if strings.Contains(challenge, `error="insufficient_scope"`) {
			cell += "s"
		} else if strings.Contains(challenge, `error="invalid_token"`) {
			cell += "t"
		}
	case question == "list" && a.Code == 200, question == "refer" && a.Code == 200:
		has := bytes.Contains(a.Body.Bytes(), []byte(`"`+at.repo+`"`)) || bytes.Contains(a.Body.Bytes(), []byte("application/x.sbom"))
		cell += map[bool]string{true: "+", false: "-"}[has]
	}
	if a.code != "" && a.code != usual[a.Code] {
		if letter := letters[a.code]; letter != "" {
			return cell + letter
		}
		return cell + a.code
	}
	return cell
}

// table is the answers to all questions at one place: a line for each asker.
func (w *realm) table(at *place) string {
	w.Helper()
	var lines strings.Builder
	at.session = w.session(at, &asker{owner: "user:somebody"})
	for _, a := range slices.Concat(w.askers, at.askers) {
		fmt.Fprintf(&lines, "%-34s", a.name)
		session := ""
		for i := range columns {
			c := &columns[i]
			cell := w.answer(at, &a, c, a.header, &session)
			if a.again != "" {
				if again := w.answer(at, &a, c, a.again, &session); strings.TrimRight(again, "t") != cell {
					w.Errorf("%s, %s: %s gets %s, and by a token %s", at, c.name, a.name, cell, again)
				}
			}
			fmt.Fprintf(&lines, " %-5s", cell)
		}
		lines.WriteByte('\n')
	}
	return lines.String()
}

// answer asks one question, and undoes what it did. session is the asker's, ""
// where a new one is needed.
func (w *realm) answer(at *place, a *asker, c *column, header string, session *string) string {
	w.Helper()
	if c.session && *session == "" {
		*session = w.session(at, a)
	}
	r := c.request(w, at, *session)
	got := w.ask(r, header)
	if got.Code < 300 && r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.restore(at, a, c.deletes)
		*session = ""
	}
	w.hidden(at, c, got)
	return got.cell(c.name, at)
}

// hidden checks that what is said of a repository that may not be seen is what
// is said of one that is not there.
func (w *realm) hidden(at *place, c *column, got answer) {
	w.Helper()
	if got.code != "NAME_UNKNOWN" {
		return
	}
	want := `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to this registry","detail":{"name":"` + at.repo + `"}}]}` + "\n"
	if got.Body.String() != want {
		w.Errorf("%s, %s: %q, want %q", at, c.name, got.Body, want)
	}
}

// decisions collects the tables of all servers, alike ones once.
type decisions struct {
	mu     sync.Mutex
	titles map[string][]string // by table
}

func (d *decisions) add(title, table string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.titles == nil {
		d.titles = map[string][]string{}
	}
	d.titles[table] = append(d.titles[table], title)
}

// golden is all tables, in the order of their titles.
func (d *decisions) golden() string {
	var sections []string
	for table, titles := range d.titles {
		slices.Sort(titles)
		var s strings.Builder
		for _, title := range titles {
			fmt.Fprintf(&s, "\n== %s", title)
		}
		fmt.Fprintf(&s, "\n%-34s", "")
		for i := range columns {
			fmt.Fprintf(&s, " %-5s", columns[i].name)
		}
		s.WriteString("\n" + table)
		sections = append(sections, s.String())
	}
	slices.Sort(sections)
	text := legend + strings.Join(sections, "")
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// TestDecisions asks servers of every kind for everything, as everybody.
func TestDecisions(t *testing.T) {
	var all decisions
	t.Run("servers", func(t *testing.T) {
		for _, newcomers := range []access.Newcomers{access.Closed, access.Open, access.Claim} {
			t.Run(string(newcomers), func(t *testing.T) {
				t.Parallel()
				w := newRealm(t, map[string]string{"auth.mode": "required", "projects.newcomers": string(newcomers)})
				w.build(true)
				w.fill(&all, "newcomers "+string(newcomers))
			})
		}
		t.Run("read-only", func(t *testing.T) {
			t.Parallel()
			w := newRealm(t, map[string]string{"auth.mode": "required", "projects.newcomers": "claim", "read_only": "true"})
			w.build(true)
			w.fill(&all, "newcomers claim, read-only")
		})
		t.Run("no log-in", func(t *testing.T) {
			t.Parallel()
			w := newRealm(t, nil)
			w.build(false)
			w.askers = []asker{{name: "anybody", owner: "local"}}
			w.fill(&all, "no log-in")
		})
	})
	const golden = "testdata/decisions.golden"
	got := all.golden()
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, golden, got, string(want))
}

// fill asks everything of every place. What is absent must not be purged with
// what is deleted; the other places are asked at once, as most of the time is
// spent waiting for the disk.
func (w *realm) fill(all *decisions, server string) {
	w.Helper()
	all.add(w.places[0].String()+"; "+server, w.table(w.places[0]))
	for _, at := range w.places {
		w.enter(at)
	}
	var asking sync.WaitGroup
	for _, at := range w.places[1:] {
		asking.Go(func() { all.add(at.String()+"; "+server, w.table(at)) })
	}
	asking.Wait()
}

// diff reports the lines that are not in both.
func diff(t *testing.T, name, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	has := map[string]int{}
	for line := range strings.SplitSeq(want, "\n") {
		has[line]++
	}
	var report strings.Builder
	for line := range strings.SplitSeq(got, "\n") {
		if has[line]--; has[line] < 0 {
			report.WriteString("+ " + line + "\n")
		}
	}
	for line := range strings.SplitSeq(want, "\n") {
		if has[line]--; has[line] >= 0 {
			report.WriteString("- " + line + "\n")
		}
	}
	t.Errorf("the decisions are not those of %s; if that is meant, run the test with -update:\n%s", name, report.String())
}
