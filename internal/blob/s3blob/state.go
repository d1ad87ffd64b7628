package s3blob

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/berth-registry/berth/internal/blob"
)

// progress is what a blob.State says of an upload. It is never changed in
// place: whoever holds an older state may go on from that.
type progress struct {
	Upload string  `json:"u,omitempty"` // of S3; "" while there are no parts
	Parts  []piece `json:"p,omitempty"`
	Spills []piece `json:"t,omitempty"` // objects below tails/ that follow the parts
	Spent  []piece `json:"d,omitempty"` // such objects that are parts by now, to be deleted

	Tail []byte `json:"-"` // bytes that follow all these
}

// piece is a part, whose number is its position, or a spilled object.
type piece struct {
	Size  int64  `json:"s"`
	Name  string `json:"n"`           // ETag of a part, name of an object
	CRC32 string `json:"c,omitempty"` // of a part, as S3 writes it
}

const stateVersion = 1

func sum(pieces []piece) (n int64) {
	for _, p := range pieces {
		n += p.Size
	}
	return n
}

// pending counts the bytes that are no parts yet.
func (p progress) pending() int64 { return sum(p.Spills) + int64(len(p.Tail)) }

// state makes a progress durable in the hands of the caller: a version byte,
// the length of the JSON, the JSON, and the tail.
func (p progress) state() (blob.State, error) {
	head, err := json.Marshal(p)
	if err != nil {
		return blob.State{}, err
	}
	opaque := make([]byte, 0, 1+binary.MaxVarintLen64+len(head)+len(p.Tail))
	opaque = binary.AppendUvarint(append(opaque, stateVersion), uint64(len(head)))
	opaque = append(append(opaque, head...), p.Tail...)
	return blob.State{Size: sum(p.Parts) + p.pending(), Opaque: opaque}, nil
}

func parse(key string, st blob.State) (p progress, err error) {
	if len(st.Opaque) > 0 {
		n, used := binary.Uvarint(st.Opaque[1:])
		rest := st.Opaque[1+max(0, used):]
		if st.Opaque[0] != stateVersion || used <= 0 || n > uint64(len(rest)) {
			return p, fmt.Errorf("the state of upload %s is not one of this store", key)
		}
		if err := json.Unmarshal(rest[:n], &p); err != nil {
			return p, fmt.Errorf("the state of upload %s: %w", key, err)
		}
		p.Tail = rest[n:]
	}
	if got := sum(p.Parts) + p.pending(); got != st.Size {
		return p, fmt.Errorf("the state of upload %s has %d bytes, not the %d it says", key, got, st.Size)
	}
	return p, nil
}
