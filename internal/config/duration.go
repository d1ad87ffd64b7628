package config

import "time"

// ParseDuration reads a duration as it is written for Berth everywhere, on the
// command line too: 90s, 24h, 7d, 1d12h.
func ParseDuration(value string) (time.Duration, error) { return parseDuration(value) }
