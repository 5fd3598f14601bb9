//! A file that holds the keys of the store, one a line, the first of them the one that seals.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::base::files;
use crate::base::secret::Secret;
use crate::store::keyring::{KeyId, KeyRing, parse_keys};

/// The file, as it was read.
pub struct KeyFile {
    path: PathBuf,
    lines: Vec<Secret>,
    ids: Vec<KeyId>,
}

impl KeyFile {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let text = Secret::new(files::read_secret(path).map_err(failed)?);
        let keys = parse_keys(&text).map_err(|error| format!("{} {error}", path.display()))?;
        let ids = KeyRing::new(keys).map(|ring| ring.ids().collect()).unwrap_or_default();
        let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::new).collect();
        Ok(Self { path: path.to_owned(), lines, ids })
    }

    /// Keeps others from changing it, as long as what is returned lives: of two that do, one would undo the other, and a key that
    /// values are sealed with would be gone.
    pub fn hold(path: &Path) -> Result<File, String> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", directory.display());
        let held = File::open(directory).map_err(|error| failed(&error))?;
        match held.try_lock() {
            Ok(()) => Ok(held),
            Err(TryLockError::WouldBlock) => {
                Err(format!("another `sidekey keys rotate` works on {}; wait for its end", path.display()))
            }
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    /// The keys, the one that seals first.
    pub fn ids(&self) -> &[KeyId] {
        &self.ids
    }

    /// Why it cannot be replaced, if so: it is mounted, or belongs to somebody else.
    pub fn is_writable(&self) -> Result<(), String> {
        let told = |error: io::Error| format!("{} cannot be written: {error}", self.path.display());
        if self.path.symlink_metadata().map_err(told)?.is_symlink() {
            return Err(format!("{} is a link, as mounted Secrets are", self.path.display()));
        }
        let new = self.new_file().map_err(told)?;
        std::fs::remove_file(&new.0).map_err(told)
    }

    /// Puts a key before the others; on the disk when it returns.
    pub fn put_in_front(&mut self, key: Secret) -> io::Result<()> {
        self.lines.insert(0, key);
        self.write()
    }

    /// Keeps these alone; on the disk when it returns.
    pub fn keep(&mut self, is_kept: impl Fn(KeyId) -> bool) -> io::Result<()> {
        let kept = self.ids.iter().map(|id| is_kept(*id)).collect::<Vec<_>>();
        let mut answers = kept.iter();
        self.lines.retain(|_| answers.next() == Some(&true));
        self.write()
    }

    /// Replaced as a whole, so that whoever reads it meanwhile has all of the old or all of the new; with the same owner and mode,
    /// so that the same processes can read it.
    fn write(&mut self) -> io::Result<()> {
        if Self::read(&self.path).is_ok_and(|now| now.ids != self.ids) {
            return Err(io::Error::other("it was changed meanwhile; look at it, and run this again"));
        }
        let (path, mut file) = self.new_file()?;
        let text = Zeroizing::new(self.lines.iter().map(|line| format!("{}\n", line.expose())).collect::<String>());
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(path, &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        if let Ok(now) = Self::read(&self.path) {
            self.ids = now.ids;
        }
        Ok(())
    }

    fn new_file(&self) -> io::Result<(PathBuf, File)> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let path = self.path.with_file_name(name);
        let there = std::fs::metadata(&self.path)?;
        // One that a run before this one left: it is not ours to read or to trust.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let ours = file.metadata()?;
        let made = || -> io::Result<()> {
            if (ours.uid(), ours.gid()) != (there.uid(), there.gid()) {
                fchown(&file, Some(there.uid()), Some(there.gid()))?;
            }
            file.set_permissions(there.permissions())
        };
        if let Err(error) = made() {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok((path, file))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::random::SystemRandom;
    use crate::store::keyring::generate_key;

    #[test]
    fn keys_come_in_front_and_go_and_the_mode_stays() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("k");
        files::create_private(&path, format!("\n {} \n", generate_key(&SystemRandom).expose()).as_bytes())
            .expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let mut file = KeyFile::read(&path).expect("read");
        let old = file.ids()[0];
        // What a run that was killed has left is in nobody's way.
        std::fs::write(home.path().join("k.new"), "half").expect("written");
        file.is_writable().expect("it is");
        file.put_in_front(generate_key(&SystemRandom)).expect("written");
        let both = KeyFile::read(&path).expect("read");
        assert_eq!((both.ids().len(), both.ids()[1]), (2, old));
        assert_eq!(file.ids(), both.ids());
        file.keep(|id| id != old).expect("written");
        assert_eq!(KeyFile::read(&path).expect("read").ids(), &both.ids()[..1]);
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        assert!(!home.path().join("k.new").exists());
    }

    #[test]
    fn nobody_changes_what_somebody_else_changes() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("k");
        files::create_private(&path, generate_key(&SystemRandom).expose().as_bytes()).expect("made");
        let held = KeyFile::hold(&path).expect("nobody else does");
        assert!(KeyFile::hold(&path).expect_err("held").starts_with("another `sidekey keys rotate` works on "));
        drop(held);
        drop(KeyFile::hold(&path).expect("free again"));
        let (mut one, mut other) = (KeyFile::read(&path).expect("read"), KeyFile::read(&path).expect("read"));
        one.put_in_front(generate_key(&SystemRandom)).expect("written");
        let late = other.put_in_front(generate_key(&SystemRandom)).expect_err("it is not what it was");
        assert!(late.to_string().contains("was changed meanwhile"), "{late}");
        assert_eq!(KeyFile::read(&path).expect("read").ids(), one.ids());
    }

    #[test]
    fn a_mounted_secret_is_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let (target, link) = (home.path().join("..data"), home.path().join("k"));
        files::create_private(&target, generate_key(&SystemRandom).expose().as_bytes()).expect("made");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        let file = KeyFile::read(&link).expect("read");
        assert!(file.is_writable().expect_err("no").ends_with("is a link, as mounted Secrets are"));
    }
}
