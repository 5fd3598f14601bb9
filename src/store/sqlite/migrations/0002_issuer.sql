-- Flows may begin before it is known whose they are, and lead on to somewhere. They live for ten minutes, so those under
-- way are given up.
DROP TABLE flows;
CREATE TABLE flows (
  id              BLOB    NOT NULL PRIMARY KEY,
  subject         TEXT,             -- NULL: the flow is to find out who the user is
  provider        TEXT    NOT NULL,
  label           TEXT    NOT NULL,
  browser_binding BLOB    NOT NULL, -- SHA-256 of the cookie
  verifier_sealed BLOB,
  continuation    TEXT    NOT NULL, -- JSON
  expires_at      INTEGER NOT NULL,
  used_at         INTEGER
) STRICT;

-- Clients that registered themselves.
CREATE TABLE clients (
  id            TEXT    NOT NULL PRIMARY KEY,
  registration  TEXT    NOT NULL, -- JSON; of a secret only its SHA-256
  registered_at INTEGER NOT NULL,
  used_at       INTEGER           -- when a user last approved it
) STRICT;
CREATE INDEX clients_unused ON clients (registered_at) WHERE used_at IS NULL;

-- The last good copies of Client ID Metadata Documents.
CREATE TABLE client_documents (
  url         TEXT    NOT NULL PRIMARY KEY,
  body        TEXT    NOT NULL,
  fetched_at  INTEGER NOT NULL,
  fresh_until INTEGER NOT NULL
) STRICT;

-- Browsers on their way from approval to code.
CREATE TABLE visits (
  id          TEXT    NOT NULL PRIMARY KEY,
  visit       TEXT    NOT NULL, -- JSON
  expires_at  INTEGER NOT NULL,
  finished_at INTEGER
) STRICT;

-- Browsers whose user is known.
CREATE TABLE browser_sessions (
  digest     BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the cookie
  subject    TEXT    NOT NULL,
  account    TEXT,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

-- What users need not be asked again.
CREATE TABLE approvals (
  subject   TEXT NOT NULL,
  client_id TEXT NOT NULL,
  server    TEXT NOT NULL,
  approval  TEXT NOT NULL, -- JSON
  PRIMARY KEY (subject, client_id, server)
) STRICT;

CREATE TABLE codes (
  digest     BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the code
  client_id  TEXT    NOT NULL,
  pending    TEXT    NOT NULL, -- JSON
  expires_at INTEGER NOT NULL,
  used_at    INTEGER,
  grant_id   TEXT              -- what it was redeemed for
) STRICT;

CREATE TABLE grants (
  id            TEXT    NOT NULL PRIMARY KEY,
  subject       TEXT    NOT NULL,
  grant_json    TEXT    NOT NULL, -- JSON, without the columns beside it
  handle_digest BLOB    NOT NULL UNIQUE,
  handle_sealed BLOB    NOT NULL,
  created_at    INTEGER NOT NULL,
  expires_at    INTEGER NOT NULL,
  ended_at      INTEGER,
  end_reason    TEXT
) STRICT;
CREATE INDEX grants_subject ON grants (subject);

CREATE TABLE access_tokens (
  digest     BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the token
  grant_id   TEXT    NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  scopes     TEXT    NOT NULL, -- as in a parameter
  issued_at  INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX access_tokens_grant ON access_tokens (grant_id);

CREATE TABLE refresh_tokens (
  digest           BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the token
  grant_id         TEXT    NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
  issued_at        INTEGER NOT NULL,
  expires_at       INTEGER NOT NULL,
  used_at          INTEGER, -- when it was replaced
  successor_digest BLOB,
  reply_sealed     BLOB     -- what the replacing request was answered, for its repetition
) STRICT;
CREATE INDEX refresh_tokens_grant ON refresh_tokens (grant_id);

-- Whose the sessions at MCP servers are.
CREATE TABLE mcp_sessions (
  server  TEXT    NOT NULL,
  digest  BLOB    NOT NULL, -- SHA-256 of Mcp-Session-Id
  subject TEXT    NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (server, digest)
) STRICT;

-- Assertions that must not be used twice.
CREATE TABLE used_assertions (
  digest     BLOB    NOT NULL PRIMARY KEY,
  expires_at INTEGER NOT NULL
) STRICT;
