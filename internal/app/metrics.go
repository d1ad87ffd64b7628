package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/berth-registry/berth/internal/config"
)

// serveAdmin serves those who run the registry, on a listener of their own, if
// one is configured. stop ends it at once: nobody waits for its answers.
func serveAdmin(ctx context.Context, c *config.Config, s *site, log *slog.Logger) (stop func(), err error) {
	if c.Admin.Listen == "" {
		return func() {}, nil
	}
	ln, err := listen(ctx, c.Admin.Listen)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	mux.HandleFunc("GET /healthz", healthy)
	mux.Handle("GET /readyz", s.ready)
	mux.Handle("GET /traces", s.tracer)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "error", err)
		}
	}()
	log.Info("metrics are served", "address", ln.Addr().String())
	return func() { srv.Close(); <-ended }, nil
}
