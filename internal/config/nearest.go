package config

import (
	"strings"

	"github.com/berth-registry/berth/internal/notation"
)

// nearest is the candidate that was most probably meant by name. Parts are what
// sep divides: where whole names are far apart, the last part decides, since
// keys are often written one level too high or too low.
func nearest(name string, candidates []string, sep string) string {
	name = strings.ToValidUTF8(name[:min(len(name), notation.MaxShown)], "")
	var near, same string
	nearCost, sameCost := len(name)/2+1, int(^uint(0)>>1)
	for _, c := range candidates {
		cost := mistakes(name, c)
		if cost < nearCost {
			near, nearCost = c, cost
		}
		if cost += notation.MaxShown * mistakes(lastPart(name, sep), lastPart(c, sep)); cost < sameCost {
			same, sameCost = c, cost
		}
	}
	if near != "" {
		return near
	}
	return same
}

func lastPart(name, sep string) string {
	return name[strings.LastIndex(name, sep)+1:]
}

// mistakes is the distance of name from candidate; to leave out the beginning
// or the end is one mistake, however long they are.
func mistakes(name, candidate string) int {
	const wordLike = 3 // bytes; fewer begin or end too many candidates
	if len(name) >= wordLike && name != candidate && (strings.HasPrefix(candidate, name) || strings.HasSuffix(candidate, name)) {
		return 1
	}
	return distance(name, candidate)
}

// distance counts the bytes to insert, remove, change or swap with their
// neighbour to make a into b.
func distance(a, b string) int {
	var before, above, row []int // of two bytes of a ago, one ago, now
	above = make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row = make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
