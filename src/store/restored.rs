//! The mark that a restore leaves in the store's directory: what is there is older than what the providers know, so no refresh
//! token is sent from it until its operator has said that it is the right one. It works without a sentinel, too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::files;

/// The name of the file in the store's directory.
pub const FILE_NAME: &str = "sidekey.restored";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Restored {
    /// When the backup was made, in RFC 3339.
    pub taken_at: String,
    /// When it was restored.
    pub restored_at: String,
}

/// The mark of one store.
#[derive(Clone, Debug)]
pub struct Mark(PathBuf);

impl Mark {
    /// That of the store in `directory`.
    pub fn of(directory: &Path) -> Self {
        Self(directory.join(FILE_NAME))
    }

    /// Why the store is not to be trusted, if so. A mark that says nothing readable is one, too.
    pub fn read(&self) -> Option<String> {
        let said = match std::fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            said => said.ok().and_then(|text| serde_json::from_slice::<Restored>(&text).ok()),
        };
        Some(match said {
            Some(Restored { taken_at, restored_at }) => {
                format!("this store was restored at {restored_at} from a backup of {taken_at}")
            }
            None => "this store was restored from a backup".to_owned(),
        })
    }

    /// Leaves it; on the disk when it returns.
    pub fn leave(&self, restored: &Restored) -> io::Result<()> {
        files::replace_private(&self.0, &serde_json::to_vec(restored).map_err(io::Error::other)?)
    }

    /// Takes it away, where there is one.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(self.0.parent().unwrap_or(Path::new(".")))?.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_it_is_taken_away() {
        let home = tempfile::tempdir().expect("a directory");
        let mark = Mark::of(home.path());
        assert_eq!(mark.read(), None);
        let restored = Restored { taken_at: "a".to_owned(), restored_at: "b".to_owned() };
        mark.leave(&restored).expect("left");
        assert_eq!(mark.read().as_deref(), Some("this store was restored at b from a backup of a"));
        std::fs::write(home.path().join(FILE_NAME), "{").expect("written");
        assert_eq!(mark.read().as_deref(), Some("this store was restored from a backup"), "as good as any");
        mark.remove().expect("removed");
        mark.remove().expect("nothing to remove");
        assert_eq!(mark.read(), None);
    }
}
