package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// knownKeys are the fields of manifests and descriptors in their one spelling.
var knownKeys = []string{
	"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests",
	"subject", "annotations", "digest", "size", "urls", "data", "platform",
}

// keyWalk goes once over bytes that are known to be valid JSON and looks at
// nothing but nesting, the number of values and object keys. Memory: one set
// of keys per open object.
type keyWalk struct {
	rest   []byte
	stack  []jsonLevel
	values int
}

type jsonLevel struct {
	keys     map[string]bool // nil: an array
	freeForm bool            // inside annotations: any spelling is its user's own
	lastKey  string
}

func (w *keyWalk) run() error {
	for {
		i := bytes.IndexAny(w.rest, `{}[],"`)
		if i < 0 {
			return nil
		}
		c := w.rest[i]
		w.rest = w.rest[i+1:]
		if c == '{' || c == '[' || c == ',' {
			if w.values++; w.values > maxValues {
				return fmt.Errorf("%w: more than %d values", ErrManifest, maxValues)
			}
		}
		switch c {
		case '{', '[':
			if err := w.open(c == '{'); err != nil {
				return err
			}
		case '}', ']':
			w.stack = w.stack[:len(w.stack)-1]
		case '"':
			if err := w.text(); err != nil {
				return err
			}
		}
	}
}

func (w *keyWalk) open(object bool) error {
	if len(w.stack) >= maxNesting {
		return fmt.Errorf("%w: nested deeper than %d levels", ErrManifest, maxNesting)
	}
	var level jsonLevel
	if n := len(w.stack); n > 0 {
		level.freeForm = w.stack[n-1].freeForm || w.stack[n-1].lastKey == "annotations"
	}
	if object {
		level.keys = map[string]bool{}
	}
	w.stack = append(w.stack, level)
	return nil
}

// text consumes a string after its opening quote and, if it is a key, notes it.
func (w *keyWalk) text() error {
	end := 0
	for w.rest[end] != '"' {
		if w.rest[end] == '\\' {
			end++
		}
		end++
	}
	raw := w.rest[:end]
	w.rest = w.rest[end+1:]
	after := bytes.TrimLeft(w.rest, " \t\r\n")
	if len(after) == 0 || after[0] != ':' {
		return nil
	}
	key := string(raw)
	if bytes.IndexByte(raw, '\\') >= 0 {
		if err := json.Unmarshal([]byte(`"`+key+`"`), &key); err != nil {
			return fmt.Errorf("%w: malformed key", ErrManifest)
		}
	}
	level := &w.stack[len(w.stack)-1]
	if level.keys[key] {
		return fmt.Errorf("%w: key %q stands twice in one object", ErrManifest, clip(key))
	}
	level.keys[key] = true
	level.lastKey = key
	if level.freeForm {
		return nil
	}
	for _, known := range knownKeys {
		if key != known && strings.EqualFold(key, known) {
			return fmt.Errorf("%w: key %q must be spelled %q", ErrManifest, clip(key), known)
		}
	}
	return nil
}
