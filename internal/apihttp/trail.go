package apihttp

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// AuditFilter says which events are asked for.
type AuditFilter struct {
	Project    string    `query:"project" maxLength:"255" doc:"Only those of this project" example:"acme"`
	Repository string    `query:"repository" maxLength:"255" doc:"Only those of this repository" example:"acme/app"`
	Identity   string    `query:"identity" maxLength:"512" doc:"Only those of this identity: kind:name" example:"user:alice"`
	Action     string    `query:"action" maxLength:"64" doc:"Only those with this action; with a dot at the end all that begin so" example:"project."`
	Since      time.Time `query:"since" doc:"Only those of this time and later" example:"2026-01-01T00:00:00Z"`
	Until      time.Time `query:"until" doc:"Only those before this time" example:"2026-02-01T00:00:00Z"`
}

func (f *AuditFilter) filter(newest bool) meta.AuditFilter {
	return meta.AuditFilter{
		Project: f.Project, Repository: f.Repository, Identity: f.Identity, Action: f.Action,
		Since: f.Since, Until: f.Until, Newest: newest,
	}
}

// exportTypes are the media types of an export.
var exportTypes = map[string]string{"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}

func trail(a *api) {
	m := a.Manage
	add(a, op{
		method: http.MethodGet, path: "/audit", id: "list-audit", tag: "audit",
		summary: "List events of the audit trail",
		description: "A page may be short, even empty, where few events match: only where next is absent there are no more. " +
			"The id of an event is an after too: to follow the trail, ask for what comes after the last event seen. " +
			"Those of a project are for its maintainers, the whole trail is for administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		AuditFilter
		Paging
		Order string `query:"order" enum:"oldest,newest" default:"oldest" doc:"Which come first"`
	}) (*body[List[Event]], error) {
		page, err := m.Audit(ctx, c, in.filter(in.Order == "newest"), in.page())
		return list(page, err, event)
	})
	add(a, op{
		method: http.MethodGet, path: "/audit/export", id: "export-audit", tag: "audit",
		summary:     "Export the audit trail",
		description: "All events that match, the oldest first, as JSON lines or CSV. An export that fails is cut off: its connection ends early. Rights are those of the list.",
		content: map[string]*huma.MediaType{
			"application/x-ndjson": {Schema: &huma.Schema{Type: huma.TypeString, Description: "One event a line, each as in the list", Extensions: map[string]any{lineSchema: "Event"}}},
			"text/csv":             {Schema: &huma.Schema{Type: huma.TypeString, Description: "A header and one event a line, as RFC 4180 has it"}},
		},
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		AuditFilter
		Format string `query:"format" enum:"jsonl,csv" default:"jsonl" doc:"JSON lines or CSV"`
	}) (*export, error) {
		each, err := m.ExportAudit(ctx, c, in.filter(false))
		if err != nil {
			return nil, err
		}
		return &export{func(h huma.Context) { a.export(h, in.Format, each) }}, nil
	})
}

// export is an answer that is written event by event.
type export struct{ Body func(huma.Context) }

// export writes all events. What goes wrong after the first byte can only be
// told by ending the connection before the end of the body.
func (a *api) export(h huma.Context, format string, each func(func(audit.Event) error) error) {
	h.SetHeader("Content-Type", exportTypes[format])
	h.SetHeader("Content-Disposition", `attachment; filename="audit.`+format+`"`)
	h.SetStatus(http.StatusOK)
	_, w := humago.Unwrap(h)
	enc := audit.NewJSONLines(w)
	if format == "csv" {
		enc = audit.NewCSV(w)
	}
	if err := encode(enc, http.NewResponseController(w), each); err != nil {
		a.Log.WarnContext(h.Context(), "an export of the audit trail was cut off", "error", err)
		panic(http.ErrAbortHandler)
	}
}

// encode writes all events to a client that keeps taking them in.
func encode(enc audit.Encoder, connection *http.ResponseController, each func(func(audit.Event) error) error) error {
	n := 0
	err := each(func(e audit.Event) error {
		if n++; n%manage.MaxPage == 1 {
			// A ResponseWriter without deadlines (a test's recorder) has no connection to guard.
			_ = connection.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		return enc.Encode(e)
	})
	if err != nil {
		return err
	}
	err = enc.Flush()
	_ = connection.SetWriteDeadline(time.Time{})
	return err
}

func event(e audit.Event) Event {
	return Event{
		ID: e.ID, Time: e.Time.UTC(), Request: e.Request, Identity: e.Identity, Key: e.Key, Address: e.Address, Agent: e.Agent,
		Action: e.Action, Project: e.Project, Repository: e.Repository, Reference: e.Reference, Digest: e.Digest,
		Bytes: e.Bytes, Status: e.Status, Reason: e.Reason,
	}
}
