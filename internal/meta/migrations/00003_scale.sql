-- What several processes on one database need, and collection of manifests.

-- +goose Up
-- Work that is done again and again, by one process at a time. Each lease is a
-- run: it raises version, which fences the one before. finished is the version
-- of the last run that came to an end, whose result, failure and finished_at
-- these are; failures counts those in a row. due_at above started_at says that
-- another run was asked for during the one under way.
CREATE TABLE jobs (
    name        TEXT   NOT NULL PRIMARY KEY,
    version     BIGINT NOT NULL,
    lease_owner TEXT   NOT NULL,
    lease_until BIGINT NOT NULL,
    due_at      BIGINT NOT NULL,
    started_at  BIGINT NOT NULL,
    progress    TEXT   NOT NULL,
    finished    BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    failure     TEXT   NOT NULL,
    result      TEXT   NOT NULL
);

-- Manifests that nothing may hold any more: no tag, no index, no subject. since
-- is when that began, or a client last asked for one by its digest; 0 is not
-- known. Without a review_at it is kept for as long as its repository's policy
-- stays as it is. A row may outlive its manifest: there is no foreign key, so
-- that the release before can delete manifests.
CREATE TABLE manifest_reviews (
    repository_id TEXT   NOT NULL,
    digest        TEXT   NOT NULL,
    since         BIGINT NOT NULL,
    review_at     BIGINT,
    PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifest_reviews_at ON manifest_reviews (review_at) WHERE review_at IS NOT NULL;
INSERT INTO manifest_reviews (repository_id, digest, since, review_at)
    SELECT m.repository_id, m.digest, 0, 0 FROM manifests m WHERE NOT EXISTS
        (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest);

-- What collection remembers from one run to the next.
CREATE TABLE collection (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- What is won by deleting the object.
ALTER TABLE dead_objects ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;

-- Queues can be walked page by page.
DROP INDEX dead_objects_at;
CREATE INDEX dead_objects_at ON dead_objects (delete_at, key);
DROP INDEX links_review;
CREATE INDEX links_review ON links (review_at, repository_id, digest) WHERE review_at IS NOT NULL;
DROP INDEX projects_deleted;
CREATE INDEX projects_deleted ON projects (deleted_at, id) WHERE deleted_at IS NOT NULL;

-- +goose Down
DROP INDEX projects_deleted;
CREATE INDEX projects_deleted ON projects (deleted_at) WHERE deleted_at IS NOT NULL;
DROP INDEX links_review;
CREATE INDEX links_review ON links (review_at) WHERE review_at IS NOT NULL;
DROP INDEX dead_objects_at;
CREATE INDEX dead_objects_at ON dead_objects (delete_at);
ALTER TABLE dead_objects DROP COLUMN bytes;
DROP TABLE collection;
DROP TABLE manifest_reviews;
DROP TABLE jobs;
