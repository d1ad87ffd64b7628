package oidc

import (
	"errors"
	"html/template"
	"net/http"

	"github.com/berth-registry/berth/internal/meta"
)

// page is all that people see of a log-in.
type page struct {
	Title, Text string
	Code        string // to be carried to a terminal
	Again       string // path where the log-in begins once more
	Failed      bool
}

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title></head>
<body>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{- if .Code}}
<p><code>{{.Code}}</code></p>
{{- end}}
{{- if .Again}}
<p><a href="{{.Again}}">Try again</a>, or run <code>berth login</code> once more.</p>
{{- else if .Failed}}
<p>Run <code>berth login</code> once more.</p>
{{- end}}
</body>
</html>
`))

// page answers with a page that loads, sends and remembers nothing.
func (p *People) page(w http.ResponseWriter, status int, v page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if err := pageTemplate.Execute(w, v); err != nil {
		p.o.Log.Debug("a log-in page was not sent whole", "error", err)
	}
}

// fail answers with a page that says what is wrong and how to go on.
func (p *People) fail(w http.ResponseWriter, status int, text, again string) {
	p.page(w, status, page{Title: "Not logged in", Text: text, Again: again, Failed: true})
}

// failStore is fail for an error of the store.
func (p *People) failStore(w http.ResponseWriter, err error, again string) {
	status, text := p.storeProblem(err)
	if status == http.StatusForbidden {
		again = ""
	}
	retrySoon(w, err)
	p.fail(w, status, text, again)
}

// retrySoon says when to come back after an error of the store that mends
// itself.
func retrySoon(w http.ResponseWriter, err error) {
	if errors.Is(err, meta.ErrUnavailable) {
		w.Header().Set("Retry-After", "5")
	}
}

// storeProblem says what an error of the store means to a client.
func (p *People) storeProblem(err error) (status int, text string) {
	switch {
	case errors.Is(err, meta.ErrLocked):
		return http.StatusForbidden, "This user is locked. Ask the registry's administrator."
	case errors.Is(err, meta.ErrManyLogins):
		return http.StatusServiceUnavailable, "Too many log-ins are under way. Wait some minutes."
	case errors.Is(err, meta.ErrUnavailable):
		p.o.Log.Warn("log-in failed", "error", err)
		return http.StatusServiceUnavailable, "The registry's database is not available. Wait some seconds."
	}
	p.o.Log.Error("log-in failed", "error", err)
	return http.StatusInternalServerError, "The server failed; its log says why."
}
