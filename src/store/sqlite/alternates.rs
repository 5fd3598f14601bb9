//! Refresh tokens that lost to others, in SQLite.

use rusqlite::{Connection, params};

use super::connections::{generation, readable, time};
use crate::base::clock::Timestamp;
use crate::store::record::Alternate;
use crate::store::seal::Sealed;

/// More have never been useful: each is a refresh that another process overtook.
const KEPT: i64 = 8;

pub fn keep(db: &mut Connection, id: &str, alternate: &Alternate) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    transaction.execute(
        "INSERT INTO alternates (connection_id, generation, refresh_token_sealed, obtained_at) VALUES (?1, ?2, ?3, ?4)",
        params![
            id,
            generation(alternate.generation),
            alternate.refresh_token.as_bytes(),
            alternate.obtained_at.as_millis()
        ],
    )?;
    transaction.execute(
        "DELETE FROM alternates WHERE connection_id = ?1 AND rowid NOT IN (
           SELECT rowid FROM alternates WHERE connection_id = ?1 ORDER BY obtained_at DESC, rowid DESC LIMIT ?2)",
        params![id, KEPT],
    )?;
    transaction.commit()
}

pub fn of(db: &Connection, id: &str) -> rusqlite::Result<Vec<Alternate>> {
    db.prepare_cached("SELECT * FROM alternates WHERE connection_id = ?1 ORDER BY obtained_at DESC, rowid DESC")?
        .query_map([id], |row| {
            Ok(Alternate {
                generation: u64::try_from(row.get::<_, i64>("generation")?).unwrap_or(0),
                refresh_token: Sealed::from_bytes(row.get("refresh_token_sealed")?),
                obtained_at: time(row, "obtained_at")?.unwrap_or(Timestamp::from_millis(0)),
            })
        })
        .and_then(readable)
}

pub fn forget(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM alternates WHERE connection_id = ?1")?.execute([id]).map(|_| ())
}
