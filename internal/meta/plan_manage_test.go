package meta

import (
	"context"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// callManagement is callEveryVerb of the verbs that manage who may do what, and
// of the look-ups that access is decided by.
func callManagement(ctx context.Context, db *DB) {
	once := Change{Once: &Once{ID: "once", Request: "x", Answer: []byte{}}}
	org, _ := db.CreateOrganization(ctx, once, Organization{Name: "acme", Plan: "default"})
	db.CreateOrganization(ctx, once, Organization{Name: "acme"})
	user, _ := db.CreateUser(ctx, Change{}, UserSpec{Name: "alice"})
	group, _ := db.CreateGroup(ctx, Change{}, Group{Name: "devs", Claim: "devs"})
	project, _ := db.CreateProject(ctx, Change{}, ProjectSpec{Name: "acme", Visibility: access.Private, OrganizationID: org.ID, Owner: user.ID})
	db.ClaimProject(ctx, "claimed", user.ID)
	callLists(ctx, db, org, project)

	plan := "small"
	db.CreatePlan(ctx, Change{}, access.Plan{Name: plan})
	db.SetPlan(ctx, Change{}, plan, PlanChange{Storage: new(int64(1))})
	db.SetOrganization(ctx, Change{}, org.ID, OrganizationChange{Plan: &plan})
	db.SetProject(ctx, Change{}, project.ID, ProjectChange{Plan: &plan, OrganizationID: &org.ID})
	db.SetUser(ctx, Change{}, user.Name, UserChange{Plan: &plan, Password: new("x")})
	db.SetGroup(ctx, Change{}, group.Name, GroupChange{Claim: new("others")})
	db.AddGroupUser(ctx, Change{}, group.Name, user.Name)
	db.PutMember(ctx, Change{}, Member{Group: group.Name, ProjectID: project.ID, Prefix: "acme/app", Role: access.Writer})
	member, _ := db.PutMember(ctx, Change{}, Member{User: user.Name, OrganizationID: org.ID, Role: access.Writer})
	db.UserAccess(ctx, user.ID)
	db.RemoveMember(ctx, Change{}, member)

	key, _ := db.CreateKey(ctx, Change{}, access.Key{Name: "ci", UserID: user.ID}, "hash")
	db.KeyByHash(ctx, "hash")
	db.KeyByID(ctx, key.ID)
	db.TouchKeys(ctx, map[string]time.Time{key.ID: db.now()})
	db.RevokeKey(ctx, Change{}, user.ID, key.ID)
	db.RevokeKey(ctx, Change{}, user.ID, "ci")
	db.CreateTrustRule(ctx, Change{}, access.TrustRule{Name: "main", ProjectID: project.ID, Role: access.Writer})
	db.TrustRule(ctx, project.ID, "main")
	db.DeleteTrustRule(ctx, Change{}, project.ID, "main")
	db.AdminReset(ctx, access.Key{Name: "admin"}, "first")
	db.AdminReset(ctx, access.Key{Name: "admin"}, "second")
	db.FirstAdmin(ctx, access.Key{Name: "admin"}, "third")

	db.RemoveGroupUser(ctx, Change{}, group.Name, user.Name)
	db.DeleteGroup(ctx, Change{}, group.Name)
	db.EndSessions(ctx, Change{}, user.Name)
	db.DeleteUser(ctx, Change{}, user.Name)
	db.DeleteOrganization(ctx, Change{}, org.ID)
	db.DeletePlan(ctx, Change{}, plan)
	db.PruneIdempotency(ctx, db.now(), 10)
}

func callLists(ctx context.Context, db *DB, org Organization, project Project) {
	granted := View{SignedIn: true, Grants: []access.Grant{{OrganizationID: org.ID}, {ProjectID: project.ID}}}
	for _, v := range []View{{Everything: true}, granted} {
		db.Organizations(ctx, v, "", 10)
		db.Projects(ctx, v, ProjectFilter{}, "", 10)
		db.Projects(ctx, v, ProjectFilter{OrganizationID: org.ID}, "", 10)
	}
	db.Organization(ctx, org.Name)
	db.Project(ctx, project.Name)
	db.ProjectAccess(ctx, project.Name)
	db.ProjectAccessByID(ctx, project.ID)
	db.Members(ctx, project.ID, "", 10)
	db.User(ctx, "alice")
	db.Login(ctx, "alice")
	db.Users(ctx, "", 10)
	db.Groups(ctx, "", 10)
	db.GroupUsers(ctx, "devs", "", 10)
	db.Plan(ctx, "default")
	db.PlanByID(ctx, "default")
	db.Plans(ctx, "", 10)
	db.Keys(ctx, project.ID, true, "", 10)
	db.Key(ctx, project.ID, "ci")
	db.ProjectTrustRules(ctx, project.ID, "", 10)
	db.TrustRuleByID(ctx, "x")
}
