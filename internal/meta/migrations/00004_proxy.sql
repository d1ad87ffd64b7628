-- What a pull-through cache knows of the registries that it stands before. What
-- it keeps of their content lies in repositories like any other.

-- +goose Up
-- Upstreams that administrators added while the server ran. The name is that of
-- the project whose repositories are the cache. secret is sealed with the key of
-- the configuration.
CREATE TABLE proxies (
    name       TEXT   NOT NULL PRIMARY KEY,
    spec       TEXT   NOT NULL,
    secret     BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- An upstream that asked to be left alone: nobody asks it before paused_until.
CREATE TABLE proxy_pauses (
    proxy        TEXT   NOT NULL PRIMARY KEY,
    paused_until BIGINT NOT NULL
);

-- What an upstream last said of a reference. An empty digest: it has no such
-- manifest. gone_since is when a tag that it had before was first missing, 0 for
-- one that is there.
CREATE TABLE proxy_tags (
    repository TEXT   NOT NULL,
    reference  TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    checked_at BIGINT NOT NULL,
    gone_since BIGINT NOT NULL,
    PRIMARY KEY (repository, reference)
);
CREATE INDEX proxy_tags_absent ON proxy_tags (checked_at) WHERE digest = '';

-- Manifests that came from an upstream; what else lies in its project was pushed
-- here. A row comes before its manifest and may outlive it: fetched_at says when
-- it was last noted that the manifest is about to come. prefetched says that what
-- was to come with it has come.
CREATE TABLE proxy_manifests (
    repository TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    proxy      TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    fetched_at BIGINT  NOT NULL,
    used_at    BIGINT  NOT NULL,
    prefetched BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX proxy_manifests_used ON proxy_manifests (proxy, used_at, repository, digest);

-- The referrers that an upstream lists of a subject: all of them, as JSON.
CREATE TABLE proxy_referrers (
    repository TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    checked_at BIGINT NOT NULL,
    list       BYTEA  NOT NULL,
    PRIMARY KEY (repository, subject)
);
CREATE INDEX proxy_referrers_checked ON proxy_referrers (checked_at);

-- Who of several processes asks an upstream for something. Leases keep them from
-- asking twice; they protect no data. version is drawn by lot, so that a crash
-- that undoes a lease does not give its number to another.
CREATE TABLE proxy_leases (
    key         TEXT   NOT NULL PRIMARY KEY,
    version     BIGINT NOT NULL,
    lease_owner TEXT   NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE INDEX proxy_leases_until ON proxy_leases (lease_until);

-- Which tags point at a manifest, page by page.
DROP INDEX tags_digest;
CREATE INDEX tags_digest ON tags (repository_id, digest, name);

-- +goose Down
DROP INDEX tags_digest;
CREATE INDEX tags_digest ON tags (repository_id, digest);
DROP TABLE proxy_leases;
DROP TABLE proxy_referrers;
DROP TABLE proxy_manifests;
DROP TABLE proxy_tags;
DROP TABLE proxy_pauses;
DROP TABLE proxies;
