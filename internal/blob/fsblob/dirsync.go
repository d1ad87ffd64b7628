package fsblob

import "sync"

// dirSyncer makes directory entries durable. Callers that want one folder
// synced at the same time share a sync, provided that it starts after they ask:
// one that is already running may have missed their entry.
type dirSyncer struct {
	fsync func(dir string) error

	mu   sync.Mutex
	dirs map[string]*dirState // of folders that are being synced
}

type dirState struct {
	running bool
	next    *syncRound // of those who asked while a sync was running
}

type syncRound struct {
	done chan struct{}
	err  error
}

// sync returns when every entry that dir had before the call is durable.
func (d *dirSyncer) sync(dir string) error {
	d.mu.Lock()
	if d.dirs == nil {
		d.dirs = map[string]*dirState{}
	}
	st := d.dirs[dir]
	if st == nil {
		st = &dirState{}
		d.dirs[dir] = st
	}
	if st.running {
		if st.next == nil {
			st.next = &syncRound{done: make(chan struct{})}
		}
		round := st.next
		d.mu.Unlock()
		<-round.done
		return round.err
	}
	st.running = true
	d.mu.Unlock()
	err := d.fsync(dir)
	d.finish(dir, st)
	return err
}

// finish ends a sync and starts that of the callers who gathered meanwhile.
func (d *dirSyncer) finish(dir string, st *dirState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	round := st.next
	if round == nil {
		delete(d.dirs, dir)
		return
	}
	st.next = nil
	go func() {
		round.err = d.fsync(dir)
		close(round.done)
		d.finish(dir, st)
	}()
}
