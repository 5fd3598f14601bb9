-- What was asked for, so that a scope the user has unticked can be told from one that nobody asked for. NULL for what was
-- stored before anybody noted it.
ALTER TABLE connections ADD COLUMN requested_scopes TEXT; -- JSON array of texts
ALTER TABLE flows ADD COLUMN requested_scopes TEXT;       -- JSON array of texts
-- What people call the account at the provider, where it says.
ALTER TABLE connections ADD COLUMN account TEXT;
