-- Where a browser goes on that has opened a link, and which APIs are needed. NULL for nowhere, and for all that are enabled.
ALTER TABLE connect_links ADD COLUMN continuation TEXT; -- JSON
ALTER TABLE connect_links ADD COLUMN apis TEXT;         -- JSON array of texts
-- With which API key the link was made: it is good for as long as the key is. NULL for links that no key made.
ALTER TABLE connect_links ADD COLUMN api_key BLOB;      -- SHA-256 of the key
-- What a link allows the browser that has used it up. NULL for flows that no link has begun.
ALTER TABLE flows ADD COLUMN allowance TEXT;            -- JSON
