package manage

import (
	"context"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

// Store is the database; *meta.DB is one.
type Store interface {
	organizations
	projects
	users
	credentials
	plans
	tokens
	proxyRows
	ListAudit(ctx context.Context, f meta.AuditFilter, after string, n int) (page []audit.Event, next string, err error)
}

type organizations interface {
	Organizations(ctx context.Context, v meta.View, after string, n int) ([]meta.Organization, error)
	Organization(ctx context.Context, name string) (meta.Organization, error)
	CreateOrganization(ctx context.Context, c meta.Change, o meta.Organization) (meta.Organization, error)
	SetOrganization(ctx context.Context, c meta.Change, id string, o meta.OrganizationChange) error
	DeleteOrganization(ctx context.Context, c meta.Change, id string) error
	Members(ctx context.Context, place, after string, n int) ([]meta.Member, error)
	PutMember(ctx context.Context, c meta.Change, m meta.Member) (meta.Member, error)
	RemoveMember(ctx context.Context, c meta.Change, m meta.Member) error
}

type projects interface {
	Projects(ctx context.Context, v meta.View, f meta.ProjectFilter, after string, n int) ([]meta.Project, error)
	Project(ctx context.Context, name string) (meta.Project, error)
	CountProject(ctx context.Context, id string) (meta.Counts, error)
	CreateProject(ctx context.Context, c meta.Change, s meta.ProjectSpec) (meta.Project, error)
	SetProject(ctx context.Context, c meta.Change, id string, p meta.ProjectChange) error
	RenameProject(ctx context.Context, c meta.Change, id, name string) error
	DeleteProject(ctx context.Context, c meta.Change, id string) (meta.Counts, error)
	RestoreProject(ctx context.Context, c meta.Change, id string) error
}

type users interface {
	Users(ctx context.Context, after string, n int) ([]meta.User, error)
	User(ctx context.Context, name string) (meta.User, error)
	CreateUser(ctx context.Context, c meta.Change, s meta.UserSpec) (meta.User, error)
	SetUser(ctx context.Context, c meta.Change, name string, u meta.UserChange) error
	DeleteUser(ctx context.Context, c meta.Change, name string) error
	EndSessions(ctx context.Context, c meta.Change, name string) error
	Groups(ctx context.Context, after string, n int) ([]meta.Group, error)
	Group(ctx context.Context, name string) (meta.Group, error)
	CreateGroup(ctx context.Context, c meta.Change, g meta.Group) (meta.Group, error)
	SetGroup(ctx context.Context, c meta.Change, name string, g meta.GroupChange) error
	DeleteGroup(ctx context.Context, c meta.Change, name string) error
	GroupUsers(ctx context.Context, group, after string, n int) ([]meta.GroupUser, error)
	AddGroupUser(ctx context.Context, c meta.Change, group, user string) error
	RemoveGroupUser(ctx context.Context, c meta.Change, group, user string) error
}

type credentials interface {
	Key(ctx context.Context, owner, ref string) (access.Key, error)
	Keys(ctx context.Context, owner string, revoked bool, after string, n int) ([]access.Key, error)
	CreateKey(ctx context.Context, c meta.Change, k access.Key, hash string) (access.Key, error)
	RevokeKey(ctx context.Context, c meta.Change, owner, ref string) (access.Key, error)
	ProjectTrustRules(ctx context.Context, projectID, after string, n int) ([]access.TrustRule, error)
	CreateTrustRule(ctx context.Context, c meta.Change, r access.TrustRule) (access.TrustRule, error)
	DeleteTrustRule(ctx context.Context, c meta.Change, projectID, name string) error
}

type plans interface {
	Plans(ctx context.Context, after string, n int) ([]access.Plan, error)
	Plan(ctx context.Context, name string) (access.Plan, error)
	CreatePlan(ctx context.Context, c meta.Change, p access.Plan) (access.Plan, error)
	SetPlan(ctx context.Context, c meta.Change, name string, p meta.PlanChange) error
	DeletePlan(ctx context.Context, c meta.Change, name string) error
}

type tokens interface {
	ListRefreshTokens(ctx context.Context, userID, after string, n int) ([]access.RefreshToken, error)
	RefreshTokenByID(ctx context.Context, id string) (access.RefreshToken, error)
	RevokeRefreshToken(ctx context.Context, c meta.Change, id string) error
	SigningKeys(ctx context.Context) ([]access.SigningKey, error)
	ReplaceSigningKey(ctx context.Context, c meta.Change, key access.SigningKey, revoke bool) error
}

type proxyRows interface {
	Proxies(ctx context.Context, after string, n int) ([]meta.Proxy, error)
	Proxy(ctx context.Context, name string) (meta.Proxy, error)
	PutProxy(ctx context.Context, c meta.Change, p meta.Proxy) (meta.Proxy, error)
	DeleteProxy(ctx context.Context, c meta.Change, name string) error
	ProxyStats(ctx context.Context, proxy string) (meta.ProxyStats, error)
	AppendAudit(ctx context.Context, events []audit.Event) error
}

var _ Store = (*meta.DB)(nil)
