//! What is asked after a write that was reported as failed and may be there all the same.

use rusqlite::{Connection, params};

use crate::store::record::RefreshedTokens;
use crate::store::seal::Sealed;

/// Whether these very tokens are stored already. Sealed twice, the same token is never the same bytes.
pub fn holds(db: &Connection, id: &str, tokens: &RefreshedTokens) -> rusqlite::Result<bool> {
    let refresh_token = tokens.refresh_token.as_ref().map(Sealed::as_bytes);
    db.query_row(
        "SELECT count(*) FROM connections
         WHERE id = ?1 AND deleted_at IS NULL AND access_token_sealed = ?2 AND refresh_token_sealed IS ?3",
        params![id, tokens.access_token.as_bytes(), refresh_token],
        |row| row.get::<_, i64>(0),
    )
    .map(|found| found == 1)
}

/// Takes back an intent of which nothing came: the provider was not asked. What was in doubt before stays so.
pub fn forget_intent(db: &Connection, id: &str, attempt: &str) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE connections
         SET intent_attempt = NULL, intent_started_at = NULL, intent_refresh_token_digest = NULL
         WHERE id = ?1 AND intent_attempt = ?2 AND in_doubt_since IS NULL",
        params![id, attempt],
    )
    .map(|_| ())
}
