-- One SQL text for SQLite and PostgreSQL. Ids are text made by Berth, times are
-- milliseconds since 1970. Foreign keys restrict and never cascade: together
-- they close the races between pushing and deleting from both sides.

-- +goose Up
CREATE TABLE repositories (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- A blob's bytes lie in the blob store under an opaque key. A damaged blob's
-- bytes are known to be lost: it is not served, and the next push replaces it.
CREATE TABLE blobs (
    digest     TEXT    NOT NULL PRIMARY KEY,
    size       BIGINT  NOT NULL,
    key        TEXT    NOT NULL UNIQUE,
    damaged    BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT  NOT NULL
);

-- A repository serves a blob only through its link. A link with a review_at is
-- to be looked at then, for nothing may have come to hold it.
CREATE TABLE links (
    repository_id TEXT   NOT NULL REFERENCES repositories (id),
    digest        TEXT   NOT NULL REFERENCES blobs (digest),
    seen_at       BIGINT NOT NULL,
    review_at     BIGINT,
    PRIMARY KEY (repository_id, digest)
);
CREATE INDEX links_digest ON links (digest);
CREATE INDEX links_review ON links (review_at) WHERE review_at IS NOT NULL;

-- The content stands last: reading the columns before it does not touch it.
CREATE TABLE manifests (
    repository_id TEXT   NOT NULL REFERENCES repositories (id),
    digest        TEXT   NOT NULL,
    media_type    TEXT   NOT NULL,
    size          BIGINT NOT NULL,
    subject       TEXT,
    artifact_type TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    annotations   TEXT   NOT NULL,
    content       BYTEA  NOT NULL,
    PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifests_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE tags (
    repository_id TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    digest        TEXT   NOT NULL,
    updated_at    BIGINT NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX tags_digest ON tags (repository_id, digest);

-- What a manifest holds: blobs (its config and layers) and manifests (the
-- children of an index). The key's order serves the look-up from the held side.
CREATE TABLE blob_references (
    repository_id TEXT NOT NULL,
    digest        TEXT NOT NULL,
    manifest      TEXT NOT NULL,
    PRIMARY KEY (repository_id, digest, manifest),
    FOREIGN KEY (repository_id, digest) REFERENCES links (repository_id, digest),
    FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX blob_references_manifest ON blob_references (repository_id, manifest);

CREATE TABLE manifest_references (
    repository_id TEXT NOT NULL,
    digest        TEXT NOT NULL,
    manifest      TEXT NOT NULL,
    PRIMARY KEY (repository_id, digest, manifest),
    FOREIGN KEY (repository_id, digest) REFERENCES manifests (repository_id, digest),
    FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX manifest_references_manifest ON manifest_references (repository_id, manifest);

-- What a manifest names and the repository does not have (yet): foreign layers
-- and the gaps of sparse manifests. Content that arrives turns such a row into
-- one of the two kinds above.
CREATE TABLE pending_references (
    repository_id TEXT NOT NULL,
    digest        TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('blob', 'manifest')),
    manifest      TEXT NOT NULL,
    PRIMARY KEY (repository_id, digest, kind, manifest),
    FOREIGN KEY (repository_id, manifest) REFERENCES manifests (repository_id, digest)
);
CREATE INDEX pending_references_manifest ON pending_references (repository_id, manifest);

-- Upload sessions: progress of the blob store, progress of the hash, and a
-- lease of one writer. Each lease raises version, which fences the one before.
-- There are as many rows as sessions are open, so expiry needs no index.
CREATE TABLE uploads (
    id          TEXT   NOT NULL PRIMARY KEY,
    repository  TEXT   NOT NULL,
    algorithm   TEXT   NOT NULL,
    size        BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    lease_owner TEXT   NOT NULL,
    lease_until BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    hash        BYTEA  NOT NULL,
    state       BYTEA
);

-- Objects of the blob store that no row names any more. Their bytes go when
-- delete_at has passed. A size says that the object was never sealed.
CREATE TABLE dead_objects (
    key       TEXT   NOT NULL PRIMARY KEY,
    delete_at BIGINT NOT NULL,
    size      BIGINT,
    state     BYTEA
);
CREATE INDEX dead_objects_at ON dead_objects (delete_at);

-- +goose Down
DROP TABLE dead_objects;
DROP TABLE uploads;
DROP TABLE pending_references;
DROP TABLE manifest_references;
DROP TABLE blob_references;
DROP TABLE tags;
DROP TABLE manifests;
DROP TABLE links;
DROP TABLE blobs;
DROP TABLE repositories;
