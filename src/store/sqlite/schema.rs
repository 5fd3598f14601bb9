//! Opening the database and bringing its schema up to date.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// One step each; never changed once released, only added to. The position of a step is the schema version after it.
const MIGRATIONS: [&str; 8] = [
    include_str!("migrations/0001_connections.sql"),
    include_str!("migrations/0002_issuer.sql"),
    include_str!("migrations/0003_revocations.sql"),
    include_str!("migrations/0004_recovery.sql"),
    include_str!("migrations/0005_tunnels.sql"),
    include_str!("migrations/0006_scopes.sql"),
    include_str!("migrations/0007_accounts.sql"),
    include_str!("migrations/0008_partner_links.sql"),
];

/// Opens the file, which must be there: write-ahead log, every commit synced to disk, foreign keys checked.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unusable)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(unusable)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(unusable)?;
    prepare(connection, path)
}

/// The same, of a database that is gone with its connection.
pub fn open_in_memory() -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory().map_err(|error| StoreError::Unusable(error.to_string()))?;
    prepare(connection, Path::new(":memory:"))
}

fn prepare(mut connection: Connection, path: &Path) -> Result<Connection, StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    connection.pragma_update(None, "foreign_keys", true).map_err(unusable)?;
    connection.pragma_update(None, "secure_delete", true).map_err(unusable)?;
    // Temporary results may hold what the tables hold: never in a file elsewhere.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(unusable)?;
    migrate(&mut connection, path).map(|()| connection)
}

/// The version of the schema that this Sidekey writes.
pub const VERSION: usize = MIGRATIONS.len();

/// Writes everything, as it is at one moment, to a file that is empty or missing.
pub fn copy_to(connection: &Connection, into: &Path) -> rusqlite::Result<()> {
    connection.execute("VACUUM INTO ?1", [into.to_string_lossy()]).map(|_| ())
}

/// Opens the file beside whoever owns it, to read from it: the owner goes on writing meanwhile.
pub fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unusable)?;
    if version as usize > MIGRATIONS.len() {
        return Err(StoreError::Unusable(format!(
            "{} was written by a newer sidekey (schema {version}, this one knows {}); run that version again",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    for (number, step) in (1_u32..).zip(MIGRATIONS).skip(version as usize) {
        // A step and its version number become durable together, so an interrupted one is simply repeated.
        let transaction = connection.transaction().map_err(unusable)?;
        transaction.execute_batch(step).map_err(unusable)?;
        transaction.pragma_update(None, "user_version", number).map_err(unusable)?;
        transaction.commit().map_err(unusable)?;
    }
    Ok(())
}

/// Writes everything in the write-ahead log to the database, syncs it, and empties the log: whatever a sync that failed
/// has left in the air is on disk then.
pub fn fold_in(connection: &Connection) -> rusqlite::Result<()> {
    let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    // There is no other connection, unless an operator looks into the file.
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    if is_busy { Err(rusqlite::Error::SqliteFailure(busy, None)) } else { Ok(()) }
}

/// Reads the whole file; what is wrong with it, if anything is.
pub fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

/// Has every later write fail.
pub fn read_only(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "query_only", true)
}

/// Writes, syncs and reads. A write that is taken back again would not reach the disk.
pub fn probe(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM probe", [])?;
    transaction.execute("INSERT INTO probe (value) VALUES (1)", [])?;
    transaction.query_row("SELECT count(*) FROM probe", [], |row| row.get::<_, i64>(0))?;
    transaction.commit()
}
