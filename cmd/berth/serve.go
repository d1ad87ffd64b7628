package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/app"
	"github.com/berth-registry/berth/internal/config"
)

// settings are the flags that stand for configuration keys.
type settings struct {
	file string
	keys map[string]string // flag → key
}

// loadedBy adds --config and the flags of the given keys to a command.
func loadedBy(c *cobra.Command, keys ...[3]string) *settings {
	st := &settings{keys: map[string]string{}}
	c.Flags().StringVar(&st.file, "config", "", "configuration `FILE` (YAML)")
	for _, k := range keys {
		flag, key, usage := k[0], k[1], k[2]
		c.Flags().String(flag, "", usage)
		st.keys[flag] = key
	}
	return st
}

// load reads the configuration: flags win over the environment, that over the
// file, that over the defaults.
func (st *settings) load(c *cobra.Command) (*config.Config, error) {
	flags := map[string]string{}
	for flag, key := range st.keys {
		if f := c.Flags().Lookup(flag); f.Changed {
			flags[key] = f.Value.String()
		}
	}
	return config.Load(config.Sources{File: st.file, Environ: os.Environ(), Flags: flags})
}

var (
	dataFlag   = [3]string{"data", "data", "data `FOLDER` (default ./berth-data)"}
	listenFlag = [3]string{"listen", "listen", "`HOST:PORT` to listen on (default 127.0.0.1:5000)"}
	urlFlag    = [3]string{"url", "url", "address that clients use, such as https://registry.example.com"}
	authFlag   = [3]string{"auth", "auth.mode", "who must log in: auto or required (default auto)"}
	certFlag   = [3]string{"tls-cert", "tls.cert", "TLS certificate `FILE` (PEM); reloaded when it changes"}
	keyFlag    = [3]string{"tls-key", "tls.key", "TLS key `FILE` (PEM)"}
)

func newServe(s app.Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the registry",
		Long: `Run the registry until it gets SIGTERM or SIGINT; running requests may then
finish. What is missing in the data folder is created.

On a loopback address nobody needs to log in while there is no user and no key.
On any other address, and with --auth required, everybody must; the first start
then prints the key of the user admin, once.`,
		Example: `  berth serve
  berth serve --auth required
  berth serve --listen 127.0.0.1:5001 --data /srv/berth
  berth serve --config /etc/berth.yaml
  berth serve --listen :443 --tls-cert cert.pem --tls-key key.pem --url https://registry.example.com`,
		Args: noArgs,
	}
	st := loadedBy(c, listenFlag, dataFlag, urlFlag, authFlag, certFlag, keyFlag)
	c.Flags().Bool("insecure-anonymous", false, "ask nobody to log in: everyone who reaches the address may do everything")
	st.keys["insecure-anonymous"] = "insecure_anonymous"
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := st.load(c)
		if err != nil {
			return err
		}
		return app.Serve(c.Context(), conf, buildVersion(), s)
	}
	return c
}
