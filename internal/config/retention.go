package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// keepForEver is in place of how long something is kept.
const keepForEver = "keep"

// parseKeep reads how long something is kept; 0 is for ever.
func parseKeep(value string) (time.Duration, error) {
	if value == keepForEver {
		return 0, nil
	}
	d, err := notation.ParseDuration(value)
	if err != nil || d < time.Millisecond {
		return 0, fmt.Errorf("must be %s, or %v, not %q", keepForEver, duration, notation.Shown(value))
	}
	return d, nil
}

func checkKeep(value string) error {
	_, err := parseKeep(value)
	return err
}

// parseRate reads how many a second; 0 is no bound.
func parseRate(value string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(value, "/s"), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("must be a number a second such as 1000/s, or 0 for no bound, not %q", notation.Shown(value))
	}
	return int(n), nil
}

func checkRate(value string) error {
	_, err := parseRate(value)
	return err
}

// CollectRate is how many rows a second collection looks at; 0 is no bound.
func (c *Config) CollectRate() int {
	n, _ := parseRate(c.GC.Rate) // Load has checked it
	return n
}

// Retention is how long a repository keeps manifests that nothing holds: those
// without a tag, and those without their subject. 0 is for ever. Of the rules
// that match, the last that says something decides.
func (c *Config) Retention(repo string) (untagged, orphans time.Duration) {
	text := c.GC.Untagged
	for i := len(c.Repositories) - 1; i >= 0; i-- {
		if r := c.Repositories[i]; r.Untagged != "" && notation.MatchGlob(r.Match, repo) {
			text = r.Untagged
			break
		}
	}
	untagged, _ = parseKeep(text) // Load has checked both
	orphans, _ = parseKeep(c.GC.OrphansAfter)
	return untagged, orphans
}

// RetentionName is another whenever Retention may say something else.
func (c *Config) RetentionName() string {
	rules := [][2]string{{c.GC.Untagged, c.GC.OrphansAfter}}
	for _, r := range c.Repositories {
		if r.Untagged != "" {
			rules = append(rules, [2]string{r.Match, r.Untagged})
		}
	}
	text, err := json.Marshal(rules)
	if err != nil { // strings always can be
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
