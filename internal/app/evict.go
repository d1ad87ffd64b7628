package app

import (
	"context"
)

// usage is how many bytes each cache keeps.
func (p *proxies) usage(ctx context.Context, r *routes) (map[string]int64, error) {
	usage := map[string]int64{}
	for name := range r.proxies {
		n, err := p.store.db.ProxyUsage(ctx, name)
		if err != nil {
			return nil, err
		}
		usage[name] = n
	}
	return usage, nil
}

// sampleUsage shows how much the caches keep.
func (p *proxies) sampleUsage(ctx context.Context) {
	held := p.held()
	defer held.release()
	usage, err := p.usage(ctx, held)
	if err != nil {
		usage = nil
	}
	p.metrics.Usage(usage)
}
