package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newProject(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "project",
		Short: "Manage projects",
		Long: `Manage projects. A project is the first segment of repository names: acme/app and
acme/tools/lint are repositories of the project acme.`,
		Example: `  berth project create acme --visibility private
  berth project ls`,
	}, newProjectCreate(s), newProjectList(s), newProjectShow(s), newProjectSet(s), newProjectRename(s), newProjectDelete(s), newProjectRestore(s))
}

// projectFlags are what can be said of a project.
type projectFlags struct{ visibility, newcomers, organization, plan string }

func (f *projectFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.visibility, "visibility", "", "who may pull without a role: `private` (nobody), internal (who is logged in) or public (everybody)")
	c.Flags().StringVar(&f.newcomers, "newcomers", "", "who may push while nobody has the project: `closed` (nobody), open (everybody) or claim (everybody; the first who is logged in gets it)")
	c.Flags().StringVar(&f.organization, "org", "", "organization `NAME` it belongs to")
	c.Flags().StringVar(&f.plan, "plan", "", "bound what it uses by the plan `NAME`; for administrators")
}

func newProjectCreate(s app.Streams) *cobra.Command {
	var f projectFlags
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a project",
		Long:  "Make a project. You become its owner. For maintainers of its organization.",
		Example: `  berth project create acme --visibility private
  berth project create acme --visibility public --org default`,
		Args: exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[apiclient.Project](cl.CreateProject(ctx, nil, apiclient.NewProject{
			Name: args[0], Visibility: given(apiclient.NewProjectVisibility(f.visibility)),
			Newcomers: given(apiclient.NewProjectNewcomers(f.newcomers)), Organization: given(f.organization), Plan: given(f.plan),
		}))
		if err != nil {
			return err
		}
		return cl.say(p, "project %s is made; it is %s", p.Name, p.Visibility)
	})
}

func newProjectList(s app.Streams) *cobra.Command {
	var organization string
	var deleted bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List projects",
		Long:  "List the projects that you may pull from, and what you are in each.",
		Example: `  berth project ls
  berth project ls --deleted`,
		Args: noArgs,
	}
	c.Flags().StringVar(&organization, "org", "", "only those of the organization `NAME`")
	c.Flags().BoolVar(&deleted, "deleted", false, "those that were deleted and can be restored")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.Project](func(after *string) (*http.Response, error) {
			return cl.ListProjects(ctx, &apiclient.ListProjectsParams{
				After: after, Limit: new(int64(pageSize)), Organization: given(organization), Deleted: given(deleted),
			})
		})
		return list(cl.output, all, "NAME ORGANIZATION VISIBILITY ROLE PLAN CREATED", func(p apiclient.Project) []string {
			return []string{p.Name, p.Organization, string(p.Visibility), string(p.Role), or(value(p.Plan), "-"), formatTime(&p.Created)}
		})
	})
}

func newProjectShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show a project and what it uses",
		Long:    "Show a project and, to its maintainers, what it uses.",
		Example: "  berth project show acme",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[apiclient.Project](cl.GetProject(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.fields(p, projectPairs(p)...)
	})
}

func projectPairs(p apiclient.Project) [][2]string {
	pairs := [][2]string{
		{"name", p.Name}, {"organization", p.Organization}, {"visibility", string(p.Visibility)},
		{"newcomers", string(value(p.Newcomers))}, {"claimed", yes(p.Claimed)}, {"plan", value(p.Plan)},
		{"your role", string(p.Role)}, {"created", formatTime(&p.Created)}, {"deleted", formatTime(p.Deleted)},
	}
	if u := p.Usage; u != nil {
		pairs = append(pairs,
			[2]string{"storage", formatSize(u.Storage) + of(u.MaxStorage, formatSize)},
			[2]string{"repositories", strconv.FormatInt(u.Repositories, 10) + of(u.MaxRepositories, formatCount)})
	}
	if h := p.Content; h != nil {
		pairs = append(pairs,
			[2]string{"manifests", strconv.FormatInt(h.Manifests, 10)}, [2]string{"tags", strconv.FormatInt(h.Tags, 10)})
	}
	return pairs
}

// of says which bound something is held to, if any.
func of(most int64, format func(int64) string) string {
	if most == 0 {
		return ""
	}
	return " of " + format(most)
}

func newProjectSet(s app.Streams) *cobra.Command {
	var f projectFlags
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a project",
		Long:  "Change a project: only what is given. For its owners. Who may pull is decided anew at the next request.",
		Example: `  berth project set acme --visibility public
  berth project set acme --plan team`,
		Args: exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		change := apiclient.ProjectChange{
			Visibility: changed(cl, "visibility", apiclient.ProjectChangeVisibility(f.visibility)),
			Newcomers:  changed(cl, "newcomers", apiclient.ProjectChangeNewcomers(f.newcomers)),
			Plan:       changed(cl, "plan", f.plan), Organization: changed(cl, "org", f.organization),
		}
		if change == (apiclient.ProjectChange{}) {
			return cl.wrong("nothing is to be changed: give --visibility, --newcomers, --org or --plan")
		}
		p, err := read[apiclient.Project](cl.UpdateProject(ctx, args[0], change))
		if err != nil {
			return err
		}
		return cl.fields(p, projectPairs(p)...)
	})
}

// changed is what a flag says, nil where it was not given.
func changed[T any](cl *client, flag string, v T) *T {
	if !cl.command.Flags().Changed(flag) {
		return nil
	}
	return &v
}

func newProjectRename(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "rename NAME NEW",
		Short: "Give a project another name",
		Long: `Give a project another name. Its repositories keep their content under the new
first segment; clients must use the new names from then on. For its owners.`,
		Example: "  berth project rename acme acme-tools",
		Args:    exactly("NAME", "NEW"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[apiclient.Project](cl.RenameProject(ctx, args[0], apiclient.Rename{Name: args[1]}))
		if err != nil {
			return err
		}
		return cl.say(p, "project %s is now %s; its repositories begin with %s/", args[0], p.Name, p.Name)
	})
}

func newProjectDelete(s app.Streams) *cobra.Command {
	var confirm string
	c := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a project with all it holds",
		Long: `Delete a project with all it holds. You are asked to type its name; scripts say
--confirm NAME. It can be had back for some time with berth project restore. For
its owners.`,
		Example: `  berth project delete acme
  berth project delete acme --confirm acme`,
		Args: exactly("NAME"),
	}
	c.Flags().StringVar(&confirm, "confirm", "", "the project's `NAME` once more: do not ask")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		name := args[0]
		if !cl.command.Flags().Changed("confirm") {
			var err error
			if confirm, err = confirmDelete(ctx, cl, name); err != nil {
				return err
			}
		}
		if confirm != name {
			return fmt.Errorf("project %s is not deleted: %q is not its name", name, confirm)
		}
		d, err := read[apiclient.DeletedProject](cl.DeleteProject(ctx, name, &apiclient.DeleteProjectParams{Confirm: confirm}))
		if err != nil {
			return err
		}
		return cl.say(d, "project %s is deleted, with %s\nuntil %s it can be had back with: berth project restore %s",
			d.Name, counts(d.Content), d.RestorableUntil.Local().Format(time.RFC1123), d.Name)
	})
}

// confirmDelete has somebody type the project's name.
func confirmDelete(ctx context.Context, cl *client, name string) (string, error) {
	p, err := read[apiclient.Project](cl.GetProject(ctx, name))
	if err != nil {
		return "", err
	}
	held := "all it holds"
	if p.Content != nil {
		held = counts(*p.Content)
	}
	answer, err := ask(cl.command, fmt.Sprintf("This deletes project %s with %s.\nType its name to go on: ", name, held), false)
	if err != nil {
		return "", fmt.Errorf("%w; say --confirm %s", err, name)
	}
	return answer, nil
}

func counts(u apiclient.ProjectContent) string {
	return fmt.Sprintf("%s, %s, %s (%s)", count(u.Repositories, "repository", "repositories"),
		count(u.Manifests, "manifest", "manifests"), count(u.Tags, "tag", "tags"), formatSize(u.Storage))
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func newProjectRestore(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "restore NAME",
		Short:   "Have a deleted project back",
		Long:    "Have a deleted project back, as it was. berth project ls --deleted lists them. For its owners.",
		Example: "  berth project restore acme",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[apiclient.Project](cl.RestoreProject(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.say(p, "project %s is back", p.Name)
	})
}
