package app

import (
	"context"
	"fmt"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/config"
)

// adminKeyName is the name of the key that the first start and ResetAdmin make.
const adminKeyName = "admin"

// ResetAdmin gives the user admin, who is made or unlocked as needed, a new key
// and prints it, alone on the last line. No server may run on the data folder.
func ResetAdmin(ctx context.Context, c *config.Config, s Streams) error {
	st, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer st.close()
	secret, hash := auth.NewKey(auth.UserKey)
	if err := st.db.AdminReset(ctx, access.Key{Name: adminKeyName, CreatedBy: access.Local.String()}, hash); err != nil {
		return err
	}
	fmt.Fprintf(s.Err, "The new key of the user admin; a former one that was made like this is revoked.\n"+
		"It is shown only now: export it as BERTH_KEY, or give it to `berth login`.\n")
	_, err = fmt.Fprintln(s.Out, secret)
	return err
}

// firstAdmin makes the user admin with a key and prints it, if log-in is asked
// for and there is nobody who could.
func firstAdmin(ctx context.Context, c *config.Config, st *store, s Streams) error {
	if !asksForLogin(c) {
		return nil
	}
	secret, hash := auth.NewKey(auth.UserKey)
	made, err := st.db.FirstAdmin(ctx, access.Key{Name: adminKeyName, CreatedBy: access.Local.String()}, hash)
	if err != nil || !made {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "First start: log in with this key of the user admin. It is shown only now.\n%s\n", secret)
	return err
}
