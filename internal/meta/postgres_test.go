package meta_test

import (
	"os"
	"testing"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestPostgresConforms(t *testing.T) {
	metatest.RunShared(t, func(t *testing.T, o meta.Options) *meta.DB {
		o.Postgres = metatest.URL(t)
		return open(t, o)
	})
}
