-- Where a browser goes on that has opened a link, and which APIs are needed. NULL for nowhere, and for all that are enabled.
ALTER TABLE connect_links ADD COLUMN continuation TEXT; -- JSON
ALTER TABLE connect_links ADD COLUMN apis TEXT;         -- JSON array of texts
