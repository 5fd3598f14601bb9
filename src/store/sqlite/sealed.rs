//! Every sealed value that is kept for longer than some minutes, wherever it stands.

use rusqlite::{Connection, Row, params};

use super::connections::readable;
use crate::store::keyring::KeyId;
use crate::store::record::field;
use crate::store::reseal::{KeyUse, SealedPlace, SealedValue};
use crate::store::seal::Sealed;

/// A column that holds sealed values, and what they are sealed for.
struct Column {
    table: &'static str,
    column: &'static str,
    purpose: &'static str,
    field: &'static str,
    /// From which the context is read; the values are those of the row itself.
    provider: &'static str,
    record: &'static str,
    generation: &'static str,
    subject: &'static str,
}

const fn of_connection(table: &'static str, column: &'static str, field: &'static str, record: &'static str) -> Column {
    let (provider, subject) = ("provider", "subject");
    Column { table, column, purpose: "connection", field, provider, record, generation: "generation", subject }
}

// What lives for minutes only (the verifier of a sign-in under way, the answer to a client's refresh) is not among them.
const COLUMNS: [Column; 7] = [
    of_connection("connections", "access_token_sealed", field::ACCESS_TOKEN, "id"),
    of_connection("connections", "refresh_token_sealed", field::REFRESH_TOKEN, "id"),
    of_connection("connections", "previous_refresh_token_sealed", field::PREVIOUS_REFRESH_TOKEN, "id"),
    of_connection("revocations", "access_token_sealed", field::ACCESS_TOKEN, "connection_id"),
    of_connection("revocations", "refresh_token_sealed", field::REFRESH_TOKEN, "connection_id"),
    Column {
        provider: "(SELECT provider FROM connections WHERE connections.id = connection_id)",
        subject: "(SELECT subject FROM connections WHERE connections.id = connection_id)",
        ..of_connection("alternates", "refresh_token_sealed", field::REFRESH_TOKEN, "connection_id")
    },
    Column {
        table: "grants",
        column: "handle_sealed",
        purpose: "grant",
        field: "handle",
        provider: "''",
        record: "id",
        generation: "0",
        subject: "subject",
    },
];

/// Values not sealed by `active`, after the place where the last look ended.
pub fn not_by(
    db: &Connection,
    active: KeyId,
    after: Option<SealedPlace>,
    limit: usize,
) -> rusqlite::Result<Vec<SealedValue>> {
    let first = after.map_or(0, |place| place.column);
    let mut found = Vec::new();
    for (index, column) in COLUMNS.iter().enumerate().skip(first) {
        let beyond = after.filter(|place| place.column == index).map_or(i64::MIN, |place| place.row);
        let Column { table, column: name, provider, record, generation, subject, .. } = column;
        let sql = format!(
            "SELECT rowid, {name} AS sealed, {provider} AS provider, {record} AS record, {generation} AS generation,
               {subject} AS subject
             FROM {table} WHERE length({name}) > 0 AND substr({name}, 2, 4) != ?1 AND rowid > ?2
             ORDER BY rowid LIMIT ?3"
        );
        let left = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
        let rows = db
            .prepare_cached(&sql)?
            .query_map(params![active.0, beyond, left], |row| value(row, index, column))
            .and_then(readable)?;
        found.extend(rows);
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

fn value(row: &Row<'_>, index: usize, column: &Column) -> rusqlite::Result<SealedValue> {
    Ok(SealedValue {
        place: SealedPlace { column: index, row: row.get("rowid")? },
        purpose: column.purpose,
        field: column.field,
        subject: row.get::<_, Option<String>>("subject")?.unwrap_or_default(),
        provider: row.get::<_, Option<String>>("provider")?.unwrap_or_default(),
        record: row.get("record")?,
        generation: u64::try_from(row.get::<_, i64>("generation")?).unwrap_or(0),
        sealed: Sealed::from_bytes(row.get("sealed")?),
    })
}

pub fn replace(db: &Connection, place: SealedPlace, old: &Sealed, new: &Sealed) -> rusqlite::Result<bool> {
    let Some(Column { table, column, .. }) = COLUMNS.get(place.column) else { return Ok(false) };
    let sql = format!("UPDATE {table} SET {column} = ?3 WHERE rowid = ?1 AND {column} = ?2");
    db.prepare_cached(&sql)?.execute(params![place.row, old.as_bytes(), new.as_bytes()]).map(|changed| changed == 1)
}

/// What counts as use is what is still needed: not the history of connections that were replaced.
pub fn key_use(db: &Connection) -> rusqlite::Result<Vec<KeyUse>> {
    let counted: Vec<String> = COLUMNS
        .iter()
        .map(|Column { table, column, .. }| {
            let still_needed = match *table {
                "connections" => "deleted_at IS NULL",
                "grants" => "ended_at IS NULL",
                _ => "1",
            };
            format!("SELECT substr({column}, 2, 4) AS id FROM {table} WHERE length({column}) > 4 AND {still_needed}")
        })
        .collect();
    let sql =
        format!("SELECT id, count(*) AS values_sealed FROM ({}) GROUP BY id ORDER BY id", counted.join(" UNION ALL "));
    db.prepare_cached(&sql)?
        .query_map([], |row| {
            let id: [u8; 4] = row.get("id")?;
            Ok(KeyUse { id: KeyId(id), values: u64::try_from(row.get::<_, i64>("values_sealed")?).unwrap_or(0) })
        })
        .and_then(readable)
}
