//! Removes what a program has written. It may have nested directories as deep as it liked: here depth costs neither descriptors
//! nor stack, for whatever lies deeper is moved up first.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes everything in a directory but the file `kept`. What is in the way of it does not keep the rest; the error is
/// about one of those.
pub fn empty(directory: &Path, kept: Option<&str>) -> io::Result<()> {
    // Its owner may have closed it to itself.
    chmodat(CWD, directory, Mode::RWXU, AtFlags::empty())?;
    let top = openat(CWD, directory, OPENED, Mode::empty())?;
    Emptying { top: top.as_fd(), next_name: 0, has_progressed: false }.run(kept.unwrap_or_default().as_bytes())
}

const OPENED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Emptying<'a> {
    top: BorrowedFd<'a>,
    next_name: u64,
    has_progressed: bool,
}

impl Emptying<'_> {
    /// Goes through the top again and again: what was moved there meanwhile may or may not be seen at once.
    fn run(mut self, kept: &[u8]) -> io::Result<()> {
        loop {
            self.has_progressed = false;
            let mut failed = None;
            for entry in Dir::read_from(self.top)? {
                let entry = entry?;
                let name = entry.file_name();
                if is_itself(name) || name.to_bytes() == kept {
                    continue;
                }
                failed = self.remove(name).err().or(failed);
            }
            match failed {
                _ if self.has_progressed => {}
                Some(error) => return Err(error.into()),
                None => return Ok(()),
            }
        }
    }

    /// Removes one thing at the top; directories that are in it come to the top.
    fn remove(&mut self, name: &CStr) -> rustix::io::Result<()> {
        match unlinkat(self.top, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            removed => return self.note(removed),
        }
        chmodat(self.top, name, Mode::RWXU, AtFlags::empty())?;
        let directory = openat(self.top, name, OPENED, Mode::empty())?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if is_itself(entry.file_name()) {
                continue;
            }
            let removed = match unlinkat(&directory, entry.file_name(), AtFlags::empty()) {
                Err(Errno::ISDIR) => self.raise(&directory, entry.file_name()),
                removed => removed,
            };
            self.note(removed)?;
        }
        let removed = unlinkat(self.top, name, AtFlags::REMOVEDIR);
        self.note(removed)
    }

    /// Moves a directory to the top, under a name that nothing has there.
    fn raise(&mut self, from: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        // To move it is to write to it: it learns of another parent.
        chmodat(from, name, Mode::RWXU, AtFlags::empty())?;
        loop {
            let free = self.next_name.to_string();
            self.next_name += 1;
            match renameat(from, name, self.top, free) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                moved => return moved,
            }
        }
    }

    fn note(&mut self, done: rustix::io::Result<()>) -> rustix::io::Result<()> {
        self.has_progressed |= done.is_ok();
        done
    }
}

fn is_itself(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn everything_goes_but_what_is_kept_and_what_links_lead_to() {
        let home = tempfile::tempdir().expect("a directory");
        let (top, outside) = (home.path().join("top"), home.path().join("outside"));
        for path in [top.join("a/b/c/d"), top.join("0/1"), top.join("1/1/0"), top.join("owner/owner"), outside.clone()]
        {
            fs::create_dir_all(path).expect("made");
        }
        for path in [top.join("a/b/file"), top.join("2"), outside.join("file"), top.join("kept")] {
            fs::write(path, "x").expect("written");
        }
        symlink(&outside, top.join("a/link")).expect("linked");
        symlink("nowhere", top.join("dangling")).expect("linked");
        for closed in [top.join("a/b"), top.clone()] {
            fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).expect("closed");
        }
        empty(&top, Some("kept")).expect("emptied");
        let left: Vec<_> =
            fs::read_dir(&top).expect("there").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert!(outside.join("file").exists());
    }

    #[test]
    fn what_is_not_there_is_said() {
        let home = tempfile::tempdir().expect("a directory");
        let error = empty(&home.path().join("nothing"), None).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
