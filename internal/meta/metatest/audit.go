package metatest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

var auditCases = []testCase{
	{"audit events come back whole", auditRoundTrip},
	{"many audit events at once", auditMany},
	{"audit is clean", auditClean},
	{"audit sorts by when it happened", auditOrder},
	{"audit filters", auditFilters},
	{"audit pages", auditPages},
	{"audit retention", auditRetention},
}

// longTrailCases take long and need not run twice.
var longTrailCases = []testCase{{"audit looks are bounded", auditBounded}}

func (e *env) append(events ...audit.Event) {
	e.Helper()
	e.ok(e.db.AppendAudit(e.Context(), events))
}

// trail lists everything that matches, page by page.
func (e *env) trail(f meta.AuditFilter, n int) []audit.Event {
	e.Helper()
	var all []audit.Event
	for after := ""; ; {
		page, next, err := e.db.ListAudit(e.Context(), f, after, n)
		e.ok(err)
		if len(page) > n {
			e.Fatalf("a page of %d has %d events", n, len(page))
		}
		if all = append(all, page...); next == "" {
			return all
		}
		after = next
	}
}

func (e *env) wantTrail(f meta.AuditFilter, want ...string) {
	e.Helper()
	var got []string
	for _, event := range e.trail(f, 3) {
		got = append(got, event.Reason)
	}
	if !slices.Equal(got, want) {
		e.Errorf("%+v lists %q, want %q", f, got, want)
	}
}

func auditRoundTrip(e *env) {
	want := audit.Event{
		Time: e.clock.now().Add(-time.Minute).UTC(), Request: "r", Identity: "user:alice", Key: "k", Address: "192.0.2.1", Agent: "docker/27",
		Action: "manifest.read", Repository: "acme/app", Reference: "v1", Digest: string(digest("x")), Bytes: 1 << 40, Status: 200, Reason: "none",
	}
	e.append(want, audit.Event{Action: "login"})
	got := e.trail(meta.AuditFilter{}, 10)
	if len(got) != 2 || got[0].ID == "" || got[0].ID == got[1].ID {
		e.Fatalf("the trail is %+v", got)
	}
	want.ID, want.Project = got[0].ID, "acme"
	if got[0] != want {
		e.Errorf("%+v comes back as %+v", want, got[0])
	}
	if !got[1].Time.Equal(e.clock.now()) {
		e.Errorf("an event without a time is of %v", got[1].Time)
	}
}

// auditMany: however many are written at once, each comes back as it was, in
// that order.
func auditMany(e *env) {
	now := e.clock.now().UTC()
	var want []audit.Event
	for i := range 2*32 + 2*8 + 3 {
		s := fmt.Sprint(i)
		want = append(want, audit.Event{
			Time: now, Request: "r" + s, Identity: "user:" + s, Key: "k" + s, Address: "a" + s, Agent: "g" + s, Action: "x." + s, Project: "p" + s,
			Repository: "p" + s + "/app", Reference: "t" + s, Digest: "d" + s, Bytes: int64(i), Status: 1000 + i, Reason: "why " + s,
		})
	}
	e.append(slices.Clone(want)...)
	got := e.trail(meta.AuditFilter{}, 1000)
	for i := range got {
		got[i].ID = ""
	}
	if !slices.Equal(got, want) {
		e.Errorf("%d events come back as %+v", len(want), got)
	}
}

// auditClean: what clients send is a short line without credentials.
func auditClean(e *env) {
	secret := "berth_u_" + strings.Repeat("x", 49)
	e.append(audit.Event{Action: "login", Identity: "user:" + secret, Reference: secret, Agent: "x\r\nforged line " + strings.Repeat("y", 1000), Reason: secret})
	got := e.trail(meta.AuditFilter{}, 1)[0]
	if text := fmt.Sprint(got); strings.Contains(text, secret) || strings.ContainsAny(text, "\r\n") || len(got.Agent) > 256 {
		e.Errorf("the trail holds %q", text)
	}
}

// auditOrder: an event that is written late stands where it belongs; those of
// one moment stand as they were written.
func auditOrder(e *env) {
	now := e.clock.now()
	e.append(audit.Event{Time: now, Reason: "3"}, audit.Event{Time: now, Reason: "4"})
	e.append(audit.Event{Time: now, Reason: "5"}, audit.Event{Time: now.Add(time.Millisecond), Reason: "7"})
	e.append(audit.Event{Time: now.Add(300 * time.Microsecond), Reason: "6"}, audit.Event{Time: now.Add(-time.Hour), Reason: "1"})
	e.append(audit.Event{Time: now.Add(-time.Minute), Reason: "2"})
	e.wantTrail(meta.AuditFilter{}, "1", "2", "3", "4", "5", "6", "7")
	e.wantTrail(meta.AuditFilter{Newest: true}, "7", "6", "5", "4", "3", "2", "1")
}

func auditFilters(e *env) {
	now := e.clock.now()
	for i, event := range []audit.Event{
		{Action: "project.create", Project: "acme", Identity: "user:alice"},
		{Action: "project.delete", Project: "acme", Identity: "user:bob"},
		{Action: "projects", Identity: "user:alice"},
		{Action: "manifest.read", Repository: "acme/app", Identity: "user:alice"},
		{Action: "manifest.read", Repository: "acme/app/web"},
		{Action: "manifest.write", Repository: "team/app", Identity: "user:bob"},
	} {
		event.Time, event.Reason = now.Add(time.Duration(i)*time.Second), fmt.Sprint(i)
		e.append(event)
	}
	for _, c := range []struct {
		f    meta.AuditFilter
		want []string
	}{
		{meta.AuditFilter{Project: "acme"}, []string{"0", "1", "3", "4"}},
		{meta.AuditFilter{Project: "acme", Newest: true}, []string{"4", "3", "1", "0"}},
		{meta.AuditFilter{Identity: "user:alice"}, []string{"0", "2", "3"}},
		{meta.AuditFilter{Action: "project."}, []string{"0", "1"}},
		{meta.AuditFilter{Action: "project.create"}, []string{"0"}},
		{meta.AuditFilter{Action: "project"}, nil},
		{meta.AuditFilter{Repository: "acme/app"}, []string{"3"}},
		{meta.AuditFilter{Repository: "acme/app", Project: "team"}, nil},
		{meta.AuditFilter{Since: now.Add(4 * time.Second)}, []string{"4", "5"}},
		{meta.AuditFilter{Until: now.Add(time.Second)}, []string{"0"}},
		{meta.AuditFilter{Since: now.Add(time.Second), Until: now.Add(4 * time.Second), Newest: true}, []string{"3", "2", "1"}},
		{meta.AuditFilter{Project: "acme", Action: "manifest.", Identity: "user:alice", Since: now, Newest: true}, []string{"3"}},
		{meta.AuditFilter{Identity: "nobody"}, nil},
	} {
		e.wantTrail(c.f, c.want...)
	}
}

// auditPages: nothing is left out or listed twice, whatever is written
// meanwhile; the last event is where to go on from later.
func auditPages(e *env) {
	now := e.clock.now()
	for i := range 10 {
		e.append(audit.Event{Time: now.Add(time.Duration(i) * time.Second), Reason: fmt.Sprint(i)})
	}
	for _, newest := range []bool{false, true} {
		for n := 1; n < 12; n++ {
			if got := len(e.trail(meta.AuditFilter{Newest: newest}, n)); got != 10 {
				e.Errorf("pages of %d list %d events", n, got)
			}
		}
	}
	page, next, err := e.db.ListAudit(e.Context(), meta.AuditFilter{}, "", 100)
	e.ok(err)
	if len(page) != 10 || next != "" {
		e.Fatalf("%d events, then %q", len(page), next)
	}
	e.append(audit.Event{Time: now.Add(time.Minute), Reason: "new"})
	more, _, err := e.db.ListAudit(e.Context(), meta.AuditFilter{}, page[9].ID, 100)
	e.ok(err)
	if len(more) != 1 || more[0].Reason != "new" {
		e.Errorf("behind the last event come %+v", more)
	}
}

// auditBounded: a look for what is not there ends after a bounded number of
// rows and is continued from there.
func auditBounded(e *env) {
	now := e.clock.now()
	const many = 21_000
	for i := 0; i < many; i += 1000 {
		events := make([]audit.Event, 1000)
		for j := range events {
			events[j] = audit.Event{Time: now.Add(time.Duration(i+j) * time.Millisecond), Project: "acme", Identity: "user:alice"}
		}
		if i == 10_000 {
			events[500].Identity, events[500].Reason = "user:bob", "found"
		}
		e.append(events...)
	}
	for _, f := range []meta.AuditFilter{
		{Identity: "user:bob"}, {Identity: "user:bob", Newest: true}, {Identity: "user:bob", Project: "acme"}, {Identity: "user:bob", Project: "acme", Newest: true},
	} {
		page, next, err := e.db.ListAudit(e.Context(), f, "", 10)
		e.ok(err)
		if len(page) != 0 || next == "" {
			e.Errorf("the first look finds %d events, then %q", len(page), next)
		}
		e.wantTrail(f, "found")
	}
	if got := len(e.trail(meta.AuditFilter{Identity: "user:alice", Newest: true}, 1000)); got != many-1 {
		e.Errorf("%d events are listed, want %d", got, many-1)
	}
}

func auditRetention(e *env) {
	now := e.clock.now()
	for i := range 10 {
		e.append(audit.Event{Time: now.Add(time.Duration(i) * time.Hour), Reason: fmt.Sprint(i)})
	}
	for _, want := range []int{4, 3, 0} {
		n, err := e.db.PruneAudit(e.Context(), now.Add(7*time.Hour), 4)
		e.ok(err)
		if n != want {
			e.Errorf("%d events are pruned, want %d", n, want)
		}
	}
	e.wantTrail(meta.AuditFilter{}, "7", "8", "9")
}
