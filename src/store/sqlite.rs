//! The store in one SQLite file. One thread owns the connection; callers hand it their work and wait for the answer, so
//! that no executor thread ever waits for a disk.

mod alternates;
mod connections;
mod flows;
mod guard;
mod handles;
mod issuer;
mod issuer_operations;
mod keeper;
mod operations;
mod repair;
mod reserve;
mod revocations;
mod schema;
mod sealed;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use self::keeper::Keeper;
use crate::base::files;
use crate::store::StoreError;

/// The name of the database in the store's directory.
pub const FILE_NAME: &str = "sidekey.db";
/// The version of the database's schema that this Sidekey writes.
pub const SCHEMA_VERSION: usize = schema::VERSION;
/// The name of the file whose lock says that the store is owned.
pub const LOCK_NAME: &str = "sidekey.lock";

/// The name of the file that is there while a restore is under way: what lies beside it may be half of a store. It says where
/// what was there before is kept.
pub const UNDER_WAY: &str = "sidekey.restore-under-way";

type Work = Box<dyn FnOnce(&mut Keeper) + Send>;

/// [`Store`] in a directory of its own, owned by one process.
pub struct SqliteStore {
    /// Absent only while the store is dropped.
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    /// Absent for one in memory.
    file: Option<PathBuf>,
}

impl SqliteStore {
    /// Opens the store in `directory`, and makes both if they are missing. Refuses lax modes, a second owner, and a file
    /// written by a newer version.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::private_directory(directory).map_err(unusable)?;
        let lock = own(directory)?;
        if let Ok(aside) = std::fs::read_to_string(directory.join(UNDER_WAY)) {
            return Err(StoreError::Unusable(format!(
                "a restore of {} was cut off; run `sidekey restore FILE` again (what was there before is in {aside})",
                directory.display()
            )));
        }
        drop(files::open_private(&directory.join(FILE_NAME)).map_err(unusable)?);
        for suffix in ["-wal", "-shm"] {
            let side_file = directory.join(format!("{FILE_NAME}{suffix}"));
            // Also a link that leads nowhere: SQLite would make the file that it names.
            if side_file.symlink_metadata().is_ok() {
                files::private_file(&side_file).map_err(unusable)?;
            }
        }
        let (file, directory) = (Some(directory.join(FILE_NAME)), directory.to_owned());
        Self::begin(file, Some(lock), move || Keeper::open(&directory))
    }

    /// A store in memory alone: what is tried out in it leaves no trace.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::begin(None, None, Keeper::in_memory)
    }

    fn begin(
        file: Option<PathBuf>,
        lock: Option<Lock>,
        open: impl FnOnce() -> Result<Keeper, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (work, queue) = mpsc::channel::<Work>();
        let (opened, opening) = mpsc::channel();
        let thread = std::thread::Builder::new().name("sidekey-store".to_owned());
        let thread = thread.spawn(move || serve(lock, open, &opened, &queue)).map_err(unusable)?;
        let store = Self { work: Some(work), thread: Some(thread), file };
        // If it fails, the thread has ended and let go of the lock when this returns.
        opening.recv().map_err(|_| gone())?.map(|()| store)
    }

    /// Runs `operation` on the store's thread. It is carried out even if the caller stops waiting.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.keep(|keeper| keeper.run(operation)).await
    }

    async fn keep<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Keeper) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |keeper| {
            let _ = answer.send(operation(keeper));
        });
        self.work.as_ref().ok_or_else(gone)?.send(work).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for SqliteStore {
    /// Finishes what was handed over, and closes the file, before the lock is let go of.
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    _lock: Option<Lock>,
    open: impl FnOnce() -> Result<Keeper, StoreError>,
    opened: &mpsc::Sender<Result<(), StoreError>>,
    queue: &mpsc::Receiver<Work>,
) {
    let mut keeper = match open() {
        Ok(keeper) => keeper,
        Err(error) => return drop(opened.send(Err(error))),
    };
    if opened.send(Ok(())).is_err() {
        return;
    }
    while let Ok(work) = queue.recv() {
        work(&mut keeper);
    }
    keeper.close();
}

fn gone() -> StoreError {
    StoreError::Failed("its thread has ended".to_owned())
}

/// Owns the store in a directory without opening it, as long as the value lives.
pub fn hold(directory: &Path) -> Result<Lock, StoreError> {
    files::private_directory(directory).map_err(unusable)?;
    own(directory)
}

/// Says that this process owns the store. The operating system lets go of it however the process ends.
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not do while a child process that is just being started has it open too.
        let _ = self.0.unlock();
    }
}

/// Takes the lock.
fn own(directory: &Path) -> Result<Lock, StoreError> {
    let path: PathBuf = directory.join(LOCK_NAME);
    let file = files::open_private(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "another sidekey process owns {}; ask it through its admin socket, stop it, or wait if it is stopping already",
            directory.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn unusable(error: std::io::Error) -> StoreError {
    StoreError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::store::Store;
    use crate::store::contract;

    #[tokio::test]
    async fn passes_the_contract() {
        let home = tempfile::tempdir().expect("a directory");
        let open = || SqliteStore::open(&home.path().join("store")).expect("opens");
        contract::run(open()).await;
    }

    #[tokio::test]
    async fn in_memory_it_passes_the_contract_too() {
        contract::run(SqliteStore::in_memory().expect("opens")).await;
    }

    #[tokio::test]
    async fn a_copy_holds_what_was_there_at_one_moment_and_the_owner_goes_on() {
        let home = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&home.path().join("store")).expect("opens");
        let connect = async |subject, id| {
            let connection = contract::connection(subject, id);
            store.connect(vec![connection], Timestamp::from_millis(1)).await.expect("stored");
        };
        connect("alice", "c_1").await;
        let copied = home.path().join("copy");
        fs::create_dir(&copied).expect("made");
        fs::set_permissions(&copied, fs::Permissions::from_mode(0o700)).expect("chmod");
        store.snapshot(copied.join(FILE_NAME)).await.expect("copied");
        connect("bob", "c_2").await;
        assert_eq!(fs::metadata(copied.join(FILE_NAME)).expect("there").mode() & 0o777, 0o600);
        let copy = reopen(&copied);
        assert_eq!(copy.connections(None).await.expect("read").len(), 1);
        assert_eq!(copy.guard().await.expect("read"), store.guard().await.expect("read"));
        assert!(store.snapshot(copied.join(FILE_NAME)).await.is_err(), "nothing is overwritten");
        assert_eq!(store.connections(None).await.expect("read").len(), 2);
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_reopening() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("store");
        let connection = contract::connection("alice", "c_1");
        let store = SqliteStore::open(&path).expect("opens");
        store.connect(vec![connection.clone()], Timestamp::from_millis(1)).await.expect("stored");
        drop(store);
        let again = reopen(&path);
        let found = again.connection(connection.key.clone()).await.expect("read").expect("there");
        assert_eq!((found.id, found.access_token), (connection.id, connection.access_token));
    }

    fn reopen(path: &Path) -> SqliteStore {
        SqliteStore::open(path).expect("opens again")
    }

    #[test]
    fn files_are_private_and_lax_ones_are_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("store");
        drop(SqliteStore::open(&path).expect("opens"));
        for file in fs::read_dir(&path).expect("listed") {
            let file = file.expect("a file");
            assert_eq!(file.metadata().expect("there").mode() & 0o777, 0o600, "{:?}", file.path());
        }
        let database = path.join(FILE_NAME);
        fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).expect("chmod");
        let message = SqliteStore::open(&path).err().expect("refused").to_string();
        assert!(message.contains("chmod 600") && message.contains(FILE_NAME), "{message}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert!(SqliteStore::open(&path).err().expect("refused").to_string().contains("chmod 700"));
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_refused_and_not_followed() {
        for name in [FILE_NAME, LOCK_NAME, reserve::FILE_NAME, "sidekey.db-wal", "sidekey.db-shm"] {
            let home = tempfile::tempdir().expect("a directory");
            let (path, elsewhere) = (home.path().join("store"), home.path().join("elsewhere"));
            drop(SqliteStore::open(&path).expect("opens"));
            let _ = fs::remove_file(path.join(name));
            std::os::unix::fs::symlink(&elsewhere, path.join(name)).expect("linked");
            assert!(matches!(SqliteStore::open(&path), Err(StoreError::Unusable(_))), "{name}");
            assert!(!elsewhere.exists(), "{name}");
            fs::write(&elsewhere, "not ours").expect("written");
            assert!(matches!(SqliteStore::open(&path), Err(StoreError::Unusable(_))), "{name}");
            assert_eq!(fs::read(&elsewhere).expect("there"), b"not ours", "{name}");
        }
    }

    #[test]
    fn a_second_owner_is_told_so() {
        let home = tempfile::tempdir().expect("a directory");
        let first = SqliteStore::open(home.path().join("store").as_path()).expect("opens");
        let message = SqliteStore::open(&home.path().join("store")).err().expect("refused").to_string();
        assert!(message.contains("another sidekey process owns"), "{message}");
        drop(first);
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("store");
        drop(SqliteStore::open(&path).expect("opens"));
        let raw = Connection::open(path.join(FILE_NAME)).expect("opens");
        raw.pragma_update(None, "user_version", 999).expect("set");
        drop(raw);
        let message = SqliteStore::open(&path).err().expect("refused").to_string();
        assert!(message.contains("written by a newer sidekey (schema 999"), "{message}");
    }
}
