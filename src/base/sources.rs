//! The files that something was read from, and what was in them: so that it can be told when one of them changes.
//!
//! What was really read is remembered, by digest, and compared with what is there by and by. That holds on every kind of
//! volume, through symbolic links that are swapped (as Kubernetes does it), and for files that were missing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256};
use crate::base::files;

/// A file whose times are as recent as this is read again to be sure: a second change may have left them as they are, since
/// clocks of file systems are coarse.
const RECENT: Duration = Duration::from_secs(2);

/// Reads files, and remembers what it read.
#[derive(Debug, Default)]
pub struct Sources {
    read: Mutex<BTreeMap<PathBuf, Source>>,
}

/// What was found in one place.
#[derive(Clone, Debug)]
struct Source {
    /// When it was read.
    content: Content,
    /// When it was last looked at.
    seen: Content,
    stamp: Option<Stamp>,
    kind: Kind,
}

/// How a place is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Secret,
    Directory,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File(Digest),
    Names(BTreeSet<OsString>),
    Unreadable(String),
}

/// What the file system says of a file without its being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    file: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            file: found.ino(),
            size: found.size(),
            mode: found.mode(),
            changed: (found.ctime(), found.ctime_nsec()),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }

    /// Whether the file may have been changed once more without this telling.
    fn is_recent(&self, now: Timestamp) -> bool {
        let latest = self.changed.0.max(self.modified.0);
        Timestamp::from_millis(latest.saturating_mul(1000)).plus(RECENT) > now
    }
}

impl Sources {
    /// The content of a file, as [`files::read`] has it.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let stamp = Stamp::of(path);
        let found = files::read(path);
        self.note(path, Kind::File, stamp, &found);
        found
    }

    /// The content of a file of text.
    pub fn read_to_string(&self, path: &Path) -> io::Result<String> {
        files::text(self.read(path)?)
    }

    /// The content of a file that holds a secret, as [`files::read_secret`] has it.
    pub fn read_secret(&self, path: &Path) -> io::Result<String> {
        let stamp = Stamp::of(path);
        let found = files::read_secret(path);
        self.note(path, Kind::Secret, stamp, &found);
        found
    }

    /// What is in a directory, sorted.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let names = names(path);
        let content = names
            .as_ref()
            .map_or_else(|error| Content::Unreadable(error.to_string()), |names| Content::Names(names.clone()));
        self.lock()
            .insert(path.to_owned(), Source { seen: content.clone(), content, stamp: None, kind: Kind::Directory });
        Ok(names?.iter().map(|name| path.join(name)).collect())
    }

    fn note(&self, path: &Path, kind: Kind, stamp: Option<Stamp>, found: &io::Result<impl AsRef<[u8]>>) {
        let content = content(found);
        self.lock().insert(path.to_owned(), Source { seen: content.clone(), content, stamp, kind });
    }

    /// All that was read, by its digest: what is compared to say which files have changed.
    pub fn digests(&self) -> BTreeMap<PathBuf, Digest> {
        let digest = |(path, source): (&PathBuf, &Source)| {
            let digest = match &source.content {
                Content::File(digest) => *digest,
                Content::Names(_) => return None,
                Content::Unreadable(_) => sha256(b""),
            };
            Some((path.clone(), digest))
        };
        self.lock().iter().filter_map(digest).collect()
    }

    /// Whether any of it is other than when it was last looked at, here or by reading it. The next look compares with what
    /// is there now; what was read stays as it was for [`Self::digests`].
    pub fn have_changed(&self, now: Timestamp) -> bool {
        // Not under the lock: a volume that does not answer must not keep others from what was read.
        let mut looked_at = self.lock().clone();
        let mut changed = false;
        for (path, source) in &mut looked_at {
            changed |= source.look(path, now);
        }
        self.lock().extend(looked_at);
        changed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Source>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn look(&mut self, path: &Path, now: Timestamp) -> bool {
        let stamp = Stamp::of(path);
        let is_settled = stamp.is_some_and(|stamp| !stamp.is_recent(now));
        if self.kind != Kind::Directory && is_settled && stamp == self.stamp {
            return false;
        }
        let content = match self.kind {
            Kind::File => content(&files::read(path)),
            Kind::Secret => content(&files::read_secret(path)),
            Kind::Directory => names(path).map_or_else(|error| Content::Unreadable(error.to_string()), Content::Names),
        };
        self.stamp = stamp;
        let changed = content != self.seen;
        self.seen = content;
        changed
    }
}

fn content(found: &io::Result<impl AsRef<[u8]>>) -> Content {
    match found {
        Ok(bytes) => Content::File(sha256(bytes.as_ref())),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

fn names(path: &Path) -> io::Result<BTreeSet<OsString>> {
    std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::base::clock::{Clock, SystemClock};

    fn changed(sources: &Sources) -> bool {
        let changed = sources.have_changed(SystemClock.now());
        assert!(!sources.have_changed(SystemClock.now()), "told twice");
        changed
    }

    #[test]
    fn every_kind_of_change_is_told_once() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("written");
        write("a", "one");
        files::create_private(&at("s"), b"secret").expect("written");
        std::fs::create_dir(at("d")).expect("made");
        write("d/x", "x");
        let sources = Sources::default();
        assert_eq!(sources.read_to_string(&at("a")).expect("there"), "one");
        assert_eq!(sources.read_secret(&at("s")).expect("there"), "secret");
        assert_eq!(sources.list(&at("d")).expect("there"), [at("d/x")]);
        assert_eq!(sources.read(&at("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
        assert!(!changed(&sources));

        let read = sources.digests();
        write("a", "two");
        assert!(changed(&sources), "the same length, at the same moment");
        assert_eq!(sources.digests(), read, "what was read was read");
        write("a", "two");
        assert!(!changed(&sources), "written again, and the same");
        write("none", "");
        assert!(changed(&sources), "it was missing");
        write("d/y", "");
        assert!(changed(&sources), "another file in the directory");
        std::fs::remove_file(at("a")).expect("removed");
        assert!(changed(&sources), "gone");
        std::fs::set_permissions(at("s"), std::fs::Permissions::from_mode(0o604)).expect("opened");
        assert!(changed(&sources), "a secret that everybody may read");
    }

    #[test]
    fn a_link_that_is_swapped_is_a_change_only_of_what_is_behind_it() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "one"), ("v3", "three")] {
            std::fs::create_dir(at(version)).expect("made");
            std::fs::write(at(version).join("f"), text).expect("written");
        }
        let swap = |to: &str| {
            symlink(to, at("new")).expect("linked");
            std::fs::rename(at("new"), at("..data")).expect("swapped");
        };
        swap("v1");
        symlink("..data/f", at("f")).expect("linked");
        let sources = Sources::default();
        sources.read(&at("f")).expect("there");
        swap("v2");
        assert!(!changed(&sources));
        swap("v3");
        assert!(changed(&sources));
    }

    /// A quiet file is not read: its times say that nobody has touched it.
    #[test]
    fn what_was_left_alone_for_a_while_is_not_read() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a");
        std::fs::write(&path, "one").expect("written");
        let sources = Sources::default();
        sources.read(&path).expect("there");
        let later = SystemClock.now().plus(Duration::from_secs(60));
        // As if another content had been found: only reading would tell.
        sources.lock().get_mut(&path).expect("noted").seen = Content::File([0; 32]);
        assert!(!sources.have_changed(later));
        assert!(sources.have_changed(SystemClock.now()));
    }
}
