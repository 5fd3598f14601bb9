//! Says of a file that a process goes by it, without changing it: a lock for reading, which others can find and which nobody has to
//! respect. It is gone with its process, and does not follow the name when another file takes the place of this one.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::OFlags;

/// The file is marked as long as this is held.
pub struct FileMark {
    _file: File,
}

impl FileMark {
    /// Marks the file that is at `path` now.
    ///
    /// # Errors
    /// The file cannot be read, or its file system has no locks.
    pub fn set(path: &Path) -> io::Result<Self> {
        let file = opened(path)?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(libc::F_RDLCK)))?;
        Ok(Self { _file: file })
    }

    /// Whether anybody has marked the file that is at `path` now. Where that cannot be found out, nobody has.
    pub fn is_set(path: &Path) -> bool {
        let mut lock = whole(libc::F_WRLCK);
        let asked = opened(path).and_then(|file| Ok(fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?));
        asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
    }
}

/// A pipe is not waited for.
fn opened(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are small")]
fn whole(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_as_long_as_it_is_held_and_belongs_to_the_file() {
        let home = tempfile::tempdir().expect("a directory");
        let [path, next] = ["sidekey.toml", "next"].map(|name| home.path().join(name));
        std::fs::write(&path, "").expect("written");
        assert!(!FileMark::is_set(&path));
        let mark = FileMark::set(&path).expect("marked");
        let other = FileMark::set(&path).expect("by somebody else as well");
        assert!(FileMark::is_set(&path) && FileMark::is_set(&path), "to look changes nothing");
        drop(other);
        assert!(FileMark::is_set(&path));
        std::fs::write(&next, "").expect("written");
        std::fs::rename(&next, &path).expect("replaced");
        assert!(!FileMark::is_set(&path), "that is another file");
        let _again = FileMark::set(&path).expect("marked");
        drop(mark);
        assert!(FileMark::is_set(&path));
        assert!(FileMark::set(&next).is_err() && !FileMark::is_set(&next));
    }
}
