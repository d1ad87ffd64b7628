package credential

import (
	"container/list"
	"sync"
)

// token is that for one scope.
type token struct {
	lasting[string]
	key, scope string
}

// tokens are those that were used last.
type tokens struct {
	mu    sync.Mutex
	byKey map[string]*list.Element // of *token
	order list.List                // the one used last is in front
}

// of returns the token of a key, which is new with this scope if it is not there.
func (t *tokens) of(key, scope string) *token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.byKey[key]; ok {
		t.order.MoveToFront(e)
		return e.Value.(*token)
	}
	return t.add(key, scope)
}

// prepare is of, with this very scope; changed says that the token is new.
func (t *tokens) prepare(key, scope string) (_ *token, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.byKey[key]; ok {
		if e.Value.(*token).scope == scope {
			t.order.MoveToFront(e)
			return e.Value.(*token), false
		}
		t.remove(e)
	}
	return t.add(key, scope), true
}

func (t *tokens) add(key, scope string) *token {
	if t.byKey == nil {
		t.byKey = map[string]*list.Element{}
	}
	for len(t.byKey) >= maxTokens {
		t.remove(t.order.Back())
	}
	n := &token{key: key, scope: scope}
	t.byKey[key] = t.order.PushFront(n)
	return n
}

func (t *tokens) remove(e *list.Element) {
	delete(t.byKey, e.Value.(*token).key)
	t.order.Remove(e)
}

func (t *tokens) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byKey = nil
	t.order.Init()
}
