-- Who may do what, what they use, and what they did.

-- +goose Up

-- Raised by every change that a decision about access depends on: what is
-- remembered of the tables below holds while this number stands. It is guarded
-- where a credential was deleted: one that once was there counts for ever.
CREATE TABLE access_generation (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value   BIGINT  NOT NULL,
    guarded BOOLEAN NOT NULL DEFAULT FALSE
);
INSERT INTO access_generation (id, value) VALUES (1, 1);

-- A quota of 0 is none. Rates are a JSON list.
CREATE TABLE plans (
    id           TEXT   NOT NULL PRIMARY KEY,
    name         TEXT   NOT NULL UNIQUE,
    rates        TEXT   NOT NULL,
    max_blob     BIGINT NOT NULL,
    max_manifest BIGINT NOT NULL,
    storage      BIGINT NOT NULL,
    repositories BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);
INSERT INTO plans (id, name, rates, max_blob, max_manifest, storage, repositories, created_at)
VALUES ('default', 'default', '[]', 0, 0, 0, 0, 0);

CREATE TABLE organizations (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    plan_id    TEXT   REFERENCES plans (id),
    created_at BIGINT NOT NULL
);
INSERT INTO organizations (id, name, created_at) VALUES ('default', 'default', 0);

-- A project is the first segment of repository names. One that nobody claimed
-- came into being with a push. An empty newcomers is the server's setting.
-- One with a deleted_at is hidden and can be had back until it is purged. One
-- with a named_at was called otherwise before.
CREATE TABLE projects (
    id              TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id),
    visibility      TEXT    NOT NULL CHECK (visibility IN ('private', 'internal', 'public')),
    newcomers       TEXT    NOT NULL CHECK (newcomers IN ('', 'closed', 'open', 'claim')),
    claimed         BOOLEAN NOT NULL,
    plan_id         TEXT    REFERENCES plans (id),
    created_at      BIGINT  NOT NULL,
    named_at        BIGINT,
    deleted_at      BIGINT
);
CREATE INDEX projects_organization ON projects (organization_id, name);
CREATE INDEX projects_visibility ON projects (visibility, name);
CREATE INDEX projects_deleted ON projects (deleted_at) WHERE deleted_at IS NOT NULL;

-- What a project uses, kept by the transactions that change it: bytes of its
-- manifests and of its blobs, each of which counts once however many of the
-- project's repositories link it.
CREATE TABLE project_usage (
    project_id   TEXT   NOT NULL PRIMARY KEY REFERENCES projects (id),
    storage      BIGINT NOT NULL,
    repositories BIGINT NOT NULL
);
CREATE TABLE project_blobs (
    project_id TEXT   NOT NULL REFERENCES projects (id),
    digest     TEXT   NOT NULL REFERENCES blobs (digest),
    links      BIGINT NOT NULL,
    PRIMARY KEY (project_id, digest)
);
CREATE INDEX project_blobs_digest ON project_blobs (digest);

-- Never null, but a column that is added to SQLite and has a reference must
-- allow it.
ALTER TABLE repositories ADD COLUMN project_id TEXT REFERENCES projects (id);
CREATE INDEX repositories_project ON repositories (project_id);

-- Projects of the repositories that there are. ltrim takes away what comes
-- before the first slash.
INSERT INTO projects (id, name, organization_id, visibility, newcomers, claimed, created_at)
SELECT DISTINCT 'initial-' || segment, segment, 'default', 'private', '', FALSE, 0 FROM (
    SELECT substr(name, 1, length(name) - length(ltrim(name, replace(name, '/', '')))) AS segment FROM repositories
) AS segments;
UPDATE repositories
SET project_id = 'initial-' || substr(name, 1, length(name) - length(ltrim(name, replace(name, '/', ''))));
INSERT INTO project_blobs (project_id, digest, links)
SELECT r.project_id, l.digest, count(*) FROM links l JOIN repositories r ON r.id = l.repository_id
GROUP BY r.project_id, l.digest;
INSERT INTO project_usage (project_id, storage, repositories)
SELECT p.id,
       (SELECT COALESCE(sum(b.size), 0) FROM project_blobs pb JOIN blobs b ON b.digest = pb.digest WHERE pb.project_id = p.id)
       + (SELECT COALESCE(sum(m.size), 0) FROM manifests m JOIN repositories r ON r.id = m.repository_id WHERE r.project_id = p.id),
       (SELECT count(*) FROM repositories r WHERE r.project_id = p.id)
FROM projects p;

-- An upload session belongs to who began it (kind:id; '' anonymous).
ALTER TABLE uploads ADD COLUMN owner TEXT NOT NULL DEFAULT '';

-- Passwords are argon2id in PHC form, '' for none. Those who come from an
-- identity provider have its issuer and subject.
CREATE TABLE users (
    id          TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    password    TEXT    NOT NULL,
    issuer      TEXT,
    subject     TEXT,
    admin       BOOLEAN NOT NULL,
    locked      BOOLEAN NOT NULL,
    plan_id     TEXT    REFERENCES plans (id),
    valid_after BIGINT  NOT NULL,
    created_at  BIGINT  NOT NULL,
    UNIQUE (issuer, subject)
);
CREATE INDEX users_admin ON users (id) WHERE admin;

-- A claim is what an identity provider calls the group.
CREATE TABLE user_groups (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    claim      TEXT    UNIQUE,
    admin      BOOLEAN NOT NULL,
    created_at BIGINT  NOT NULL
);

-- by_claim: the provider said so at the last log-in, and may take it back.
CREATE TABLE group_members (
    group_id TEXT    NOT NULL REFERENCES user_groups (id),
    user_id  TEXT    NOT NULL REFERENCES users (id),
    by_claim BOOLEAN NOT NULL,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_user ON group_members (user_id);

-- A role of a user or group in an organization or project. Ids are unique
-- over all tables.
CREATE TABLE grants (
    id              TEXT   NOT NULL PRIMARY KEY,
    user_id         TEXT   REFERENCES users (id),
    group_id        TEXT   REFERENCES user_groups (id),
    organization_id TEXT   REFERENCES organizations (id),
    project_id      TEXT   REFERENCES projects (id),
    prefix          TEXT   NOT NULL,
    role            TEXT   NOT NULL CHECK (role IN ('reader', 'writer', 'maintainer', 'owner')),
    created_at      BIGINT NOT NULL,
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    CHECK ((organization_id IS NULL) <> (project_id IS NULL))
);
CREATE UNIQUE INDEX grants_one ON grants (COALESCE(project_id, organization_id), prefix, COALESCE(user_id, group_id));
CREATE INDEX grants_place ON grants (COALESCE(project_id, organization_id), id);
CREATE INDEX grants_user ON grants (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX grants_group ON grants (group_id) WHERE group_id IS NOT NULL;

-- A key is known by the SHA-256 of its secret, in hex. Lists are JSON.
CREATE TABLE keys (
    id         TEXT   NOT NULL PRIMARY KEY,
    hash       TEXT   NOT NULL UNIQUE,
    user_id    TEXT   REFERENCES users (id),
    project_id TEXT   REFERENCES projects (id),
    name       TEXT   NOT NULL,
    role       TEXT   NOT NULL CHECK (role IN ('none', 'reader', 'writer', 'maintainer', 'owner')),
    prefixes   TEXT   NOT NULL,
    addresses  TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used  BIGINT,
    CHECK ((user_id IS NULL) <> (project_id IS NULL))
);
CREATE UNIQUE INDEX keys_name ON keys (COALESCE(user_id, project_id), name) WHERE revoked_at IS NULL;
CREATE INDEX keys_owner ON keys (COALESCE(user_id, project_id), id);

-- Claims are a JSON object of patterns.
CREATE TABLE trust_rules (
    id         TEXT   NOT NULL PRIMARY KEY,
    project_id TEXT   NOT NULL REFERENCES projects (id),
    name       TEXT   NOT NULL,
    issuer     TEXT   NOT NULL,
    audience   TEXT   NOT NULL,
    claims     TEXT   NOT NULL,
    role       TEXT   NOT NULL CHECK (role IN ('reader', 'writer', 'maintainer', 'owner')),
    prefixes   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    UNIQUE (project_id, name)
);
CREATE INDEX trust_rules_issuer ON trust_rules (issuer, audience);

-- Private keys (PKCS #8) that sign tokens. The newest signs; a retired one
-- still verifies until every token it signed has expired.
CREATE TABLE signing_keys (
    id         TEXT   NOT NULL PRIMARY KEY,
    algorithm  TEXT   NOT NULL,
    private    BYTEA  NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);

-- Long-lived tokens of clients, known by the SHA-256 of their secret.
CREATE TABLE refresh_tokens (
    id         TEXT   NOT NULL PRIMARY KEY,
    hash       TEXT   NOT NULL UNIQUE,
    user_id    TEXT   REFERENCES users (id),
    key_id     TEXT   REFERENCES keys (id),
    service    TEXT   NOT NULL,
    client     TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used  BIGINT,
    CHECK (user_id IS NOT NULL OR key_id IS NOT NULL)
);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id, id);
CREATE INDEX refresh_tokens_key ON refresh_tokens (key_id, id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

-- Log-ins of people that are under way at an identity provider, and those that
-- came back and wait to be taken by the client that began them.
CREATE TABLE logins (
    id         TEXT   NOT NULL PRIMARY KEY,
    document   TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX logins_expiry ON logins (expires_at);

-- Wrong secrets of late. One that is tried again and again is one row.
CREATE TABLE login_failures (
    bucket TEXT   NOT NULL,
    secret TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    PRIMARY KEY (bucket, secret)
);
CREATE INDEX login_failures_at ON login_failures (at);

-- What was used of each rate of late; slots are counts of parts of the window.
-- version fences two servers that change one row.
CREATE TABLE rate_usage (
    bucket     TEXT   NOT NULL PRIMARY KEY,
    slots      BYTEA  NOT NULL,
    version    BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX rate_usage_at ON rate_usage (updated_at);

-- Requests to create something that were answered. The answer is encrypted
-- with what only the client has.
CREATE TABLE idempotency (
    id         TEXT   NOT NULL PRIMARY KEY,
    request    TEXT   NOT NULL,
    answer     BYTEA  NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idempotency_at ON idempotency (created_at);

-- Append-only; only retention deletes, the oldest first. Ids sort by time.
CREATE TABLE audit (
    id         TEXT    NOT NULL PRIMARY KEY,
    at         BIGINT  NOT NULL,
    request    TEXT    NOT NULL,
    identity   TEXT    NOT NULL,
    key_id     TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    agent      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    project    TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    reference  TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    bytes      BIGINT  NOT NULL,
    status     INTEGER NOT NULL,
    reason     TEXT    NOT NULL
);
CREATE INDEX audit_project ON audit (project, id);

-- +goose Down
DROP TABLE audit;
DROP TABLE idempotency;
DROP TABLE rate_usage;
DROP TABLE login_failures;
DROP TABLE logins;
DROP TABLE refresh_tokens;
DROP TABLE signing_keys;
DROP TABLE trust_rules;
DROP TABLE keys;
DROP TABLE grants;
DROP TABLE group_members;
DROP TABLE user_groups;
DROP TABLE users;
ALTER TABLE uploads DROP COLUMN owner;
DROP INDEX repositories_project;
DROP TABLE project_blobs;
DROP TABLE project_usage;
ALTER TABLE repositories DROP COLUMN project_id;
DROP TABLE projects;
DROP TABLE organizations;
DROP TABLE plans;
DROP TABLE access_generation;
