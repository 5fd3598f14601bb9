-- While it is not known which of several sites a connection is for: the looked-up values that the one before it had.
ALTER TABLE connections ADD COLUMN earlier_site TEXT; -- JSON object of texts
