//! The sentinel: a small file outside the data directory that knows how far the store has come.
//!
//! A store that is restored from a backup, or copied to a second machine, looks sound and holds refresh tokens that were used
//! since: sending one of them may end the grant it belongs to. So each refresh is counted, in the store first and then
//! here, before the provider is asked, and both know the process that did it last. A store that has counted less than its
//! sentinel is an old one; one that another process than the sentinel's has used last, or whose sentinel is missing, is a copy.
//! A process that finds another one's mark here was replaced by it.
//!
//! A process takes its place in three steps, each durable: the store learns who is about to, the sentinel is written, the store
//! learns that it is so. Cut off anywhere, the next one finds the mark of one that the store knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::record::GuardRecord;
use crate::base::files;

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

    /// Who writes it now.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether the store is the one that the sentinel knows, as it was last. A store that never had a sentinel gets one.
    pub fn examine(&self, store: &GuardRecord) -> Result<(), Mistrust> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = self.read()?;
        if noted.is_some() && mark.as_ref().is_some_and(|mark| mark.instance != self.instance) {
            return Err(Mistrust::Confirm(self.replaced()));
        }
        judge(store, mark.as_ref(), &self.path).map_err(Mistrust::Confirm)
    }

    /// From what count the store goes on if the operator says that it is the right one: more than anybody has counted.
    pub fn next_count(&self, store: &GuardRecord) -> Result<u64, Mistrust> {
        let known = match self.read() {
            Err(Mistrust::Confirm(_)) => None, // it says nothing readable, and what it said is not asked for
            known => known?,
        };
        let known = known.filter(|mark| mark.store == store.store_id).map_or(0, |mark| mark.refreshes);
        Ok(known.max(store.refreshes).saturating_add(1))
    }

    /// Takes its place: from here on every other process is one that was replaced.
    pub fn take_over(&self, store_id: &str, refreshes: u64) -> Result<(), Mistrust> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut noted, store_id, refreshes)
    }

    /// Notes that so many refreshes were begun. Only then may a refresh token be sent.
    pub fn advance(&self, refreshes: u64) -> Result<(), Mistrust> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Noted { store, refreshes: so_far }) = noted.as_ref() else {
            return Err(Mistrust::Confirm("the store was not compared with its sentinel yet".to_owned()));
        };
        let (store, so_far) = (store.clone(), *so_far);
        match self.read()? {
            None => return Err(self.unreachable(&io::Error::new(io::ErrorKind::NotFound, "it is gone"))),
            Some(mark) if mark.instance != self.instance => return Err(Mistrust::Confirm(self.replaced())),
            Some(_) => {}
        }
        if so_far >= refreshes {
            return Ok(());
        }
        self.write(&mut noted, &store, refreshes)
    }

    fn unreachable(&self, error: &io::Error) -> Mistrust {
        Mistrust::Unreachable(io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
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
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn write(&self, noted: &mut Option<Noted>, store: &str, refreshes: u64) -> Result<(), Mistrust> {
        let mark = Mark { store: store.to_owned(), refreshes, instance: self.instance.clone() };
        files::replace_private(&self.path, &serde_json::to_vec(&mark).expect("texts and a number serialize"))
            .map_err(|error| self.unreachable(&error))?;
        *noted = Some(Noted { store: mark.store, refreshes });
        Ok(())
    }
}

fn judge(store: &GuardRecord, mark: Option<&Mark>, path: &Path) -> Result<(), String> {
    let path = path.display();
    let knows =
        |instance: &String| store.instance.as_ref() == Some(instance) || store.successor.as_ref() == Some(instance);
    match mark {
        // A successor that was announced and did not get as far as the sentinel is none.
        None if store.instance.is_none() => Ok(()),
        None => {
            Err(format!("the sentinel {path} is missing: this store may be a copy of one that is in use elsewhere"))
        }
        Some(mark) if mark.store != store.store_id => Err(format!("the sentinel {path} belongs to another store")),
        Some(mark) if mark.refreshes > store.refreshes => Err(format!(
            "this store is older than its sentinel {path} ({} refreshes begun, the sentinel knows of {}): it may have been restored \
             from a backup",
            store.refreshes, mark.refreshes
        )),
        Some(mark) if !knows(&mark.instance) => Err(format!(
            "the sentinel {path} was last written by a process that did not use this store: it may be a copy, or restored from a \
             backup"
        )),
        Some(_) => Ok(()),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store, and the steps by which a process takes its place.
    #[derive(Clone)]
    struct Store(GuardRecord);

    impl Store {
        fn new() -> Self {
            Self(GuardRecord { store_id: "s1".to_owned(), refreshes: 0, instance: None, successor: None })
        }

        fn admit(&mut self, sentinel: &Sentinel) -> Result<(), Mistrust> {
            sentinel.examine(&self.0)?;
            self.0.successor = Some(sentinel.instance().to_owned());
            self.take_over(sentinel)
        }

        fn confirm(&mut self, sentinel: &Sentinel) -> Result<(), Mistrust> {
            self.0.refreshes = sentinel.next_count(&self.0)?;
            self.0.successor = Some(sentinel.instance().to_owned());
            self.take_over(sentinel)
        }

        fn take_over(&mut self, sentinel: &Sentinel) -> Result<(), Mistrust> {
            sentinel.take_over(&self.0.store_id, self.0.refreshes)?;
            self.0.instance = self.0.successor.take();
            Ok(())
        }

        fn refresh(&mut self, sentinel: &Sentinel) -> Result<(), Mistrust> {
            self.0.refreshes += 1;
            sentinel.advance(self.0.refreshes)
        }
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

        fn path(&self) -> PathBuf {
            self.0.path().join("sentinel")
        }

        fn sentinel(&self, instance: &str) -> Sentinel {
            Sentinel::new(self.path(), instance.to_owned())
        }
    }

    #[test]
    fn a_new_store_gets_a_sentinel_and_goes_on_with_it_after_a_restart() {
        let (place, mut store) = (Place::new(), Store::new());
        let first = place.sentinel("a");
        store.admit(&first).expect("new");
        store.refresh(&first).expect("noted");
        store.refresh(&first).expect("noted");
        store.admit(&place.sentinel("b")).expect("as it was");
        // A crash between the store and the sentinel.
        store.0.refreshes += 1;
        store.admit(&place.sentinel("c")).expect("a little ahead");
    }

    #[test]
    fn a_start_that_is_cut_off_anywhere_is_no_reason_for_mistrust() {
        let (place, mut store) = (Place::new(), Store::new());
        store.0.successor = Some("x".to_owned());
        store.admit(&place.sentinel("a")).expect("it was announced and never written");
        store.0.successor = Some("b".to_owned());
        store.admit(&place.sentinel("c")).expect("announced, not yet in the sentinel");
        store.0.successor = Some("d".to_owned());
        place.sentinel("d").take_over("s1", 0).expect("written");
        store.admit(&place.sentinel("e")).expect("in the sentinel, not yet in the store");
    }

    #[test]
    fn an_older_store_is_not_trusted_until_it_is_confirmed() {
        let (place, mut store) = (Place::new(), Store::new());
        let first = place.sentinel("a");
        store.admit(&first).expect("new");
        let mut backup = store.clone();
        store.refresh(&first).expect("noted");
        let restored = place.sentinel("b");
        assert!(why(backup.admit(&restored)).contains("older than its sentinel"));
        assert!(why(backup.refresh(&restored)).contains("not compared"), "nothing is sent");
        backup.confirm(&restored).expect("confirmed");
        backup.refresh(&restored).expect("noted");
        assert!(why(store.refresh(&first)).contains("another process"), "the other one is replaced");
    }

    /// It was refused, and has counted that: its count alone is as good as the other one's.
    #[test]
    fn a_copy_that_was_replaced_is_not_trusted_after_a_restart_either() {
        let (place, mut store) = (Place::new(), Store::new());
        store.admit(&place.sentinel("a")).expect("new");
        let mut copy = store.clone();
        let (first, second) = (place.sentinel("b"), place.sentinel("c"));
        store.admit(&first).expect("as it was");
        assert!(why(copy.admit(&second)).contains("did not use this store"));
        copy.confirm(&second).expect("the operator says so");
        copy.refresh(&second).expect("noted");
        for _ in 0..10 {
            assert!(why(store.refresh(&first)).contains("another process"));
        }
        assert!(
            why(store.admit(&place.sentinel("d"))).contains("did not use this store"),
            "however much it has counted"
        );
    }

    /// Machine 1 has gone on; the sentinel of machine 2 is that of an earlier stay.
    #[test]
    fn a_copy_beside_an_old_sentinel_of_the_same_store_is_not_trusted() {
        let (one, two, mut store) = (Place::new(), Place::new(), Store::new());
        store.admit(&one.sentinel("a")).expect("new");
        store.confirm(&two.sentinel("b")).expect("moved on purpose");
        store.confirm(&one.sentinel("c")).expect("and back");
        store.0.refreshes += 100;
        let mut copy = store.clone();
        assert!(why(copy.admit(&two.sentinel("d"))).contains("did not use this store"));
    }

    #[test]
    fn a_copy_without_its_sentinel_is_not_trusted() {
        let mut store = Store::new();
        store.admit(&Place::new().sentinel("a")).expect("new");
        assert!(why(store.admit(&Place::new().sentinel("b"))).contains("is missing"));
    }

    #[test]
    fn another_stores_sentinel_is_not_ours() {
        let (place, mut store) = (Place::new(), Store::new());
        store.admit(&place.sentinel("a")).expect("new");
        let mut other = Store(GuardRecord { store_id: "s2".to_owned(), refreshes: 100, ..store.0 });
        assert!(why(other.admit(&place.sentinel("b"))).contains("another store"));
    }

    #[test]
    fn what_says_nothing_readable_can_be_confirmed_away() {
        let (place, mut store) = (Place::new(), Store::new());
        fs::write(place.path(), "{").expect("written");
        let sentinel = place.sentinel("a");
        assert!(why(store.admit(&sentinel)).contains("nothing readable"));
        store.confirm(&sentinel).expect("confirmed");
        store.refresh(&sentinel).expect("noted");
    }

    #[test]
    fn one_that_is_gone_for_a_while_is_no_verdict() {
        let (place, mut store) = (Place::new(), Store::new());
        let sentinel = place.sentinel("a");
        store.admit(&sentinel).expect("new");
        let aside = place.0.path().join("aside");
        fs::rename(place.path(), &aside).expect("moved");
        let Err(Mistrust::Unreachable(error)) = store.refresh(&sentinel) else { panic!("it is gone") };
        assert!(error.to_string().starts_with(&place.path().display().to_string()), "{error}");
        fs::rename(&aside, place.path()).expect("moved back");
        store.admit(&sentinel).expect("as it was");
        store.refresh(&sentinel).expect("noted");
        let nowhere = Sentinel::new(place.0.path().join("no/where"), "a".to_owned());
        assert!(matches!(Store::new().admit(&nowhere), Err(Mistrust::Unreachable(_))));
    }
}
