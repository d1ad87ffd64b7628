package audit

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
)

// Encoder writes events one by one. Nothing is complete before Flush.
type Encoder interface {
	Encode(Event) error
	Flush() error
}

// NewJSONLines writes one JSON object a line to w.
func NewJSONLines(w io.Writer) Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return jsonLines{enc}
}

type jsonLines struct{ enc *json.Encoder }

func (l jsonLines) Encode(e Event) error { return l.enc.Encode(e) }
func (l jsonLines) Flush() error         { return nil }

// NewCSV writes a header and one record an event to w, as RFC 4180 has it. A
// cell that a spreadsheet would take for a formula begins with an apostrophe.
func NewCSV(w io.Writer) Encoder {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	return &csvEncoder{out: out}
}

type csvEncoder struct {
	out   *csv.Writer
	begun bool
}

var csvHeader = []string{
	"id", "time", "request", "identity", "key", "address", "agent", "action",
	"project", "repository", "reference", "digest", "bytes", "status", "reason",
}

func (c *csvEncoder) Encode(e Event) error {
	if err := c.begin(); err != nil {
		return err
	}
	record := []string{
		e.ID, e.Time.UTC().Format(time.RFC3339Nano), e.Request, e.Identity, e.Key, e.Address, e.Agent, e.Action,
		e.Project, e.Repository, e.Reference, e.Digest, strconv.FormatInt(e.Bytes, 10), strconv.Itoa(e.Status), e.Reason,
	}
	for i, cell := range record {
		record[i] = inert(cell)
	}
	return c.out.Write(record)
}

func (c *csvEncoder) begin() error {
	if c.begun {
		return nil
	}
	c.begun = true
	return c.out.Write(csvHeader)
}

// Flush writes what is buffered; the header even where there was no event.
func (c *csvEncoder) Flush() error {
	if err := c.begin(); err != nil {
		return err
	}
	c.out.Flush()
	return c.out.Error()
}

// inert keeps a cell from being computed.
func inert(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
