package limit

import (
	"encoding/binary"
	"errors"
	"slices"
)

// windowSlots is how many slots a window is cut in.
const windowSlots = 60

// maxCount bounds what one slot counts, so that no sum overflows.
const maxCount = 1 << 54

// slot is what was used in one slot of time; at numbers slots since 1970.
type slot struct{ at, n int64 }

// usage is what was used of a rate, in ascending order of slots, none empty.
type usage []slot

var errUsage = errors.New("stored usage is damaged")

// decodeUsage reads the format of encode.
func decodeUsage(b []byte) (usage, error) {
	var u usage
	for at := int64(0); len(b) > 0; {
		step, n := binary.Uvarint(b)
		if n <= 0 || step > maxCount || len(u) > 0 && step == 0 {
			return nil, errUsage
		}
		count, m := binary.Uvarint(b[n:])
		if m <= 0 || count == 0 || count > maxCount || len(u) >= 4*windowSlots {
			return nil, errUsage
		}
		at, b = at+int64(step), b[n+m:]
		u = append(u, slot{at, int64(count)})
	}
	return u, nil
}

// encode writes, for each slot, its distance from the one before (the first:
// from 0) and its count, as varints.
func (u usage) encode() []byte {
	b := make([]byte, 0, 8+3*len(u))
	last := int64(0)
	for _, s := range u {
		b = binary.AppendUvarint(b, uint64(s.at-last))
		b = binary.AppendUvarint(b, uint64(s.n))
		last = s.at
	}
	return b
}

// within drops the slots that have left the window, and those so far ahead that
// only a clock that was wrong can have made them.
func (u usage) within(current int64) usage {
	return slices.DeleteFunc(u, func(s slot) bool { return outside(s.at, current) })
}

func outside(at, current int64) bool {
	return at < current-windowSlots || at > current+windowSlots
}

// add changes the count of a slot by n; it does not go below zero.
func (u usage) add(at, n int64) usage {
	i, found := slices.BinarySearchFunc(u, at, func(s slot, at int64) int { return int(s.at - at) })
	if found {
		n = max(-maxCount, min(n, maxCount)) + u[i].n
	}
	n = min(n, maxCount)
	switch {
	case n > 0 && found:
		u[i].n = n
	case n > 0:
		u = slices.Insert(u, i, slot{at, n})
	case found:
		u = slices.Delete(u, i, i+1)
	}
	return u
}

func (u usage) sum() (n int64) {
	for _, s := range u {
		n += s.n
	}
	return n
}

// free is the first slot in which less than amount of u counts.
func (u usage) free(amount int64) (at int64) {
	rest := u.sum()
	for _, s := range u {
		if rest < amount {
			break
		}
		rest, at = rest-s.n, s.at+windowSlots+1
	}
	return at
}
