//! The files that a program finds its way and its trust by, in a directory that is gone when it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::CliError;
use super::variables::{ALL_CERTIFICATES, CERTIFICATES, JAVA_CERTIFICATES, PRELOAD};
use crate::authority::bundle;

/// A directory that is removed when this is dropped.
pub struct RunDirectory {
    path: PathBuf,
    user: Option<u32>,
}

impl RunDirectory {
    /// Makes one in `place`, or among temporary files, with a home and a place for temporary files where the program has a user
    /// of its own.
    pub fn make(place: Option<&Path>, user: Option<u32>) -> Result<Self, CliError> {
        let template = place.map_or_else(std::env::temp_dir, Path::to_owned).join("sidekey-run-XXXXXX");
        let path = nix::unistd::mkdtemp(&template)
            .map_err(|error| CliError::Failed(format!("cannot make {}: {error}", template.display())))?;
        let directory = Self { path, user };
        if user.is_some() {
            // Others may go through, but see nothing that is not theirs.
            directory.mode(&directory.path, 0o711)?;
            ["home", "tmp"].iter().try_for_each(|name| directory.subdirectory(name))?;
        }
        directory.subdirectory("files")?;
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
    pub fn equip(&self, certificates: &str, inherited: &dyn Fn(&str) -> Option<String>) -> Result<(), CliError> {
        equip(&self.path, certificates, &trusted_by_caller(inherited))
    }

    /// Writes a file of the recipe, for the program alone.
    pub fn write_file(&self, name: &str, content: &str) -> Result<(), CliError> {
        let path = self.files().join(name);
        fs::write(&path, content).map_err(|error| failed(&path, &error))?;
        self.give(&path, 0o600)
    }

    fn subdirectory(&self, name: &str) -> Result<(), CliError> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        self.give(&path, 0o700)
    }

    fn give(&self, path: &Path, mode: u32) -> Result<(), CliError> {
        self.mode(path, mode)?;
        match self.user {
            Some(user) => chown(path, Some(user), Some(user)).map_err(|error| failed(path, &error)),
            None => Ok(()),
        }
    }

    fn mode(&self, path: &Path, mode: u32) -> Result<(), CliError> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| failed(path, &error))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes the certificates and the preload into a directory. Nothing in them is secret. `others` are trusted besides ours
/// and those of the system.
pub fn equip(directory: &Path, certificates: &str, others: &str) -> Result<(), CliError> {
    let trusted = format!("{certificates}\n{others}");
    let all = bundle::pem_with_system_roots(&trusted).map_err(CliError::Failed)?;
    let java = bundle::java_trust_store(&trusted).map_err(CliError::Failed)?;
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

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("cannot write {}: {error}", path.display()))
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
