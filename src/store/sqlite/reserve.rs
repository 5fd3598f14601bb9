//! Space that is set aside: a provider that was asked for new tokens has burnt the old ones, so the new ones must find
//! room even on a disk that has filled up meanwhile.
//!
//! It is a file of its own rather than room in the database or its log, since it can be given back to the file system
//! with one call, whatever SQLite needs it for. On file systems that compress, zeros take no room; there it helps little,
//! and tokens that find none wait in memory.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::base::files;

/// The name of the file in the store's directory.
pub const FILE_NAME: &str = "sidekey.reserve";
/// Room for the results of about sixty refreshes that are under way at the same time.
const SIZE: u64 = 1024 * 1024;
const CHUNK: [u8; 16 * 1024] = [0; 16 * 1024];

/// The space.
pub struct Reserve {
    file: File,
    is_whole: bool,
}

impl Reserve {
    /// Opens the file; it may have to be filled.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: files::open_private(&directory.join(FILE_NAME))?, is_whole: false })
    }

    /// Sets aside what is missing. What fits is kept even if not everything does.
    pub fn fill(&mut self) -> io::Result<()> {
        if self.is_whole {
            return Ok(());
        }
        let mut size = self.file.seek(SeekFrom::End(0))?;
        while size < SIZE {
            self.file.write_all(&CHUNK)?;
            size += CHUNK.len() as u64;
        }
        self.file.sync_data()?;
        self.is_whole = true;
        Ok(())
    }

    /// Gives the space back to the file system.
    pub fn release(&mut self) -> io::Result<()> {
        self.is_whole = false;
        self.file.set_len(0)?;
        // Some file systems let freed blocks be used again only then.
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_set_aside_again() {
        let home = tempfile::tempdir().expect("a directory");
        let size = || std::fs::metadata(home.path().join(FILE_NAME)).expect("there").len();
        let mut reserve = Reserve::open(home.path()).expect("opened");
        reserve.fill().expect("filled");
        assert_eq!(size(), SIZE);
        reserve.release().expect("released");
        assert_eq!(size(), 0);
        reserve.fill().expect("filled again");
        assert_eq!(size(), SIZE);
        drop(reserve);
        Reserve::open(home.path()).expect("opened again").fill().expect("it is whole already");
        assert_eq!(size(), SIZE);
    }
}
