package main

import (
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/apiclient"
)

func TestParseInstant(t *testing.T) {
	now := time.Date(2030, 1, 10, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"24h":                       now.Add(-24 * time.Hour),
		"7d":                        now.AddDate(0, 0, -7),
		"2030-01-02T03:04:05Z":      time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		"2030-01-02T03:04:05+02:00": time.Date(2030, 1, 2, 1, 4, 5, 0, time.UTC),
		"2030-01-02":                time.Date(2030, 1, 2, 0, 0, 0, 0, time.Local),
		"2030-01-02 03:04:05":       time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local),
	} {
		if got, err := parseInstant(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	if got, err := parseInstant("", now); got != nil || err != nil {
		t.Errorf("nothing is taken for %v, %v", got, err)
	}
	for _, in := range []string{"yesterday", "24", "2030-13-01", "-1h"} {
		if got, err := parseInstant(in, now); err == nil {
			t.Errorf("%s is taken for %v", in, got)
		}
	}
}

func TestEventLine(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	for want, e := range map[string]apiclient.Event{
		"2030-01-02 03:04:05  anonymous             manifest.read     200  acme/app:v1": {
			Action: "manifest.read", Status: 200, Project: new("acme"), Repository: new("acme/app"), Reference: new("v1"), Digest: new("sha256:ab")},
		"2030-01-02 03:04:05  user:alice            manifest.read     404  acme/app@sha256:ab  the project is private": {
			Identity: new("user:alice"), Action: "manifest.read", Status: 404, Project: new("acme"), Repository: new("acme/app"), Digest: new("sha256:ab"), Reason: new("the project is private")},
		"2030-01-02 03:04:05  user:alice            key.create        201  acme ci": {
			Identity: new("user:alice"), Action: "key.create", Status: 201, Project: new("acme"), Reference: new("ci")},
		"2030-01-02 03:04:05  user:alice            project.create    201  acme": {
			Identity: new("user:alice"), Action: "project.create", Status: 201, Project: new("acme"), Reference: new("acme")},
		"2030-01-02 03:04:05  user:alice            user.create       201  bob": {
			Identity: new("user:alice"), Action: "user.create", Status: 201, Reference: new("bob")},
		"2030-01-02 03:04:05  anonymous             audit.gap         503  -  events missing": {
			Action: "audit.gap", Status: 503, Reason: new("events missing")},
	} {
		e.Time = at
		if got := eventLine(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestSeenEventsAreForgotten: following for ever does not fill the memory, and
// prints nothing twice.
func TestSeenEventsAreForgotten(t *testing.T) {
	tr := &trail{follow: true, seen: map[string]time.Time{}}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 1000 {
		tr.remember(apiclient.Event{Id: time.Duration(i).String(), Time: at.Add(time.Duration(i) * time.Second)})
	}
	if n := len(tr.seen); n != int(lateness/time.Second)+1 {
		t.Errorf("%d events are remembered", n)
	}
	tr.remember(apiclient.Event{Id: "late", Time: at.Add(990 * time.Second)})
	if _, kept := tr.seen["late"]; !kept || !tr.newest.Equal(at.Add(999*time.Second)) {
		t.Errorf("an event that came to light late is not remembered, or the newest is now of %v", tr.newest)
	}
}
