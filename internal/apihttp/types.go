package apihttp

import "time"

// The resources as they look on the wire. Their tags are the document's text.

// Organization is a group of projects.
type Organization struct {
	Name    string    `json:"name" doc:"Name, unique on the server" example:"acme"`
	Plan    string    `json:"plan,omitempty" doc:"Plan of its projects that have none of their own; absent: the default plan" example:"team"`
	Created time.Time `json:"created" doc:"When it was made"`
}

// NewOrganization is asked for.
type NewOrganization struct {
	Name string `json:"name" minLength:"1" maxLength:"64" doc:"Lower-case letters and digits, with single dots, underscores or dashes between them" example:"acme"`
	Plan string `json:"plan,omitempty" maxLength:"64" doc:"Plan of its projects that have none of their own" example:"team"`
}

// OrganizationChange is what changes; what is absent stays.
type OrganizationChange struct {
	Name *string `json:"name,omitempty" minLength:"1" maxLength:"64" doc:"Another name" example:"acme"`
	Plan *string `json:"plan,omitempty" maxLength:"64" doc:"Another plan; empty: the default plan" example:"team"`
}

// Project is the first segment of repository names.
type Project struct {
	Name         string          `json:"name" doc:"First segment of its repositories' names" example:"acme"`
	Organization string          `json:"organization" doc:"Organization it belongs to" example:"default"`
	Visibility   string          `json:"visibility" enum:"private,internal,public" doc:"Who may pull without a role: nobody, everybody who is logged in, everybody" example:"private"`
	Newcomers    string          `json:"newcomers,omitempty" enum:"closed,open,claim" doc:"What happens to those who come while the project is unclaimed; absent: as the server is configured"`
	Claimed      bool            `json:"claimed" doc:"Somebody has it: its roles apply" example:"true"`
	Plan         string          `json:"plan,omitempty" doc:"Its own plan; absent: that of its organization" example:"team"`
	Created      time.Time       `json:"created" doc:"When it was made"`
	Deleted      *time.Time      `json:"deleted,omitempty" doc:"When it was deleted; it can still be restored"`
	Role         string          `json:"role" enum:"none,reader,writer,maintainer,owner" doc:"What you are in the project as a whole" example:"owner"`
	Usage        *ProjectUsage   `json:"usage,omitempty" doc:"What it uses; for its maintainers, and only where one project is asked for"`
	Content      *ProjectContent `json:"content,omitempty" doc:"What it has; for its maintainers, and only where one project is asked for"`
}

// ProjectUsage is what a project uses, and may use.
type ProjectUsage struct {
	Storage         int64 `json:"storage" doc:"Bytes of manifests and blobs, each blob counted once" example:"73400320"`
	Repositories    int64 `json:"repositories" doc:"Number of repositories" example:"3"`
	MaxStorage      int64 `json:"maxStorage" doc:"Bytes that its plan allows; 0: no bound" example:"107374182400"`
	MaxRepositories int64 `json:"maxRepositories" doc:"Repositories that its plan allows; 0: no bound" example:"100"`
}

// ProjectContent is what a project has.
type ProjectContent struct {
	Repositories int64 `json:"repositories" doc:"Number of repositories" example:"3"`
	Tags         int64 `json:"tags" doc:"Number of tags" example:"7"`
	Manifests    int64 `json:"manifests" doc:"Number of manifests" example:"12"`
	Storage      int64 `json:"storage" doc:"Bytes of manifests and blobs, each blob counted once" example:"73400320"`
}

// NewProject is asked for.
type NewProject struct {
	Name         string `json:"name" minLength:"1" maxLength:"64" doc:"First segment of its repositories' names: lower-case letters and digits, joined by dots, underscores or dashes" example:"acme"`
	Organization string `json:"organization,omitempty" maxLength:"64" default:"default" doc:"Organization it belongs to; you must be maintainer of it" example:"default"`
	Visibility   string `json:"visibility,omitempty" enum:"private,internal,public" default:"private" doc:"Who may pull without a role" example:"private"`
	Newcomers    string `json:"newcomers,omitempty" enum:"closed,open,claim" doc:"What happens to those who come while the project is unclaimed"`
	Plan         string `json:"plan,omitempty" maxLength:"64" doc:"Its own plan. For administrators" example:"team"`
}

// ProjectChange is what changes; what is absent stays.
type ProjectChange struct {
	Organization *string `json:"organization,omitempty" minLength:"1" maxLength:"64" doc:"Another organization; you must be maintainer of it" example:"acme"`
	Visibility   *string `json:"visibility,omitempty" enum:"private,internal,public" doc:"Who may pull without a role" example:"public"`
	Newcomers    *string `json:"newcomers,omitempty" enum:",closed,open,claim" doc:"What happens to those who come while the project is unclaimed; empty: as the server is configured"`
	Plan         *string `json:"plan,omitempty" maxLength:"64" doc:"Its own plan; empty: that of its organization. For administrators" example:"team"`
}

// Rename asks for another name.
type Rename struct {
	Name string `json:"name" minLength:"1" maxLength:"64" doc:"The new name" example:"acme-tools"`
}

// DeletedProject is what was deleted, and how long it can be had back.
type DeletedProject struct {
	Name            string         `json:"name" doc:"Name of the project" example:"acme"`
	Content         ProjectContent `json:"content" doc:"What it held"`
	RestorableUntil time.Time      `json:"restorableUntil" doc:"Until when it can be restored"`
}

// Member has a role.
type Member struct {
	Kind   string    `json:"kind" enum:"user,group" doc:"What the name is of" example:"user"`
	Name   string    `json:"name" doc:"Name of the user or group" example:"alice"`
	Role   string    `json:"role" enum:"reader,writer,maintainer,owner" doc:"What the member may do: pull; and push; and delete, and manage keys; and everything" example:"writer"`
	Prefix string    `json:"prefix,omitempty" doc:"Repository at and below which the role holds; absent: everywhere" example:"acme/app"`
	Since  time.Time `json:"since" doc:"When the role was given"`
}

// RoleGrant gives a role.
type RoleGrant struct {
	Role string `json:"role" enum:"reader,writer,maintainer,owner" doc:"The role; not above your own" example:"writer"`
}

// Key is a credential that programs use in place of a password.
type Key struct {
	ID        string     `json:"id" doc:"As the audit trail names it" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Name      string     `json:"name" doc:"Name, unique among the owner's keys that are not revoked" example:"ci"`
	Role      string     `json:"role,omitempty" enum:"reader,writer,maintainer,owner" doc:"The most it lets do; absent: as much as its user may" example:"writer"`
	Prefixes  []string   `json:"prefixes,omitempty" nullable:"false" doc:"Repositories at and below which it is good; absent: everywhere"`
	Addresses []string   `json:"addresses,omitempty" nullable:"false" doc:"Address ranges it is good from; absent: everywhere"`
	Created   time.Time  `json:"created" doc:"When it was made"`
	CreatedBy string     `json:"createdBy" doc:"Who made it" example:"user:alice"`
	Expires   *time.Time `json:"expires,omitempty" doc:"When it ends; absent: never"`
	Revoked   *time.Time `json:"revoked,omitempty" doc:"When it was revoked"`
	LastUsed  *time.Time `json:"lastUsed,omitempty" doc:"When it was last used, within the hour"`
}

// CreatedKey is a key with its secret, which is never shown again.
type CreatedKey struct {
	Key    Key    `json:"key" doc:"The key"`
	Secret string `json:"secret" doc:"The secret: the password of docker login, with any user name that is no user's. It is shown only now" example:"berth_p_2FzW4rT0cQh1yB9sLx7vKd3nMj6pRg8uEa5oHt2iXwZqYf0c1Dk"`
}

// NewKey is asked for.
type NewKey struct {
	Name      string     `json:"name" minLength:"1" maxLength:"64" doc:"Name, unique among the owner's keys" example:"ci"`
	Role      string     `json:"role,omitempty" enum:"reader,writer,maintainer,owner" doc:"The most it lets do; required of a project's key" example:"writer"`
	Prefixes  []string   `json:"prefixes,omitempty" nullable:"false" maxItems:"100" doc:"Repositories at and below which it is good" example:"[\"acme/app\"]"`
	Addresses []string   `json:"addresses,omitempty" nullable:"false" maxItems:"100" doc:"Addresses and ranges it is good from" example:"[\"192.0.2.0/24\"]"`
	Expires   *time.Time `json:"expires,omitempty" doc:"When it ends, within ten years; absent: never"`
}

// TrustRule lets jobs in whose ID tokens match.
type TrustRule struct {
	ID        string            `json:"id" doc:"As the audit trail names it" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Name      string            `json:"name" doc:"Name, unique in the project" example:"release"`
	Issuer    string            `json:"issuer" doc:"Issuer of the ID tokens" example:"https://token.actions.githubusercontent.com"`
	Audience  string            `json:"audience" doc:"Audience the ID tokens are for" example:"registry.example.com"`
	Claims    map[string]string `json:"claims" doc:"Claims that must all match; * stands for any run of characters"`
	Role      string            `json:"role" enum:"reader,writer,maintainer,owner" doc:"What the jobs may do" example:"writer"`
	Prefixes  []string          `json:"prefixes,omitempty" nullable:"false" doc:"Repositories at and below which it holds; absent: everywhere"`
	Created   time.Time         `json:"created" doc:"When it was made"`
	CreatedBy string            `json:"createdBy" doc:"Who made it" example:"user:alice"`
}

// NewTrustRule is asked for.
type NewTrustRule struct {
	Name     string            `json:"name" minLength:"1" maxLength:"64" doc:"Name, unique in the project" example:"release"`
	Issuer   string            `json:"issuer" minLength:"1" maxLength:"1024" doc:"Issuer of the ID tokens: an https URL" example:"https://token.actions.githubusercontent.com"`
	Audience string            `json:"audience" minLength:"1" maxLength:"256" doc:"Audience the ID tokens are for" example:"registry.example.com"`
	Claims   map[string]string `json:"claims" minProperties:"1" maxProperties:"20" doc:"Claims that must all match; * stands for any run of characters" example:"{\"repository\":\"acme/app\",\"ref\":\"refs/heads/main\"}"`
	Role     string            `json:"role" enum:"reader,writer,maintainer,owner" doc:"What the jobs may do; not above your own role" example:"writer"`
	Prefixes []string          `json:"prefixes,omitempty" nullable:"false" maxItems:"100" doc:"Repositories at and below which it holds" example:"[\"acme/app\"]"`
}

// User is a person.
type User struct {
	Name     string    `json:"name" doc:"Name, unique on the server" example:"alice"`
	Admin    bool      `json:"admin" doc:"May do everything" example:"false"`
	Locked   bool      `json:"locked" doc:"May do nothing" example:"false"`
	Password bool      `json:"password" doc:"Has a password" example:"true"`
	Issuer   string    `json:"issuer,omitempty" doc:"Identity provider that the user logs in with" example:"https://login.example.com"`
	Plan     string    `json:"plan,omitempty" doc:"Plan; absent: the default plan" example:"team"`
	Created  time.Time `json:"created" doc:"When the user was made"`
}

// NewUser is asked for.
type NewUser struct {
	Name     string `json:"name" minLength:"1" maxLength:"64" doc:"Lower-case letters and digits, with single dots, underscores or dashes between them" example:"alice"`
	Password string `json:"password,omitempty" maxLength:"1024" writeOnly:"true" doc:"8 to 1024 bytes; absent: the user has none, and uses keys" example:"correct horse battery staple"`
	Admin    bool   `json:"admin,omitempty" doc:"May do everything. The first user always may" example:"false"`
	Plan     string `json:"plan,omitempty" maxLength:"64" doc:"Plan" example:"team"`
}

// UserChange is what changes; what is absent stays.
type UserChange struct {
	Password *string `json:"password,omitempty" maxLength:"1024" writeOnly:"true" doc:"8 to 1024 bytes; empty: none any more. Ends the user's sessions"`
	Admin    *bool   `json:"admin,omitempty" doc:"May do everything" example:"true"`
	Locked   *bool   `json:"locked,omitempty" doc:"May do nothing" example:"true"`
	Plan     *string `json:"plan,omitempty" maxLength:"64" doc:"Another plan; empty: the default plan" example:"team"`
}

// Me is who the request is by.
type Me struct {
	Kind   string `json:"kind" enum:"user,robot,workload,local" doc:"What you are: a user, a project's key, a job, or whoever reaches a server without log-in" example:"user"`
	Name   string `json:"name" doc:"Your name" example:"alice"`
	Admin  bool   `json:"admin" doc:"You may do everything" example:"false"`
	Key    string `json:"key,omitempty" doc:"Id of the key you used" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Server string `json:"server" doc:"Version of the server" example:"1.0.0"`
}

// PasswordChange is asked for.
type PasswordChange struct {
	Old string `json:"old" maxLength:"1024" writeOnly:"true" doc:"The password you have" example:"correct horse battery staple"`
	New string `json:"new" minLength:"1" maxLength:"1024" writeOnly:"true" doc:"The password you want: 8 to 1024 bytes" example:"incorrect zebra charger paperclip"`
}

// Group is a number of users that roles are given to together.
type Group struct {
	Name    string    `json:"name" doc:"Name, unique on the server" example:"developers"`
	Claim   string    `json:"claim,omitempty" doc:"What the identity provider calls the group: its users become members when they log in" example:"dev-team"`
	Admin   bool      `json:"admin" doc:"Its members may do everything" example:"false"`
	Created time.Time `json:"created" doc:"When it was made"`
}

// NewGroup is asked for.
type NewGroup struct {
	Name  string `json:"name" minLength:"1" maxLength:"64" doc:"Lower-case letters and digits, with single dots, underscores or dashes between them" example:"developers"`
	Claim string `json:"claim,omitempty" maxLength:"256" doc:"What the identity provider calls the group" example:"dev-team"`
	Admin bool   `json:"admin,omitempty" doc:"Its members may do everything" example:"false"`
}

// GroupChange is what changes; what is absent stays.
type GroupChange struct {
	Name  *string `json:"name,omitempty" minLength:"1" maxLength:"64" doc:"Another name" example:"developers"`
	Claim *string `json:"claim,omitempty" maxLength:"256" doc:"What the identity provider calls the group; empty: nothing" example:"dev-team"`
	Admin *bool   `json:"admin,omitempty" doc:"Its members may do everything" example:"false"`
}

// GroupMember is a user in a group.
type GroupMember struct {
	Name    string `json:"name" doc:"Name of the user" example:"alice"`
	ByClaim bool   `json:"byClaim" doc:"The identity provider said so" example:"false"`
}

// Plan bounds what is used.
type Plan struct {
	Name         string    `json:"name" doc:"Name, unique on the server" example:"team"`
	Rates        []Rate    `json:"rates" nullable:"false" doc:"What may be used within any period of time"`
	MaxBlob      int64     `json:"maxBlob" doc:"Bytes of one blob; 0: no bound" example:"10737418240"`
	MaxManifest  int64     `json:"maxManifest" doc:"Bytes of one manifest; 0: no bound of its own" example:"4194304"`
	Storage      int64     `json:"storage" doc:"Bytes of a project; 0: no bound" example:"107374182400"`
	Repositories int64     `json:"repositories" doc:"Repositories of a project; 0: no bound" example:"100"`
	Created      time.Time `json:"created" doc:"When it was made"`
}

// Rate allows an amount within any period of its window.
type Rate struct {
	Per    string `json:"per" enum:"address,identity,key,project,organization" doc:"What it is counted by" example:"identity"`
	Unit   string `json:"unit" enum:"requests,bytes" doc:"What is counted" example:"requests"`
	Window string `json:"window" enum:"minute,hour,day" doc:"Length of the period" example:"minute"`
	Amount int64  `json:"amount" minimum:"1" doc:"How much" example:"600"`
}

// NewPlan is asked for.
type NewPlan struct {
	Name string `json:"name" minLength:"1" maxLength:"64" doc:"Lower-case letters and digits, with single dots, underscores or dashes between them" example:"team"`
	PlanBounds
}

// PlanBounds are what a plan allows.
type PlanBounds struct {
	Rates        []Rate `json:"rates,omitempty" nullable:"false" maxItems:"30" doc:"What may be used within any period of time"`
	MaxBlob      int64  `json:"maxBlob,omitempty" minimum:"0" doc:"Bytes of one blob; 0: no bound" example:"10737418240"`
	MaxManifest  int64  `json:"maxManifest,omitempty" minimum:"0" doc:"Bytes of one manifest; 0: no bound of its own" example:"4194304"`
	Storage      int64  `json:"storage,omitempty" minimum:"0" doc:"Bytes of a project; 0: no bound" example:"107374182400"`
	Repositories int64  `json:"repositories,omitempty" minimum:"0" doc:"Repositories of a project; 0: no bound" example:"100"`
}

// PlanChange is what changes; what is absent stays.
type PlanChange struct {
	Name         *string `json:"name,omitempty" minLength:"1" maxLength:"64" doc:"Another name; plan default keeps its" example:"team"`
	Rates        *[]Rate `json:"rates,omitempty" nullable:"false" maxItems:"30" doc:"What may be used within any period of time, in place of all rates before"`
	MaxBlob      *int64  `json:"maxBlob,omitempty" minimum:"0" doc:"Bytes of one blob; 0: no bound" example:"10737418240"`
	MaxManifest  *int64  `json:"maxManifest,omitempty" minimum:"0" doc:"Bytes of one manifest; 0: no bound of its own" example:"4194304"`
	Storage      *int64  `json:"storage,omitempty" minimum:"0" doc:"Bytes of a project; 0: no bound" example:"107374182400"`
	Repositories *int64  `json:"repositories,omitempty" minimum:"0" doc:"Repositories of a project; 0: no bound" example:"100"`
}

// RefreshToken is a long-lived token of a client.
type RefreshToken struct {
	ID       string     `json:"id" doc:"Its id; not the token" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	User     string     `json:"user,omitempty" doc:"User it belongs to" example:"alice"`
	Key      string     `json:"key,omitempty" doc:"Id of the key it was got with" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Service  string     `json:"service" doc:"Service it is for" example:"registry.example.com"`
	Client   string     `json:"client,omitempty" doc:"What the client called itself" example:"docker"`
	Address  string     `json:"address,omitempty" doc:"Address of the client" example:"192.0.2.7"`
	Created  time.Time  `json:"created" doc:"When it was given"`
	Expires  time.Time  `json:"expires" doc:"When it ends"`
	LastUsed *time.Time `json:"lastUsed,omitempty" doc:"When it was last used, within the hour"`
}

// SigningKey signs tokens.
type SigningKey struct {
	ID        string     `json:"id" doc:"The kid of tokens it signs" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Algorithm string     `json:"algorithm" doc:"What it signs with" example:"ES256"`
	Created   time.Time  `json:"created" doc:"When it was made"`
	Retired   *time.Time `json:"retired,omitempty" doc:"Since when it signs no more; it still verifies"`
}

// Rotation asks for a new signing key.
type Rotation struct {
	Revoke bool `json:"revoke,omitempty" doc:"Tokens that the old keys signed are worth nothing at once: for when one leaked" example:"false"`
}

// Event is a line of the audit trail.
type Event struct {
	ID         string    `json:"id" doc:"Its id; ids sort by time" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Time       time.Time `json:"time" doc:"When it happened"`
	Request    string    `json:"request,omitempty" doc:"Id of the request" example:"4f0c2b7d9a1e"`
	Identity   string    `json:"identity,omitempty" doc:"Who did it: kind:name; absent: nobody who was logged in" example:"user:alice"`
	Key        string    `json:"key,omitempty" doc:"Id of the key that was used" example:"0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10"`
	Address    string    `json:"address,omitempty" doc:"Address of the client" example:"192.0.2.7"`
	Agent      string    `json:"agent,omitempty" doc:"What the client called itself" example:"docker/28.0.1"`
	Action     string    `json:"action" doc:"What was done" example:"manifest.write"`
	Project    string    `json:"project,omitempty" doc:"Project it was done in" example:"acme"`
	Repository string    `json:"repository,omitempty" doc:"Repository it was done to" example:"acme/app"`
	Reference  string    `json:"reference,omitempty" doc:"Tag, or name of what was managed" example:"latest"`
	Digest     string    `json:"digest,omitempty" doc:"Digest of the content" example:"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
	Bytes      int64     `json:"bytes,omitempty" doc:"Bytes that moved" example:"1024"`
	Status     int       `json:"status" doc:"Status of the answer, as of HTTP" example:"201"`
	Reason     string    `json:"reason,omitempty" doc:"Why it was refused"`
}
