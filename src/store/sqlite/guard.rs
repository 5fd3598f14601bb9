//! What tells a store from its copies and from its past, in SQLite.

use rusqlite::Connection;

use super::connections::generation;
use crate::store::record::GuardRecord;

pub fn read(db: &Connection) -> rusqlite::Result<GuardRecord> {
    db.query_row("SELECT * FROM guard", [], |row| {
        Ok(GuardRecord {
            store_id: row.get("store_id")?,
            refreshes: u64::try_from(row.get::<_, i64>("refreshes")?).unwrap_or(0),
            guarded: row.get("guarded")?,
        })
    })
}

/// Counts a refresh; how many there were.
pub fn count_refresh(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "UPDATE guard SET refreshes = refreshes + 1 RETURNING refreshes";
    let count: i64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub fn set_guarded(db: &Connection, refreshes: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE guard SET guarded = 1, refreshes = max(refreshes, ?1)";
    db.execute(sql, [generation(refreshes)]).map(|_| ())
}
