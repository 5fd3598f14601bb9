-- Times are milliseconds since the Unix epoch. Columns named *_sealed hold what store/seal.rs writes.

CREATE TABLE connections (
  id                            TEXT    NOT NULL PRIMARY KEY,
  subject                       TEXT    NOT NULL,
  provider                      TEXT    NOT NULL,
  label                         TEXT    NOT NULL,
  state                         TEXT    NOT NULL CHECK (state IN ('active', 'needs_reauth', 'disconnected')),
  state_reason                  TEXT,
  captured                      TEXT    NOT NULL, -- JSON object of texts
  scopes                        TEXT,             -- JSON array of texts
  generation                    INTEGER NOT NULL,
  access_token_sealed           BLOB    NOT NULL,
  access_expires_at             INTEGER,
  refresh_token_sealed          BLOB,
  previous_refresh_token_sealed BLOB,
  refresh_expires_at            INTEGER,
  refresh_due_at                INTEGER,
  -- A refresh that was begun and not finished.
  intent_attempt                TEXT,
  intent_started_at             INTEGER,
  intent_refresh_token_digest   BLOB,
  -- How the last refreshes failed.
  refresh_failures              INTEGER NOT NULL DEFAULT 0,
  refresh_error                 TEXT,
  refresh_needs_operator        INTEGER NOT NULL DEFAULT 0,
  in_doubt_since                INTEGER,
  connected_at                  INTEGER NOT NULL,
  refreshed_at                  INTEGER,
  deleted_at                    INTEGER
) STRICT;

-- One connection per subject, provider and label; what was superseded or disconnected stays as history.
CREATE UNIQUE INDEX connections_key ON connections (subject, provider, label) WHERE deleted_at IS NULL;
CREATE INDEX connections_due ON connections (refresh_due_at) WHERE deleted_at IS NULL AND state = 'active';

CREATE TABLE connect_links (
  digest     BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the token in the link
  subject    TEXT    NOT NULL,
  provider   TEXT    NOT NULL,
  label      TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at    INTEGER
) STRICT;

CREATE TABLE flows (
  id              BLOB    NOT NULL PRIMARY KEY,
  subject         TEXT    NOT NULL,
  provider        TEXT    NOT NULL,
  label           TEXT    NOT NULL,
  browser_binding BLOB    NOT NULL, -- SHA-256 of the cookie
  verifier_sealed BLOB,
  expires_at      INTEGER NOT NULL,
  used_at         INTEGER
) STRICT;

CREATE TABLE handles (
  id         TEXT    NOT NULL PRIMARY KEY,
  digest     BLOB    NOT NULL UNIQUE, -- SHA-256 of the handle
  subject    TEXT    NOT NULL,
  providers  TEXT,                    -- JSON array of texts; NULL for all
  label      TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT;

CREATE TABLE probe (value INTEGER NOT NULL) STRICT;
