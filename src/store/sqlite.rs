//! The store in one SQLite file. One thread owns the connection; callers hand it their work and wait for the answer, so
//! that no executor thread ever waits for a disk.

mod alternates;
mod connections;
mod flows;
mod guard;
mod handles;
mod issuer;
mod keeper;
mod repair;
mod reserve;
mod revocations;
mod schema;
mod sealed;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::keeper::Keeper;
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::files;
use crate::model::authorization::{Approval, PendingCode, User, Visit, VisitId};
use crate::model::client::Registration;
use crate::model::connection::ConnectionKey;
use crate::model::flow::{ConnectLink, FlowId};
use crate::model::grant::{AccessToken, EndReason, Grant, RefreshToken};
use crate::model::handle::HandleRecord;
use crate::model::names::{ProviderName, ServerName, Subject};
use crate::store::issuer::{GrantRecord, IssuerStore, NewTokens, Rotation, StoredCode, StoredDocument};
use crate::store::keyring::KeyId;
use crate::store::record::{
    Alternate, Beginning, ConnectionRecord, FlowRecord, GuardRecord, RefreshFailure, RefreshedTokens, RevocationRecord,
};
use crate::store::reseal::{KeyUse, SealedPlace, SealedValue};
use crate::store::seal::Sealed;
use crate::store::{Store, StoreError, TakenFlow};

/// The name of the database in the store's directory.
pub const FILE_NAME: &str = "sidekey.db";
/// The name of the file whose lock says that the store is owned.
pub const LOCK_NAME: &str = "sidekey.lock";

type Work = Box<dyn FnOnce(&mut Keeper) + Send>;

/// [`Store`] in a directory of its own, owned by one process.
pub struct SqliteStore {
    /// Absent only while the store is dropped.
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the store in `directory`, and makes both if they are missing. Refuses lax modes, a second owner, and a file
    /// written by a newer version.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::private_directory(directory).map_err(unusable)?;
        let lock = own(directory)?;
        drop(files::open_private(&directory.join(FILE_NAME)).map_err(unusable)?);
        for suffix in ["-wal", "-shm"] {
            let side_file = directory.join(format!("{FILE_NAME}{suffix}"));
            // Also a link that leads nowhere: SQLite would make the file that it names.
            if side_file.symlink_metadata().is_ok() {
                files::private_file(&side_file).map_err(unusable)?;
            }
        }
        let (work, queue) = mpsc::channel::<Work>();
        let (opened, opening) = mpsc::channel();
        let (thread, directory) = (std::thread::Builder::new().name("sidekey-store".to_owned()), directory.to_owned());
        let serve = move || serve(lock, &directory, &opened, &queue);
        let thread = thread.spawn(serve).map_err(unusable)?;
        let store = Self { work: Some(work), thread: Some(thread) };
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

fn serve(_lock: Lock, directory: &Path, opened: &mpsc::Sender<Result<(), StoreError>>, queue: &mpsc::Receiver<Work>) {
    let mut keeper = match Keeper::open(directory) {
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

/// Says that this process owns the store. The operating system lets go of it however the process ends.
struct Lock(File);

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
            "another sidekey process owns {}; ask it through its admin socket, or stop it",
            directory.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn unusable(error: std::io::Error) -> StoreError {
    StoreError::Unusable(error.to_string())
}

#[async_trait]
impl Store for SqliteStore {
    async fn put_connect_link(&self, digest: Digest, link: ConnectLink) -> Result<(), StoreError> {
        self.run(move |db| flows::put_link(db, &digest, &link)).await
    }

    async fn connect_link(&self, digest: Digest, now: Timestamp) -> Result<Option<ConnectLink>, StoreError> {
        self.run(move |db| flows::link(db, &digest, now)).await
    }

    async fn begin_flow(&self, link: Digest, flow: FlowRecord, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| flows::begin(db, &link, &flow, now)).await
    }

    async fn put_flow(&self, flow: FlowRecord) -> Result<(), StoreError> {
        self.run(move |db| flows::put(db, &flow)).await
    }

    async fn flow(&self, id: FlowId) -> Result<Option<FlowRecord>, StoreError> {
        self.run(move |db| flows::flow(db, id)).await
    }

    async fn take_flow(&self, id: FlowId, now: Timestamp) -> Result<TakenFlow, StoreError> {
        self.run(move |db| flows::take(db, id, now)).await
    }

    async fn connect(&self, tokens: Vec<ConnectionRecord>, now: Timestamp) -> Result<(), StoreError> {
        // These may be the only copies: a code works once.
        self.keep(move |keeper| keeper.run_at_any_cost(|db| connections::connect(db, &tokens, now))).await
    }

    async fn disconnect(
        &self,
        key: ConnectionKey,
        revocation: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Vec<RevocationRecord>>, StoreError> {
        self.run(move |db| revocations::disconnect(db, &key, revocation.as_deref(), now)).await
    }

    async fn put_revocation(&self, revocation: RevocationRecord, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| revocations::put(db, &revocation, now)).await
    }

    async fn revocations_due(&self, now: Timestamp, limit: usize) -> Result<Vec<RevocationRecord>, StoreError> {
        self.run(move |db| revocations::due(db, now, limit)).await
    }

    async fn postpone_revocation(&self, id: String, until: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| revocations::postpone(db, &id, until)).await
    }

    async fn finish_revocation(&self, id: String) -> Result<(), StoreError> {
        self.run(move |db| revocations::finish(db, &id)).await
    }

    async fn connection(&self, key: ConnectionKey) -> Result<Option<ConnectionRecord>, StoreError> {
        self.run(move |db| connections::by_key(db, &key)).await
    }

    async fn connections(&self, subject: Option<Subject>) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.run(move |db| connections::of_subject(db, subject.as_ref())).await
    }

    async fn count_connections(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        self.run(|db| connections::count(db)).await
    }

    async fn refresh_due(
        &self,
        until: Timestamp,
        limit: usize,
        except: Vec<ProviderName>,
    ) -> Result<Vec<ConnectionKey>, StoreError> {
        self.run(move |db| connections::due(db, until, limit, &except)).await
    }

    async fn next_refresh(&self) -> Result<Option<Timestamp>, StoreError> {
        self.run(|db| connections::next_due(db)).await
    }

    async fn begin_refresh(&self, id: String, generation: u64, begin: Beginning) -> Result<Option<u64>, StoreError> {
        // Nothing may be burnt that could not be replaced.
        self.keep(move |keeper| {
            keeper.prepare()?;
            let begun = keeper.run(|db| connections::begin_refresh(db, &id, generation, &begin));
            if begun.is_err() {
                let owner = id.clone();
                keeper.owe(owner, move |db| repair::forget_intent(db, &id, &begin.intent.attempt));
            }
            begun
        })
        .await
    }

    async fn complete_refresh(&self, id: String, generation: u64, tokens: RefreshedTokens) -> Result<bool, StoreError> {
        self.keep(move |keeper| {
            keeper.run_at_any_cost(|db| {
                let is_new = connections::complete_refresh(db, &id, generation, &tokens)?;
                // What was reported as failed a moment ago may have been written all the same.
                Ok(is_new || repair::holds(db, &id, &tokens)?)
            })
        })
        .await
    }

    async fn fail_refresh(&self, id: String, generation: u64, failure: RefreshFailure) -> Result<bool, StoreError> {
        self.keep(move |keeper| {
            let failed = keeper.run_at_any_cost(|db| connections::fail_refresh(db, &id, generation, &failure));
            if failed.is_err() {
                let owner = id.clone();
                keeper.owe(owner, move |db| connections::fail_refresh(db, &id, generation, &failure).map(|_| ()));
            }
            failed
        })
        .await
    }

    async fn postpone_refresh(&self, key: ConnectionKey, until: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::postpone(db, &key, until)).await
    }

    async fn retry_operator_failures(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::retry_operator_failures(db, now)).await
    }

    async fn limit_waiting(&self, now: Timestamp, latest: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::limit_waiting(db, now, latest)).await
    }

    async fn interrupted_refreshes(&self) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.run(|db| connections::interrupted(db)).await
    }

    async fn sealed_by_others(
        &self,
        active: KeyId,
        after: Option<SealedPlace>,
        limit: usize,
    ) -> Result<Vec<SealedValue>, StoreError> {
        self.run(move |db| sealed::not_by(db, active, after, limit)).await
    }

    async fn replace_sealed(&self, place: SealedPlace, old: Sealed, new: Sealed) -> Result<bool, StoreError> {
        self.run(move |db| sealed::replace(db, place, &old, &new)).await
    }

    async fn key_use(&self) -> Result<Vec<KeyUse>, StoreError> {
        self.run(|db| sealed::key_use(db)).await
    }

    async fn guard(&self) -> Result<GuardRecord, StoreError> {
        self.run(|db| guard::read(db)).await
    }

    async fn announce_successor(&self, instance: String, refreshes: u64) -> Result<(), StoreError> {
        self.run(move |db| guard::announce_successor(db, &instance, refreshes)).await
    }

    async fn succeed(&self, instance: String) -> Result<(), StoreError> {
        self.run(move |db| guard::succeed(db, &instance)).await
    }

    async fn keep_alternate(&self, id: String, alternate: Alternate) -> Result<(), StoreError> {
        self.run(move |db| alternates::keep(db, &id, &alternate)).await
    }

    async fn alternates(&self, id: String) -> Result<Vec<Alternate>, StoreError> {
        self.run(move |db| alternates::of(db, &id)).await
    }

    async fn announce_grant_ends(&self, until: Timestamp) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        self.run(move |db| connections::announce_grant_ends(db, until)).await
    }

    async fn put_handle(&self, digest: Digest, handle: HandleRecord) -> Result<(), StoreError> {
        self.run(move |db| handles::put(db, &digest, &handle)).await
    }

    async fn handles(&self) -> Result<Vec<(Digest, HandleRecord)>, StoreError> {
        self.run(|db| handles::all(db)).await
    }

    async fn revoke_handle(&self, id: String, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| handles::revoke(db, &id, now)).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| flows::sweep(db, now)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.keep(|keeper| {
            keeper.prepare()?;
            keeper.run(schema::probe)
        })
        .await
    }
}

#[async_trait]
impl IssuerStore for SqliteStore {
    async fn put_client(
        &self,
        id: String,
        client: Registration,
        now: Timestamp,
        unused: u32,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_client(db, &id, &client, now, unused)).await
    }

    async fn client(&self, id: String) -> Result<Option<Registration>, StoreError> {
        self.run(move |db| issuer::client(db, &id)).await
    }

    async fn use_client(&self, id: String, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::use_client(db, &id, now)).await
    }

    async fn put_client_document(&self, url: String, document: StoredDocument) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_document(db, &url, &document)).await
    }

    async fn client_document(&self, url: String) -> Result<Option<StoredDocument>, StoreError> {
        self.run(move |db| issuer::document(db, &url)).await
    }

    async fn put_visit(&self, visit: Visit) -> Result<bool, StoreError> {
        self.run(move |db| issuer::put_visit(db, &visit)).await
    }

    async fn visit(&self, id: VisitId, now: Timestamp) -> Result<Option<Visit>, StoreError> {
        self.run(move |db| issuer::visit(db, &id, now)).await
    }

    async fn finish_visit(
        &self,
        id: VisitId,
        code: Option<(Digest, PendingCode)>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run(move |db| issuer::finish_visit(db, &id, code.as_ref(), now)).await
    }

    async fn put_browser_session(
        &self,
        digest: Digest,
        user: User,
        now: Timestamp,
        expires_at: Timestamp,
        replaces: Option<Digest>,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_session(db, &digest, &user, now, expires_at, replaces.as_ref())).await
    }

    async fn browser_session(&self, digest: Digest, now: Timestamp) -> Result<Option<User>, StoreError> {
        self.run(move |db| issuer::session(db, &digest, now)).await
    }

    async fn end_browser_session(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |db| issuer::end_session(db, &digest)).await
    }

    async fn put_approval(&self, approval: Approval) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_approval(db, &approval)).await
    }

    async fn approval(
        &self,
        subject: Subject,
        client_id: String,
        server: ServerName,
    ) -> Result<Option<Approval>, StoreError> {
        self.run(move |db| issuer::approval(db, &subject, &client_id, &server)).await
    }

    async fn forget_approvals(&self, subject: Subject, client_id: String) -> Result<(), StoreError> {
        self.run(move |db| issuer::forget_approvals(db, &subject, &client_id)).await
    }

    async fn put_code(&self, digest: Digest, code: PendingCode) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_code(db, &digest, &code)).await
    }

    async fn code(&self, digest: Digest) -> Result<Option<StoredCode>, StoreError> {
        self.run(move |db| issuer::code(db, &digest)).await
    }

    async fn redeem_code(
        &self,
        digest: Digest,
        grant: GrantRecord,
        tokens: NewTokens,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run(move |db| issuer::redeem_code(db, &digest, &grant, &tokens, now)).await
    }

    async fn burn_code(&self, digest: Digest, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::burn_code(db, &digest, now)).await
    }

    async fn refresh_token(&self, digest: Digest) -> Result<Option<(RefreshToken, Grant)>, StoreError> {
        self.run(move |db| issuer::refresh_token(db, &digest)).await
    }

    async fn rotate(
        &self,
        digest: Digest,
        tokens: NewTokens,
        reply: Sealed,
        now: Timestamp,
        grace: std::time::Duration,
    ) -> Result<Rotation, StoreError> {
        self.run(move |db| issuer::rotate(db, &digest, &tokens, &reply, now, grace)).await
    }

    async fn end_access_token(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |db| issuer::end_access_token(db, &digest)).await
    }

    async fn end_grant(&self, id: String, reason: EndReason, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| issuer::end_grant(db, &id, reason, now)).await
    }

    async fn grants(&self, subject: Option<Subject>) -> Result<Vec<GrantRecord>, StoreError> {
        self.run(move |db| issuer::grants(db, subject.as_ref())).await
    }

    async fn access_tokens(&self, now: Timestamp) -> Result<Vec<(Digest, AccessToken)>, StoreError> {
        self.run(move |db| issuer::access_tokens(db, now)).await
    }

    async fn put_mcp_session(
        &self,
        server: ServerName,
        digest: Digest,
        subject: Subject,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_mcp_session(db, &server, &digest, &subject, now)).await
    }

    async fn mcp_sessions(&self) -> Result<Vec<(ServerName, Digest, Subject)>, StoreError> {
        self.run(move |db| issuer::mcp_sessions(db)).await
    }

    async fn use_assertion(&self, digest: Digest, expires_at: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| issuer::use_assertion(db, &digest, expires_at)).await
    }

    async fn sweep_issuer(&self, now: Timestamp, unused_since: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::sweep(db, now, unused_since)).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn passes_the_contract() {
        let home = tempfile::tempdir().expect("a directory");
        let open = || SqliteStore::open(&home.path().join("store")).expect("opens");
        contract::run(open()).await;
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
