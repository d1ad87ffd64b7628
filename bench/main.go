// Command bench runs the same loads against Berth, against Docker's
// distribution registry and against a bare net/http server that does only what
// no registry can avoid: the practical limit of the machine it runs on. It
// prints the medians and what part of the limit each registry reaches.
//
// It runs on Linux; docs/performance.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options is the command line.
type options struct {
	quick       bool
	rounds      int
	duration    time.Duration
	only        *regexp.Regexp // loads
	servers     *regexp.Regexp
	out         string // file that holds the table, "" for none
	dir         string // parent of all data folders
	root        string // Berth's source
	blobSize    int64  // bytes of a large blob
	memorySize  int64  // bytes of a blob in the memory load
	storeSize   int    // tags in the store of the start load
	tagsPerPush int    // tags on each manifest of that store
	cores       int    // that servers may use, 0 for all
	allServers  bool   // that there are, rather than chosen ones

	onProxy     bool // measure Berth as a cache, instead
	onS3        bool // compare Berth on S3 with the service it stands on, instead
	limitServer bool // be the limit server instead
	listen      string
	data        string
}

func parseOptions(args []string) (options, error) {
	var o options
	var blobMiB, memoryMiB int64
	o.only, o.servers = regexp.MustCompile(""), regexp.MustCompile("")
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "small sizes and few rounds: to see that it works, not how fast")
	fs.IntVar(&o.rounds, "rounds", 0, "turns of each server at each load (default 5, quick 2)")
	fs.DurationVar(&o.duration, "duration", 0, "time of one turn (default 3s, quick 500ms)")
	fs.Func("only", "run the loads whose name matches this `regexp`", pattern(&o.only))
	fs.Func("servers", "run the servers whose name matches this `regexp`: limit, distribution, Berth, PostgreSQL", pattern(&o.servers))
	fs.StringVar(&o.out, "out", "", "also write the table into this `file`, between its bench markers")
	fs.StringVar(&o.dir, "dir", ".", "`folder` on the disk to measure; data folders are made in it and removed")
	fs.StringVar(&o.root, "root", "..", "`folder` of Berth's source")
	fs.Int64Var(&blobMiB, "blob", 0, "`MiB` of a large blob (default 256, quick 32)")
	fs.Int64Var(&memoryMiB, "memory-blob", 0, "`MiB` of each of the 40 blobs of the memory load (default 1024, quick 16)")
	fs.IntVar(&o.storeSize, "store", 0, "`tags` in the store of the start load (default 1000000, quick 20000)")
	fs.IntVar(&o.tagsPerPush, "store-tags", 1, "`tags` on each manifest of that store, 1 to 100; more fill it faster")
	fs.BoolVar(&o.onS3, "s3", false, "compare Berth on S3 with the SDK straight to the same service, instead")
	fs.BoolVar(&o.onProxy, "proxy", false, "measure Berth as a cache of another registry, instead; -only: first byte, throughput, warm, crowd")
	fs.IntVar(&o.cores, "cores", 0, "processor `cores` that each server may use (default all); clients use all")
	fs.BoolVar(&o.limitServer, "limit-server", false, "be the limit server (bench starts itself so)")
	fs.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the limit server")
	fs.StringVar(&o.data, "data", "", "data folder of the limit server")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see bench -help", fs.Arg(0))
	}
	o.allServers = o.servers.String() == ""
	o.setDefaults(&blobMiB, &memoryMiB)
	if o.rounds < 1 || o.duration <= 0 || blobMiB < 1 || memoryMiB < 1 || o.storeSize < 1 || o.cores < 0 ||
		o.tagsPerPush < 1 || o.tagsPerPush > maxTagsPerPush {
		return o, fmt.Errorf("numbers must be positive and -store-tags at most %d; see bench -help", maxTagsPerPush)
	}
	o.blobSize, o.memorySize = blobMiB<<20, memoryMiB<<20
	return o, nil
}

// setDefaults fills what the command line left at zero.
func (o *options) setDefaults(blobMiB, memoryMiB *int64) {
	if o.quick {
		setDefault(&o.rounds, 2)
		setDefault(&o.duration, 500*time.Millisecond)
		setDefault(blobMiB, 32)
		setDefault(memoryMiB, 16)
		setDefault(&o.storeSize, 20_000)
		return
	}
	setDefault(&o.rounds, 5)
	setDefault(&o.duration, 3*time.Second)
	setDefault(blobMiB, 256)
	setDefault(memoryMiB, 1024)
	setDefault(&o.storeSize, 1_000_000)
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func pattern(re **regexp.Regexp) func(string) error {
	return func(s string) (err error) {
		*re, err = regexp.Compile(s)
		return err
	}
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.limitServer {
		return serveLimit(ctx, o.listen, o.data)
	}
	if o.onProxy {
		return runProxy(ctx, o, args)
	}
	if o.onS3 {
		return runS3(ctx, o)
	}
	if o.out != "" { // an unusable file should not cost half an hour
		if err := checkMarkers(o.out); err != nil {
			return err
		}
	}
	chosen := loads(o)
	if len(chosen) == 0 {
		return errors.New("-only matches no load")
	}
	work, err := os.MkdirTemp(o.dir, "berth-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	if err := os.Chmod(work, 0o755); err != nil { // PostgreSQL may run as another user
		return err
	}
	servers, err := findServers(ctx, o, work)
	if err != nil {
		return err
	}
	b := bench{opts: o, work: work, servers: servers}
	results, failed := b.run(ctx, chosen)
	if err := ctx.Err(); err != nil {
		return err
	}
	host, err := describeHost(work)
	if err != nil {
		return err
	}
	text := render(results, servers, host, time.Now().UTC(), commandLine(args))
	return errors.Join(publish(text, o.out, failed), failed)
}

// publish prints the report and, if nothing failed, writes it into the file.
func publish(text, file string, failed error) error {
	fmt.Print(text)
	if file == "" {
		return nil
	}
	if failed != nil {
		return fmt.Errorf("%s is left as it was, for some loads failed", file)
	}
	return writeBetweenMarkers(file, text)
}

// commandLine is what to type to have the same run again.
func commandLine(args []string) string {
	words := []string{"go", "run", "."}
	for _, a := range args {
		if strings.ContainsAny(a, " \t\n'\"\\$|&;()<>*?[]#~`") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return "cd bench && " + strings.Join(words, " ")
}
