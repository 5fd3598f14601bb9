//! The files that a program finds its way and its trust by, in a directory that is gone when it is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};

use super::confined::confined;
use super::own_user::OwnUser;
use super::variables::{ALL_CERTIFICATES, CERTIFICATES, JAVA_CERTIFICATES, PRELOAD};
use super::{LaunchError, removal};
use crate::authority::bundle;
use crate::base::files;

const PREFIX: &str = "sidekey-run-";
/// Locked by whoever the directory is in use by.
const OWNER: &str = "owner";
/// The program's own.
const OF_PROGRAM: [&str; 3] = ["home", "tmp", "files"];

/// A directory that is removed when this is dropped.
pub struct RunDirectory {
    path: PathBuf,
    user: Option<u32>,
    sidekey: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Makes one in `place`, or among temporary files, with a home and a place for temporary files where the program has a user
    /// of its own. What the program writes is removed by way of the Sidekey at `sidekey`.
    pub fn make(sidekey: &Path, place: Option<&Path>, user: Option<u32>) -> Result<Self, LaunchError> {
        Self::with(sidekey, place, user, user.is_some())
    }

    /// The same with a home and a place for temporary files in any case.
    pub fn with_home(sidekey: &Path, place: Option<&Path>, user: Option<u32>) -> Result<Self, LaunchError> {
        Self::with(sidekey, place, user, true)
    }

    fn with(sidekey: &Path, place: Option<&Path>, user: Option<u32>, has_home: bool) -> Result<Self, LaunchError> {
        let template = place.map_or_else(std::env::temp_dir, Path::to_owned).join(format!("{PREFIX}XXXXXX"));
        let path = nix::unistd::mkdtemp(&template)
            .map_err(|error| LaunchError::Failed(format!("cannot make {}: {error}", template.display())))?;
        let lock = lock(&path).map_err(|error| failed(&path, &error))?;
        let directory = Self { path, user, sidekey: sidekey.to_owned(), _lock: lock };
        if user.is_some() {
            // Others may go through, but see nothing that is not theirs.
            directory.mode(&directory.path, 0o711)?;
        }
        let [home, temporary, files] = OF_PROGRAM;
        if has_home {
            [home, temporary].iter().try_for_each(|name| directory.subdirectory(name))?;
        }
        directory.subdirectory(files)?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the recipe's files are.
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// Writes the certificates and the preload. Variables of the caller name more certificates.
    pub fn equip(&self, certificates: &str, inherited: &dyn Fn(&str) -> Option<String>) -> Result<(), LaunchError> {
        equip(&self.path, certificates, &trusted_by_caller(inherited))
    }

    /// Writes a file of the recipe, for the program alone.
    pub fn write_file(&self, name: &str, content: &str) -> Result<(), LaunchError> {
        let path = self.files().join(name);
        fs::write(&path, content).map_err(|error| failed(&path, &error))?;
        self.give(&path, 0o600)
    }

    fn subdirectory(&self, name: &str) -> Result<(), LaunchError> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        self.give(&path, 0o700)
    }

    fn give(&self, path: &Path, mode: u32) -> Result<(), LaunchError> {
        self.mode(path, mode)?;
        match self.user {
            Some(user) => chown(path, Some(user), Some(user)).map_err(|error| failed(path, &error)),
            None => Ok(()),
        }
    }

    fn mode(&self, path: &Path, mode: u32) -> Result<(), LaunchError> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| failed(path, &error))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        remove(&self.path, self.user, &self.sidekey);
    }
}

/// It has its name only once it is locked: nobody finds it free meanwhile.
fn lock(directory: &Path) -> io::Result<File> {
    let new = directory.join("owner.new");
    let file = files::open_private(&new)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(new, directory.join(OWNER))?;
    Ok(file)
}

/// Removes from `place` what those have left there that were killed before they could: directories that were made by this user,
/// and that nobody holds. What still runs as the user to whom one was given ends first.
pub fn remove_abandoned(place: &Path, sidekey: &Path) {
    let us = rustix::process::geteuid().as_raw();
    let entries = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == us) {
            continue;
        }
        let Ok(lock) = File::open(path.join(OWNER)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let of_program = OF_PROGRAM.iter().find_map(|name| path.join(name).symlink_metadata().ok());
        let user = of_program.map(|metadata| metadata.uid()).filter(|user| *user != us);
        if let Some(user) = user {
            OwnUser::end_abandoned(user, sidekey);
        }
        remove(&path, user, sidekey);
    }
}

fn remove(path: &Path, user: Option<u32>, sidekey: &Path) {
    if let Err(error) = empty_elsewhere(path, user, sidekey).and_then(|()| remove_rest(path)) {
        tracing::warn!(
            operation = "remove_directory",
            path = %path.display(),
            %error,
            "what a program has left cannot be removed; the next start of `sidekey serve` tries it again"
        );
    }
}

/// What the program has written is gone through by a process that has its descriptors and its user, and none of ours.
fn empty_elsewhere(path: &Path, user: Option<u32>, sidekey: &Path) -> io::Result<()> {
    let mut command = confined(sidekey);
    command.args(["--as", "remover", "--user", &user.unwrap_or_default().to_string(), "--own"]).arg(path);
    command.args(["--", "-"]).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}; {}", said.trim(), output.status)))
}

/// Removes what a program has written into the directory at `path`, as the user whose it is.
pub(super) fn empty(path: &Path) -> Result<(), String> {
    let is_ours = path.symlink_metadata().is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw());
    let emptied = |path: &Path, kept: Option<&str>| match removal::empty(path, kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    };
    match is_ours {
        // Without the lock's file it would not be known for what it is, should this be cut off.
        true => emptied(path, Some(OWNER)),
        false => OF_PROGRAM.iter().try_for_each(|name| emptied(&path.join(name), None)),
    }
}

/// What is left is ours, and flat.
fn remove_rest(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            _ if entry.file_name() == OWNER => {}
            true => fs::remove_dir(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_file(path.join(OWNER))?;
    fs::remove_dir(path)
}

/// Writes the certificates and the preload into a directory. Nothing in them is secret. `others` are trusted besides ours
/// and those of the system.
pub fn equip(directory: &Path, certificates: &str, others: &str) -> Result<(), LaunchError> {
    let trusted = format!("{certificates}\n{others}");
    let all = bundle::pem_with_system_roots(&trusted).map_err(LaunchError::Failed)?;
    let java = bundle::java_trust_store(&trusted).map_err(LaunchError::Failed)?;
    let files: [(&str, &[u8]); 4] = [
        (CERTIFICATES, certificates.as_bytes()),
        (ALL_CERTIFICATES, all.as_bytes()),
        (JAVA_CERTIFICATES, &java),
        (PRELOAD, include_bytes!("preload.cjs")),
    ];
    for (name, content) in files {
        let path = directory.join(name);
        fs::write(&path, content).map_err(|error| failed(&path, &error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// What the caller has programs trust by variables that we set anew, such as the authority of a company's own proxy. A file that
/// cannot be read or holds something else is passed over, as Node.js does it.
fn trusted_by_caller(inherited: &dyn Fn(&str) -> Option<String>) -> String {
    // `SSL_CERT_FILE` is asked for the roots of the system already.
    let named = ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().filter_map(inherited);
    let texts = named.filter_map(|path| fs::read_to_string(path).ok());
    let found = texts.filter_map(|text| bundle::certificates(&text).ok());
    found.flatten().map(|certificate| bundle::pem(&certificate)).collect()
}

fn failed(path: &Path, error: &std::io::Error) -> LaunchError {
    LaunchError::Failed(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_trusts_is_trusted_further() {
        let home = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            fs::write(home.path().join(name), text).expect("written");
            home.path().join(name).display().to_string()
        };
        let (ours, theirs) = (bundle::pem(&[0x30, 1]), bundle::pem(&[0x30, 2]));
        let node = file("node.pem", &format!("# the company's\n{theirs}"));
        let requests = file("requests.pem", "-----BEGIN CERTIFICATE-----\nno certificate");
        let inherited = |name: &str| match name {
            "NODE_EXTRA_CA_CERTS" => Some(node.clone()),
            "REQUESTS_CA_BUNDLE" => Some(requests.clone()),
            "CURL_CA_BUNDLE" => Some("/nowhere".to_owned()),
            _ => None,
        };
        equip(home.path(), &ours, &trusted_by_caller(&inherited)).unwrap_or_else(|_| panic!("written"));
        let all = fs::read_to_string(home.path().join(ALL_CERTIFICATES)).expect("written");
        assert!(all.starts_with(&format!("{ours}{theirs}")), "{all}");
        assert_eq!(fs::read_to_string(home.path().join(CERTIFICATES)).expect("written"), ours);
    }
}
