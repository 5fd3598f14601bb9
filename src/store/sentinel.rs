//! The sentinel: a small file outside the data directory that knows how far the store has come.
//!
//! A store that is restored from a backup, or copied to a second machine, looks sound and holds refresh tokens that were used
//! since: sending one of them may end the grant it belongs to. So each refresh is counted, in the store first and then
//! here, before the provider is asked. A store that has counted less than its sentinel is an old one; one that was watched
//! over by a sentinel and finds none is a copy. A process that finds another one's mark here was replaced by it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::record::GuardRecord;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Whose sentinel it is: [`GuardRecord::store_id`].
    store: String,
    /// How many refreshes were begun.
    refreshes: u64,
    /// The process that writes it.
    instance: String,
}

/// Why refresh tokens must not be sent.
#[derive(Debug)]
pub enum Mistrust {
    /// The store is not the one that the sentinel knows, or not as it was last. Only the operator can say that it is
    /// the right one.
    Confirm(String),
    /// The sentinel cannot be read or written just now.
    Unreachable(io::Error),
}

impl std::fmt::Display for Mistrust {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Confirm(why) => formatter.write_str(why),
            Self::Unreachable(error) => write!(formatter, "the sentinel cannot be used: {error}"),
        }
    }
}

/// The sentinel of one store, as one process sees it.
pub struct Sentinel {
    path: PathBuf,
    instance: String,
    /// How many refreshes this process has noted here; `None` before it was let in. Held while the file is looked at and
    /// written.
    noted: Mutex<Option<Noted>>,
}

struct Noted {
    store: String,
    refreshes: u64,
}

impl Sentinel {
    /// The sentinel at `path`. `instance` names this process and no other.
    pub fn new(path: PathBuf, instance: String) -> Self {
        Self { path, instance, noted: Mutex::new(None) }
    }

    /// Whether the store is the one that the sentinel knows, as it was last; then this process is the one that writes. A store
    /// that never had a sentinel gets one.
    pub fn admit(&self, store: &GuardRecord) -> Result<(), Mistrust> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = self.read()?;
        if noted.is_some() && mark.as_ref().is_some_and(|mark| mark.instance != self.instance) {
            return Err(Mistrust::Confirm(self.replaced()));
        }
        judge(store, mark.as_ref(), &self.path).map_err(Mistrust::Confirm)?;
        self.write(&mut noted, &store.store_id, store.refreshes)
    }

    /// Takes the store for the right one, whatever is known of it; from what count it goes on.
    pub fn confirm(&self, store: &GuardRecord) -> Result<u64, Mistrust> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match self.read() {
            Err(Mistrust::Confirm(_)) => None, // it says nothing readable, and what it said is not asked for
            known => known?,
        };
        // More than anybody has counted: should the other copy come back, it is the old one.
        let known = known.filter(|mark| mark.store == store.store_id).map_or(0, |mark| mark.refreshes);
        let refreshes = known.max(store.refreshes).saturating_add(1);
        self.write(&mut noted, &store.store_id, refreshes).map(|()| refreshes)
    }

    /// Notes that so many refreshes were begun. Only then may a refresh token be sent.
    pub fn advance(&self, refreshes: u64) -> Result<(), Mistrust> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Noted { store, refreshes: so_far }) = noted.as_ref() else {
            return Err(Mistrust::Confirm("the store was not compared with its sentinel yet".to_owned()));
        };
        let (store, so_far) = (store.clone(), *so_far);
        match self.read()? {
            None => return Err(Mistrust::Unreachable(io::Error::new(io::ErrorKind::NotFound, "it is gone"))),
            Some(mark) if mark.instance != self.instance => return Err(Mistrust::Confirm(self.replaced())),
            Some(_) => {}
        }
        if so_far >= refreshes {
            return Ok(());
        }
        self.write(&mut noted, &store, refreshes)
    }

    fn replaced(&self) -> String {
        format!(
            "another process has taken over the sentinel {}: this one works on a copy of the store, or was replaced",
            self.path.display()
        )
    }

    fn read(&self) -> Result<Option<Mark>, Mistrust> {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                Mistrust::Confirm(format!("the sentinel {} says nothing readable: {error}", self.path.display()))
            }),
            // Where not even its directory is there, what holds it is not mounted.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory(&self.path).is_dir() => Ok(None),
            Err(error) => Err(Mistrust::Unreachable(error)),
        }
    }

    fn write(&self, noted: &mut Option<Noted>, store: &str, refreshes: u64) -> Result<(), Mistrust> {
        let mark = Mark { store: store.to_owned(), refreshes, instance: self.instance.clone() };
        replace(&self.path, &serde_json::to_vec(&mark).expect("texts and a number serialize"))
            .map_err(Mistrust::Unreachable)?;
        *noted = Some(Noted { store: mark.store, refreshes });
        Ok(())
    }
}

fn judge(store: &GuardRecord, mark: Option<&Mark>, path: &Path) -> Result<(), String> {
    let path = path.display();
    match mark {
        None if !store.guarded => Ok(()),
        None => {
            Err(format!("the sentinel {path} is missing: this store may be a copy of one that is in use elsewhere"))
        }
        Some(mark) if mark.store != store.store_id => Err(format!("the sentinel {path} belongs to another store")),
        Some(mark) if mark.refreshes > store.refreshes => Err(format!(
            "this store is older than its sentinel {path} ({} refreshes begun, the sentinel knows of {}): it may have been restored \
             from a backup",
            store.refreshes, mark.refreshes
        )),
        Some(_) => Ok(()),
    }
}

/// Replaces the file as a whole; on the disk when it returns.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(refreshes: u64, guarded: bool) -> GuardRecord {
        GuardRecord { store_id: "s1".to_owned(), refreshes, guarded }
    }

    fn why(result: Result<(), Mistrust>) -> String {
        match result {
            Err(Mistrust::Confirm(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn sentinel(&self, instance: &str) -> Sentinel {
            Sentinel::new(self.0.path().join("sentinel"), instance.to_owned())
        }
    }

    #[test]
    fn a_new_store_gets_a_sentinel_and_goes_on_with_it_after_a_restart() {
        let place = Place::new();
        let first = place.sentinel("a");
        first.admit(&store(0, false)).expect("new");
        first.advance(1).expect("noted");
        first.advance(2).expect("noted");
        place.sentinel("b").admit(&store(2, true)).expect("as it was");
        place.sentinel("c").admit(&store(3, true)).expect("a crash between the store and the sentinel");
    }

    #[test]
    fn an_older_store_is_not_trusted_until_it_is_confirmed() {
        let place = Place::new();
        let first = place.sentinel("a");
        first.admit(&store(5, false)).expect("new");
        first.advance(9).expect("noted");
        let restored = place.sentinel("b");
        assert!(why(restored.admit(&store(5, true))).contains("older than its sentinel"));
        assert!(why(restored.advance(6)).contains("not compared"), "nothing is sent");
        assert_eq!(restored.confirm(&store(5, true)).expect("confirmed"), 10);
        restored.advance(11).expect("noted");
    }

    #[test]
    fn a_copy_without_its_sentinel_is_not_trusted() {
        assert!(why(Place::new().sentinel("a").admit(&store(5, true))).contains("is missing"));
    }

    #[test]
    fn another_stores_sentinel_is_not_ours() {
        let place = Place::new();
        place.sentinel("a").admit(&store(0, false)).expect("new");
        let other = GuardRecord { store_id: "s2".to_owned(), refreshes: 100, guarded: true };
        assert!(why(place.sentinel("b").admit(&other)).contains("another store"));
    }

    #[test]
    fn of_two_processes_the_earlier_one_stops() {
        let place = Place::new();
        let first = place.sentinel("a");
        first.admit(&store(0, false)).expect("new");
        place.sentinel("b").admit(&store(0, true)).expect("it may, as a pod that was moved");
        assert!(why(first.advance(1)).contains("another process"));
        assert!(why(first.advance(1)).contains("another process"), "and stays so");
        assert!(why(first.admit(&store(5, true))).contains("another process"), "however far its copy of the store is");
        first.confirm(&store(5, true)).expect("but for the operator");
        first.advance(7).expect("noted");
    }

    #[test]
    fn what_says_nothing_readable_can_be_confirmed_away() {
        let place = Place::new();
        fs::write(place.0.path().join("sentinel"), "{").expect("written");
        let sentinel = place.sentinel("a");
        assert!(why(sentinel.admit(&store(4, true))).contains("nothing readable"));
        assert_eq!(sentinel.confirm(&store(4, true)).expect("confirmed"), 5);
    }

    #[test]
    fn one_that_is_gone_for_a_while_is_no_verdict() {
        let place = Place::new();
        let sentinel = place.sentinel("a");
        sentinel.admit(&store(0, false)).expect("new");
        let aside = place.0.path().join("aside");
        fs::rename(place.0.path().join("sentinel"), &aside).expect("moved");
        assert!(matches!(sentinel.advance(1), Err(Mistrust::Unreachable(_))));
        fs::rename(&aside, place.0.path().join("sentinel")).expect("moved back");
        sentinel.admit(&store(1, true)).expect("as it was");
    }

    #[test]
    fn what_cannot_be_read_is_not_trusted_either() {
        let place = Place::new();
        fs::write(place.0.path().join("sentinel"), "{").expect("written");
        assert!(why(place.sentinel("a").admit(&store(0, false))).contains("nothing readable"));
        let nowhere = Sentinel::new(place.0.path().join("no/where"), "a".to_owned());
        assert!(matches!(nowhere.admit(&store(0, false)), Err(Mistrust::Unreachable(_))));
    }
}
