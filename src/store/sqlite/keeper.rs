//! The database, its reserve, and what is to be done when the disk fails.
//!
//! After an error in writing or syncing nobody knows what is on disk, and the next sync may say that all is well without
//! having written anything. So the connection is only read from; before anything is written again, another one is opened,
//! everything in the write-ahead log is written to the database anew, and checked. What had failed is not in it: the log's
//! index, which both connections share, ends before it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, ffi};
use tracing::{error, info, warn};

use super::FILE_NAME;
use super::reserve::Reserve;
use super::schema;
use crate::store::StoreError;

/// A write that was reported as failed and must be made up for. It may be repeated.
type Owed = Box<dyn Fn(&mut Connection) -> rusqlite::Result<()> + Send>;

/// The one owner of the database.
pub struct Keeper {
    /// Absent for one that is in memory alone, which no disk can fail.
    place: Option<Place>,
    connection: Connection,
    trust: Trust,
    /// By connection.
    owed: BTreeMap<String, Owed>,
}

/// Where the database is.
struct Place {
    path: PathBuf,
    /// The file's device and number: another file at the same place is not ours.
    identity: (u64, u64),
    reserve: Reserve,
}

enum Trust {
    Full,
    /// The connection is only read from, until another one takes its place.
    Lost,
    /// What was found is for the operator to mend; reading goes on.
    Damaged(String),
}

impl Keeper {
    /// Opens the database in a directory that is ours.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let unusable = |error: std::io::Error| StoreError::Unusable(error.to_string());
        let identity = identity(&path).map_err(unusable)?;
        let mut reserve = Reserve::open(directory).map_err(unusable)?;
        let connection = schema::open(&path).or_else(|error| {
            // On a full disk even opening takes some room.
            reserve.release().map_err(unusable)?;
            schema::open(&path).map_err(|_| error)
        })?;
        let place = Some(Place { path, identity, reserve });
        let mut keeper = Self { place, connection, trust: Trust::Full, owed: BTreeMap::new() };
        // What a process before this one wrote may not have reached the disk.
        if let Err(error) = schema::fold_in(&keeper.connection) {
            let error = keeper.failed(&error);
            warn!(operation = "store", %error, "the write-ahead log cannot be folded in yet");
        }
        if let Err(error) = keeper.prepare() {
            warn!(operation = "store", %error, "nothing is refreshed for now");
        }
        Ok(keeper)
    }

    /// A database that is gone with its keeper.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = schema::open_in_memory()?;
        Ok(Self { place: None, connection, trust: Trust::Full, owed: BTreeMap::new() })
    }

    /// Runs an operation.
    pub fn run<T>(&mut self, operation: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let trouble = self.mend().err();
        operation(&mut self.connection).map_err(|error| match trouble {
            // Why nothing can be written, rather than that this could not be.
            Some(trouble) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => trouble,
            _ => self.failed(&error),
        })
    }

    /// The same for what may be the only copy of something: the reserve is for that.
    pub fn run_at_any_cost<T>(
        &mut self,
        mut operation: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self.run(&mut operation) {
            Err(StoreError::Failed(why)) => {
                warn!(operation = "store", why, "written with the space that was set aside");
                if let Some(Err(error)) = self.place.as_mut().map(|place| place.reserve.release()) {
                    error!(operation = "store", %error, "the space that was set aside cannot be used");
                }
                let again = self.run(operation);
                // Before somebody else takes what is left. What is missing is found out by whoever needs it.
                let _ = self.place.as_mut().map(|place| place.reserve.fill());
                again
            }
            done => done,
        }
    }

    /// Makes sure that what is begun now can be finished: the file is in its place, space is set aside, and nothing is
    /// owed.
    pub fn prepare(&mut self) -> Result<(), StoreError> {
        self.mend()?;
        if !self.owed.is_empty() {
            return Err(StoreError::Failed("the outcome of an earlier refresh cannot be written".to_owned()));
        }
        let Some(place) = &mut self.place else { return Ok(()) };
        place.reserve.fill().map_err(|error| {
            StoreError::Failed(format!("no space can be set aside for refreshed tokens: {error}; free some disk space"))
        })
    }

    /// Has something about a connection written as soon as the store can; what was owed about it before is not.
    pub fn owe(&mut self, id: String, write: impl Fn(&mut Connection) -> rusqlite::Result<()> + Send + 'static) {
        self.owed.insert(id, Box::new(write));
    }

    /// Writes what is still owed, if that can be done now.
    pub fn close(mut self) {
        if let Err(error) = self.mend() {
            error!(operation = "store", %error, "closed as it is");
        }
    }

    /// Makes sure that the connection can be written to, and writes what is owed.
    fn mend(&mut self) -> Result<(), StoreError> {
        self.notice_a_loss();
        self.replace_connection()?;
        while let Some(owed) = self.owed.first_entry() {
            match owed.get()(&mut self.connection) {
                Ok(()) => drop(owed.remove()),
                Err(error) => {
                    self.failed(&error);
                    return self.replace_connection();
                }
            }
        }
        Ok(())
    }

    /// What is written into a file that has no name anymore is lost with this process.
    fn notice_a_loss(&mut self) {
        let is_gone = self.place.as_ref().is_some_and(|place| !place.is_ours());
        if is_gone && matches!(self.trust, Trust::Full) {
            error!(operation = "store", "the database was removed or replaced; nothing is written until it is back");
            self.distrust();
        }
    }

    fn distrust(&mut self) {
        self.trust = Trust::Lost;
        if let Err(error) = schema::read_only(&self.connection) {
            error!(operation = "store", %error, "it cannot be kept from being written to");
        }
    }

    fn replace_connection(&mut self) -> Result<(), StoreError> {
        match &self.trust {
            Trust::Full => return Ok(()),
            Trust::Damaged(what) => return Err(StoreError::Failed(what.clone())),
            Trust::Lost => {}
        }
        // What is in memory alone cannot be opened again.
        let Some(place) = &self.place else { return Err(StoreError::Failed("its memory has failed".to_owned())) };
        if !place.is_ours() {
            return Err(StoreError::Failed(format!(
                "{} was removed or replaced while it was in use; put it back, or stop Sidekey, restore a backup, start it",
                place.path.display()
            )));
        }
        let failed = |error: rusqlite::Error| StoreError::Failed(format!("it cannot be written to: {error}"));
        let connection = schema::open(&place.path).map_err(|error| StoreError::Failed(error.to_string()))?;
        schema::fold_in(&connection).map_err(failed)?;
        if let Some(damage) = schema::damage(&connection).map_err(failed)? {
            let what = format!(
                "{} is damaged since an input or output error ({damage}); stop Sidekey, restore a backup, start it",
                place.path.display()
            );
            error!(operation = "store", what);
            self.trust = Trust::Damaged(what.clone());
            return Err(StoreError::Failed(what));
        }
        info!(operation = "store", "opened again, written anew and checked");
        self.connection = connection;
        self.trust = Trust::Full;
        Ok(())
    }

    fn failed(&mut self, error: &rusqlite::Error) -> StoreError {
        if leaves_the_disk_unknown(error) && matches!(self.trust, Trust::Full) {
            error!(operation = "store", %error, "nothing is written until the database has been opened again");
            self.distrust();
        }
        match error {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                StoreError::Corrupt(error.to_string())
            }
            error => StoreError::Failed(error.to_string()),
        }
    }
}

impl Place {
    fn is_ours(&self) -> bool {
        identity(&self.path).ok() == Some(self.identity)
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether something may have been written in part, or not at all. A full disk is none of that: SQLite takes back what it
/// has begun. Neither is a place that cannot be read: the others still can.
fn leaves_the_disk_unknown(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    let harmless = [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_NOMEM];
    failure.code == ErrorCode::SystemIoFailure && !harmless.contains(&failure.extended_code)
}
