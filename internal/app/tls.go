package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/config"
)

// tlsConfig is nil where no certificate is configured.
func tlsConfig(c *config.Config, log *slog.Logger) (*tls.Config, error) {
	if c.TLS.Cert == "" {
		return nil, nil
	}
	k := &keyPair{cert: c.TLS.Cert, key: c.TLS.Key, log: log}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", k.cert, k.key, err)
	}
	return &tls.Config{GetCertificate: k.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// keyPair is a certificate that follows its files.
type keyPair struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   [2]fileStamp
	pair    *tls.Certificate
}

// fileStamp changes when a file's content does.
type fileStamp struct {
	modified time.Time
	size     int64
}

func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.checked) >= time.Second {
		if err := k.load(); err != nil {
			k.log.Error("new TLS certificate cannot be used, the old one stays", "cert", k.cert, "error", err)
		}
	}
	return k.pair, nil
}

// load reads the files if they have changed. A pair that is half written does
// not match and is tried again.
func (k *keyPair) load() error {
	k.checked = time.Now()
	var stamp [2]fileStamp
	for i, name := range []string{k.cert, k.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		stamp[i] = fileStamp{info.ModTime(), info.Size()}
	}
	if k.pair != nil && stamp == k.stamp {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return err
	}
	if k.pair != nil {
		k.log.Info("TLS certificate reloaded", "cert", k.cert)
	}
	k.pair, k.stamp = &pair, stamp
	return nil
}
