-- Several access tokens of one grant are rows of their own, each with its own freshness: '' is the first of them.
ALTER TABLE connections ADD COLUMN token TEXT NOT NULL DEFAULT '';
ALTER TABLE revocations ADD COLUMN token TEXT NOT NULL DEFAULT '';
DROP INDEX connections_key;
CREATE UNIQUE INDEX connections_key ON connections (subject, provider, label, token) WHERE deleted_at IS NULL;

-- Since when the refresh token has its present value. NULL for what was stored before anybody noted it.
ALTER TABLE connections ADD COLUMN refresh_token_since INTEGER;
-- When the grant ends however often it is refreshed, and whether that was announced.
ALTER TABLE connections ADD COLUMN grant_expires_at INTEGER;
ALTER TABLE connections ADD COLUMN grant_end_announced INTEGER NOT NULL DEFAULT 0;

-- Refresh tokens that were received for a connection and could not become its current one: another process was first.
-- Kept until a later refresh shows that they are not needed.
CREATE TABLE alternates (
  connection_id        TEXT    NOT NULL,
  generation           INTEGER NOT NULL, -- which the token is sealed for
  refresh_token_sealed BLOB    NOT NULL,
  obtained_at          INTEGER NOT NULL
) STRICT;
CREATE INDEX alternates_connection ON alternates (connection_id, obtained_at);

-- Tells a store from its copies and from its past (store/sentinel.rs).
CREATE TABLE guard (
  store_id  TEXT    NOT NULL,
  refreshes INTEGER NOT NULL, -- how many were ever begun
  instance  TEXT,             -- the process that its sentinel knows; NULL if there never was a sentinel
  successor TEXT              -- the one that is about to take its place there
) STRICT;
INSERT INTO guard VALUES (lower(hex(randomblob(16))), 0, NULL, NULL);
