package audit_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/audit"
)

func events() []audit.Event {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC)
	return []audit.Event{
		{ID: "1", Time: at, Request: "r1", Identity: "user:alice", Key: "k1", Address: "192.0.2.1", Agent: `docker/27 "quoted", <b>`,
			Action: "manifest.read", Project: "acme", Repository: "acme/app", Reference: "v1", Digest: "sha256:ab", Bytes: 1234, Status: 200},
		{ID: "2", Time: at.Add(time.Second), Identity: "=cmd|' /C calc'!A0", Action: "login", Reference: "+1", Agent: "@SUM(1)", Reason: "-2", Status: 401},
		{ID: "3", Time: at, Action: "two\nlines", Request: "\tx", Address: "a=b"},
	}
}

func encode(t *testing.T, enc audit.Encoder, list []audit.Event) {
	t.Helper()
	var errs []error
	for _, e := range list {
		errs = append(errs, enc.Encode(e))
	}
	if err := errors.Join(append(errs, enc.Flush())...); err != nil {
		t.Fatal(err)
	}
}

func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	encode(t, audit.NewJSONLines(&out), events())
	if !strings.Contains(out.String(), "<b>") {
		t.Error("text is escaped for HTML, which this is not")
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(events()) {
		t.Fatalf("%d lines:\n%s", len(lines), &out)
	}
	for i, want := range events() {
		var got audit.Event
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

func TestCSV(t *testing.T) {
	var out bytes.Buffer
	encode(t, audit.NewCSV(&out), events())
	if n := strings.Count(out.String(), "\r\n"); n < 4 {
		t.Errorf("%d lines end as RFC 4180 has it:\n%q", n, &out)
	}
	records, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(records) != 4 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, want := range [][]string{
		{"id", "time", "request", "identity", "key", "address", "agent", "action", "project", "repository", "reference", "digest", "bytes", "status", "reason"},
		{"1", "2030-01-02T03:04:05.678Z", "r1", "user:alice", "k1", "192.0.2.1", `docker/27 "quoted", <b>`, "manifest.read", "acme", "acme/app", "v1", "sha256:ab", "1234", "200", ""},
		{"2", "2030-01-02T03:04:06.678Z", "", "'=cmd|' /C calc'!A0", "", "", "'@SUM(1)", "login", "", "", "'+1", "", "0", "401", "'-2"},
		{"3", "2030-01-02T03:04:05.678Z", "'\tx", "", "", "a=b", "", "two\nlines", "", "", "", "", "0", "0", ""},
	} {
		if !reflect.DeepEqual(records[i], want) {
			t.Errorf("record %d is\n%q, want\n%q", i, records[i], want)
		}
	}
}

func TestCSVOfNothing(t *testing.T) {
	var out bytes.Buffer
	encode(t, audit.NewCSV(&out), nil)
	if !strings.HasPrefix(out.String(), "id,time,") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("not a header alone: %q", &out)
	}
}

func TestClean(t *testing.T) {
	key := "berth_u_" + strings.Repeat("aB3", 16) + "x"
	token := "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
	for in, want := range map[string]string{
		"":                                  "",
		"docker/27.1 (linux)":               "docker/27.1 (linux)",
		"günther":                           "günther",
		"a\nb\rc\td\x00e\x7ff\u0085g\u2028": "a b c d e f g ",
		"\xff\xfe x":                        "\uFFFD x",
		key:                                 "[hidden]",
		"user " + key + "!":                 "user [hidden]!",
		"berth_p_short":                     "[hidden]",
		"Bearer " + token:                   "Bearer [hidden]",
		strings.Repeat("x", 250) + key:      strings.Repeat("x", 250) + "[hidde",
		strings.Repeat("y", 10_000):         strings.Repeat("y", 256),
		"berth_ports and eyJ":               "berth_ports and eyJ",
	} {
		if got := audit.Clean(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestEventClean: no text of an event is left out.
func TestEventClean(t *testing.T) {
	var e audit.Event
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString("a\nb")
		}
	}
	e.ID = "" // given by the store
	e.Clean()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && strings.Contains(f.String(), "\n") {
			t.Errorf("%s is not cleaned", v.Type().Field(i).Name)
		}
	}
}
