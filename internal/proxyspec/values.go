package proxyspec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// Duration is written as "90s", "12h", "30d" or "forever".
type Duration time.Duration

// Forever is a Duration without an end.
const Forever Duration = -1

const forever = "forever"

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == forever {
		*d = Forever
		return nil
	}
	v, err := notation.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("must be %s, or forever, not %q", notation.DurationText, notation.Shown(string(text)))
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes it as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	if d < 0 {
		return forever
	}
	return notation.FormatDuration(time.Duration(d))
}

// Size is written as a number of bytes or with a unit, as "500GiB".
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	if n, err := strconv.ParseUint(string(text), 10, 63); err == nil {
		*s = Size(n)
		return nil
	}
	n, err := notation.ParseSize(string(text))
	*s = Size(n)
	return err
}

// UnmarshalJSON takes a number, too.
func (s *Size) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] != '"' {
		return s.UnmarshalText(data)
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	return s.UnmarshalText([]byte(text))
}

// MarshalText writes it as UnmarshalText reads it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	if s%1024 != 0 || s == 0 {
		return strconv.FormatInt(int64(s), 10)
	}
	return notation.FormatSize(int64(s))
}

// Rate is how many in a time.
type Rate struct {
	N   int
	Per time.Duration // 0: no bound
}

var ratePeriods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// ParseRate reads "100/m"; "" is no bound.
func ParseRate(text string) (Rate, error) {
	if text == "" {
		return Rate{}, nil
	}
	number, period, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 31)
	if per := ratePeriods[period]; err == nil && n > 0 && per > 0 {
		return Rate{int(n), per}, nil
	}
	return Rate{}, fmt.Errorf("must be a number in a time such as 10/s, 100/m or 2500/h, not %q", notation.Shown(text))
}

// Decode reads the JSON form of a proxy, which must have no other fields, and
// checks it.
func Decode(data []byte) (p Proxy, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Proxy{}, err
	}
	if dec.More() {
		return Proxy{}, fmt.Errorf("something follows the end of the proxy %q", p.Name)
	}
	return p, Check(p)
}
