package limit

// locked finds or makes a bucket and locks it.
func (l *Limiter) locked(k key) *bucket {
	for {
		l.mu.RLock()
		b := l.buckets[k]
		l.mu.RUnlock()
		if b == nil {
			b = l.create(k)
		}
		b.mu.Lock()
		if !b.gone {
			return b
		}
		b.mu.Unlock()
		l.forget(b)
	}
}

// create makes a bucket, for which another may have to go.
func (l *Limiter) create(k key) *bucket {
	l.mu.Lock()
	b := l.buckets[k]
	var changes []slot
	var victim *bucket
	if b == nil {
		if len(l.buckets) >= l.most {
			victim, changes = l.evict()
		}
		b = &bucket{key: k}
		l.buckets[k] = b
	}
	l.mu.Unlock()
	if len(changes) > 0 {
		if _, err := l.exchange(victim.key, changes, nil, 0); err != nil {
			l.fail(err)
		}
	}
	return b
}

// evict takes some bucket out of the table, one that owes nothing if there is
// one at hand, and returns what it owes. l.mu is held; nobody who holds a
// bucket's lock waits for that.
func (l *Limiter) evict() (victim *bucket, owed []slot) {
	const looks = 8
	n := 0
	for _, b := range l.buckets {
		if n++; n > looks && victim != nil {
			break
		}
		b.mu.Lock()
		if b.trip == nil && !b.gone {
			if victim = b; !b.owing(true) {
				b.mu.Unlock()
				break
			}
		}
		b.mu.Unlock()
	}
	if victim == nil { // all are being settled
		return nil, nil
	}
	victim.mu.Lock()
	defer victim.mu.Unlock()
	if victim.trip != nil || victim.gone {
		return nil, nil // just taken up again: one too many for a moment
	}
	victim.gone = true
	delete(l.buckets, victim.key)
	return victim, victim.due(true)
}

func (l *Limiter) forget(b *bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets[b.key] == b {
		delete(l.buckets, b.key)
	}
}

func (l *Limiter) list() []*bucket {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := make([]*bucket, 0, len(l.buckets))
	for _, b := range l.buckets {
		list = append(list, b)
	}
	return list
}
