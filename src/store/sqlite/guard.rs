//! What tells a store from its copies and from its past, in SQLite.

use rusqlite::{Connection, params};

use super::connections::generation;
use crate::store::record::GuardRecord;

pub fn read(db: &Connection) -> rusqlite::Result<GuardRecord> {
    db.query_row("SELECT * FROM guard", [], |row| {
        Ok(GuardRecord {
            store_id: row.get("store_id")?,
            refreshes: u64::try_from(row.get::<_, i64>("refreshes")?).unwrap_or(0),
            instance: row.get("instance")?,
            successor: row.get("successor")?,
        })
    })
}

/// Counts a refresh; how many there were.
pub fn count_refresh(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "UPDATE guard SET refreshes = refreshes + 1 RETURNING refreshes";
    let count: i64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub fn announce_successor(db: &Connection, instance: &str, refreshes: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE guard SET successor = ?1, refreshes = max(refreshes, ?2)";
    db.execute(sql, params![instance, generation(refreshes)]).map(|_| ())
}

pub fn succeed(db: &Connection, instance: &str) -> rusqlite::Result<()> {
    db.execute("UPDATE guard SET instance = ?1, successor = NULL", [instance]).map(|_| ())
}
