package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

// String names a member as the trail does: user:alice.
func (w Member) String() string { return string(w.Kind) + ":" + w.Name }

// ProjectMembers lists who has a role in a project itself. For those who have
// one.
func (m *Manager) ProjectMembers(ctx context.Context, c *Caller, name string, p Page) (List[Member], error) {
	_, project, err := m.project(ctx, c, name, access.Reader)
	if err != nil {
		return List[Member]{}, err
	}
	return m.members(ctx, project.ID, p)
}

// SetProjectMember gives a role in a project, or below a prefix of it. For its
// owners.
func (m *Manager) SetProjectMember(ctx context.Context, c *Caller, name string, who Member) (Member, error) {
	a, p, err := m.live(ctx, c, name, access.Owner)
	if err != nil {
		return who, err
	}
	if who.Prefix != "" {
		if err := checkPrefixes([]string{who.Prefix}, name); err != nil {
			return who, err
		}
	}
	e := c.event("member.set")
	e.Project, e.Repository, e.Reference = name, who.Prefix, who.String()
	return m.setMember(ctx, a, e, a.role(p), meta.Member{ProjectID: p.ID, Prefix: who.Prefix}, who)
}

// RemoveProjectMember takes a role in a project away: the one for exactly this
// prefix. For its owners.
func (m *Manager) RemoveProjectMember(ctx context.Context, c *Caller, name string, who Member) error {
	_, p, err := m.live(ctx, c, name, access.Owner)
	if err != nil {
		return err
	}
	e := c.event("member.remove")
	e.Project, e.Repository, e.Reference = name, who.Prefix, who.String()
	return m.removeMember(ctx, e, meta.Member{ProjectID: p.ID, Prefix: who.Prefix}, who)
}

func (m *Manager) members(ctx context.Context, place string, p Page) (List[Member], error) {
	grants, err := m.o.Store.Members(ctx, place, p.After, p.size())
	all, err := page(grants, err, p, func(g meta.Member) string { return g.ID })
	out := List[Member]{Items: make([]Member, len(all.Items)), Next: all.Next}
	for i, g := range all.Items {
		out.Items[i] = memberOf(g)
	}
	return out, err
}

func memberOf(g meta.Member) Member {
	w := Member{Kind: UserMember, Name: g.User, Prefix: g.Prefix, Role: g.Role, Since: g.CreatedAt}
	if g.Group != "" {
		w.Kind, w.Name = GroupMember, g.Group
	}
	return w
}

// setMember gives who a role in a place, not above the giver's own.
func (m *Manager) setMember(ctx context.Context, a *actor, e audit.Event, own access.Role, place meta.Member, who Member) (Member, error) {
	if who.Role == access.None {
		return who, invalid("a member needs a role: reader, writer, maintainer or owner")
	}
	if err := m.mayGive(ctx, a, own, who.Role); err != nil {
		return who, err
	}
	if err := who.into(&place); err != nil {
		return who, err
	}
	place.Role = who.Role
	e.Reference += " " + who.Role.String()
	got, err := m.o.Store.PutMember(ctx, meta.Change{Event: e}, place)
	return memberOf(got), asked(err)
}

func (m *Manager) removeMember(ctx context.Context, e audit.Event, place meta.Member, who Member) error {
	if err := who.into(&place); err != nil {
		return err
	}
	return asked(m.o.Store.RemoveMember(ctx, meta.Change{Event: e}, place))
}

// into names the member in a grant.
func (w Member) into(g *meta.Member) error {
	if w.Name == "" {
		return invalid("a member needs a name")
	}
	switch w.Kind {
	case UserMember:
		g.User = w.Name
	case GroupMember:
		g.Group = w.Name
	default:
		return invalid("kind %.32q of a member: use user or group", w.Kind)
	}
	return nil
}
