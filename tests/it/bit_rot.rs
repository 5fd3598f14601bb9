//! Stores that were damaged: bytes that changed, pages that are gone, a write-ahead log that was cut off.

use std::path::Path;
use std::sync::Arc;

use sidekey::base::clock::Timestamp;
use sidekey::base::random::SystemRandom;
use sidekey::base::secret::{Secret, SecretKey};
use sidekey::model::connection::{Captured, ConnectionKey, ConnectionState};
use sidekey::model::names::Label;
use sidekey::store::keyring::KeyRing;
use sidekey::store::record::{ConnectionRecord, connection_context, field};
use sidekey::store::seal::Sealer;
use sidekey::store::sqlite::{FILE_NAME, SqliteStore};
use sidekey::store::{Store, StoreError};

const SUBJECTS: [&str; 5] = ["alice", "bob", "carol", "dave", "eve"];
const PAGE: usize = 4096;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn sealer() -> Sealer {
    Sealer::new(KeyRing::new(vec![SecretKey::new([7; 32])]).expect("a key"), Arc::new(SystemRandom))
}

fn key(subject: &str) -> ConnectionKey {
    let (subject, provider) = (subject.parse().expect("a subject"), "quickbooks".parse().expect("a provider"));
    ConnectionKey::new(subject, provider, Label::default())
}

fn record(subject: &str) -> ConnectionRecord {
    let (key, id) = (key(subject), format!("c_{subject}"));
    let seal = |field| {
        let token = Secret::new(format!("{field} of {subject}"));
        sealer().seal(&connection_context(&key, &id, field, 1), &token)
    };
    ConnectionRecord {
        access_token: seal(field::ACCESS_TOKEN),
        refresh_token: Some(seal(field::REFRESH_TOKEN)),
        id,
        key,
        state: ConnectionState::Active,
        captured: Captured::new(),
        earlier_site: None,
        scopes: None,
        requested_scopes: None,
        account: None,
        generation: 1,
        access_expires_at: Some(NOW),
        previous_refresh_token: None,
        refresh_token_since: None,
        refresh_expires_at: None,
        grant_expires_at: None,
        refresh_due_at: Some(NOW),
        intent: None,
        trouble: None,
        connected_at: NOW,
        refreshed_at: None,
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Good,
    /// It is noticed, in whatever way.
    Damaged,
    Missing,
}

/// Everything that uses a connection, but the provider. A token that opens must be the right one.
async fn find(store: &SqliteStore, subject: &str) -> Found {
    let record = match store.connection(key(subject)).await {
        Ok(Some(record)) => record,
        Ok(None) => return Found::Missing,
        Err(StoreError::Corrupt(_) | StoreError::Failed(_)) => return Found::Damaged,
        Err(error) => panic!("{error}"),
    };
    let Some(refresh_token) = &record.refresh_token else { return Found::Damaged };
    for (field, sealed) in [(field::ACCESS_TOKEN, &record.access_token), (field::REFRESH_TOKEN, refresh_token)] {
        match sealer().open(&record.seal_context(field), sealed) {
            Ok(token) => assert_eq!(token.expose(), format!("{field} of {subject}")),
            Err(_) => return Found::Damaged,
        }
    }
    Found::Good
}

async fn find_all(store: &SqliteStore) -> [Found; 5] {
    let mut found = [Found::Missing; 5];
    for (found, subject) in found.iter_mut().zip(SUBJECTS) {
        *found = find(store, subject).await;
    }
    // What looks at all rows may fail, but not panic.
    let _ = (
        store.connections(None).await,
        store.refresh_due(NOW, 10, Vec::new()).await,
        store.interrupted_refreshes().await,
    );
    let _ = (store.health().await, store.sweep(NOW).await);
    found
}

/// A store with all five, closed.
async fn five(directory: &Path) -> Vec<u8> {
    let store = SqliteStore::open(directory).expect("opens");
    for subject in SUBJECTS {
        store.connect(vec![record(subject)], NOW).await.expect("stored");
    }
    drop(store);
    std::fs::read(directory.join(FILE_NAME)).expect("there")
}

/// Opens the store with another content; `None` if it is refused.
async fn opened_with(directory: &Path, content: &[u8]) -> Option<[Found; 5]> {
    for side_file in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(directory.join(format!("{FILE_NAME}{side_file}")));
    }
    std::fs::write(directory.join(FILE_NAME), content).expect("written");
    match SqliteStore::open(directory) {
        Ok(store) => Some(find_all(&store).await),
        Err(StoreError::Unusable(why)) => {
            assert!(why.contains(FILE_NAME), "{why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_token_with_one_changed_byte_is_noticed_and_the_others_are_good() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("store");
    let content = five(&directory).await;
    let carol = SqliteStore::open(&directory).expect("opens").connection(key("carol")).await.expect("read");
    let carol = carol.expect("there");
    let token = carol.access_token.as_bytes();
    let at = memchr::memmem::find(&content, token).expect("it is in the file");
    for offset in 0..token.len() {
        let mut damaged = content.clone();
        damaged[at + offset] ^= 0x10;
        let found = opened_with(&directory, &damaged).await.expect("the store opens");
        assert_eq!(found, [Found::Good, Found::Good, Found::Damaged, Found::Good, Found::Good], "byte {offset}");
    }
}

#[tokio::test]
async fn a_damaged_page_is_refused_or_noticed_and_never_yields_a_wrong_token() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("store");
    let content = five(&directory).await;
    let (mut refused, mut noticed, mut unharmed) = (0, 0, 0);
    for page in (0..content.len()).step_by(PAGE) {
        // The page's head, its list of cells, places within, and the whole.
        let flips = [0, 1, 3, 5, 7, 8, 9, 12, 101, 108, 1000, 2048, 3500, 4000, PAGE - 1].map(Some);
        for flip in flips.into_iter().chain([None]) {
            let mut damaged = content.clone();
            match flip {
                Some(offset) => damaged[page + offset] ^= 0xff,
                None => damaged[page..page + PAGE].fill(0),
            }
            match opened_with(&directory, &damaged).await {
                None => refused += 1,
                Some(found) if found == [Found::Good; 5] => unharmed += 1,
                Some(_) => noticed += 1,
            }
        }
    }
    assert!(refused > 3 && noticed > 10 && unharmed > 10, "{refused}, {noticed}, {unharmed}");
}

#[tokio::test]
async fn a_log_that_was_cut_off_ends_with_its_last_whole_commit() {
    let home = tempfile::tempdir().expect("a directory");
    let (origin, directory) = (home.path().join("origin"), home.path().join("store"));
    let store = SqliteStore::open(&origin).expect("opens");
    let mut ends = Vec::new();
    let log = |name: &Path| name.join(format!("{FILE_NAME}-wal"));
    for subject in SUBJECTS {
        store.connect(vec![record(subject)], NOW).await.expect("stored");
        ends.push(usize::try_from(std::fs::metadata(log(&origin)).expect("there").len()).expect("small"));
    }
    let database = std::fs::read(origin.join(FILE_NAME)).expect("there");
    let whole = std::fs::read(log(&origin)).expect("there");
    drop(SqliteStore::open(&directory).expect("made"));
    let lengths = (0..whole.len()).step_by(509).chain(ends.iter().flat_map(|end| [end - 1, *end]));
    for length in lengths {
        let _ = std::fs::remove_file(directory.join(format!("{FILE_NAME}-shm")));
        std::fs::write(directory.join(FILE_NAME), &database).expect("written");
        let cut = &whole[..length];
        // Cut off, and followed by what was in these blocks of the disk before.
        for tail in [vec![], vec![0xa5; 5000]] {
            let path = log(&directory);
            let _ = std::fs::remove_file(&path);
            sidekey::base::files::create_private(&path, &[cut, &tail].concat()).expect("written");
            let found = find_all(&SqliteStore::open(&directory).expect("opens")).await;
            let committed = ends.iter().filter(|end| **end <= length).count();
            let expected = std::array::from_fn(|at| if at < committed { Found::Good } else { Found::Missing });
            assert_eq!(found, expected, "{length} of {}", whole.len());
            std::fs::write(directory.join(FILE_NAME), &database).expect("written");
        }
    }
}
