-- Grants that are to be given back to their providers. The tokens are sealed for the connection they came from.
CREATE TABLE revocations (
  id                   TEXT    NOT NULL PRIMARY KEY,
  subject              TEXT    NOT NULL,
  provider             TEXT    NOT NULL,
  label                TEXT    NOT NULL,
  connection_id        TEXT    NOT NULL,
  generation           INTEGER NOT NULL,
  access_token_sealed  BLOB    NOT NULL,
  refresh_token_sealed BLOB,
  attempts             INTEGER NOT NULL DEFAULT 0,
  due_at               INTEGER NOT NULL,
  created_at           INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_due ON revocations (due_at);
