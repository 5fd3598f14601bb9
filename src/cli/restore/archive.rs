//! Reading a backup: nothing of it is written before its manifest is trusted, and no more than that says.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::authority;
use crate::base::digest::Sha256;
use crate::base::files;
use crate::portal::admin::{DATABASE, FORMAT, FileOfBackup, MANIFEST, Manifest};

/// What was read.
pub struct Unpacked {
    /// What the archive says of itself.
    pub manifest: Manifest,
}

/// A manifest is short.
const LONGEST_MANIFEST: u64 = 64 * 1024;

/// Reads an archive to its end, and writes its files into a directory, if there is one. `trust` has its say on the manifest before
/// anything else is looked at. The error says what is wrong with it.
pub fn read(
    source: impl Read,
    into: Option<&Path>,
    trust: &dyn Fn(&Manifest) -> Result<(), String>,
) -> Result<Unpacked, String> {
    // Without the words of the library: they repeat what is in the file, which may be another one with secrets.
    let damaged = |error: std::io::Error| format!("it is damaged, or no backup ({})", error.kind());
    let mut archive = tar::Archive::new(source);
    let mut entries = archive.entries().map_err(damaged)?;
    let first = entries.next().ok_or("it is empty")?.map_err(damaged)?;
    if first.path().map_err(damaged)?.as_os_str() != MANIFEST {
        return Err(format!("it is no backup of Sidekey's: it does not begin with {MANIFEST}"));
    }
    let mut text = Vec::new();
    first.take(LONGEST_MANIFEST).read_to_end(&mut text).map_err(damaged)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("its manifest is damaged: {error}"))?;
    if manifest.format != FORMAT {
        return Err(format!("it has the format {:?}, and this Sidekey knows {FORMAT:?}", manifest.format));
    }
    trust(&manifest)?;
    let authority = Path::new(authority::DIRECTORY_NAME).join(authority::FILE_NAME).display().to_string();
    let mut known = [DATABASE, authority.as_str()].into_iter();
    for expected in &manifest.files {
        if !known.any(|name| name == expected.name) {
            return Err(format!("it holds {:?}, which is no file of a store", expected.name));
        }
        let entry = entries.next().ok_or_else(|| format!("it ends before {}", expected.name))?.map_err(damaged)?;
        if entry.path().map_err(damaged)?.as_os_str() != expected.name.as_str() {
            return Err(format!("it holds something else in the place of {}", expected.name));
        }
        // One byte more shows that there is more.
        let entry = entry.take(expected.size.saturating_add(1));
        let found = copy(entry, into.map(|directory| directory.join(&expected.name)).as_deref()).map_err(damaged)?;
        if found != (expected.size, expected.sha256.clone()) {
            return Err(format!("{} in it is damaged: it is not what the manifest says", expected.name));
        }
    }
    match entries.next() {
        None => Ok(Unpacked { manifest }),
        Some(_) => Err("it holds more than its manifest says".to_owned()),
    }
}

/// Size and digest of what was copied.
fn copy(mut from: impl Read, to: Option<&Path>) -> std::io::Result<(u64, String)> {
    let mut file = match to {
        Some(path) => {
            if let Some(parent) = path.parent() {
                files::private_directory(parent)?;
            }
            Some(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)
        }
        None => None,
    };
    let (mut digest, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        size += count as u64;
        if let Some(file) = &mut file {
            file.write_all(&buffer[..count])?;
        }
    }
    if let Some(file) = file {
        file.sync_all()?;
    }
    Ok((size, digest.finish_hex()))
}

/// Whether a file of a manifest is the database.
pub fn is_database(file: &FileOfBackup) -> bool {
    file.name == DATABASE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive whose database has `size` bytes by the manifest, and is longer.
    fn archive(home: &Path, size: u64) -> std::path::PathBuf {
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            sidekey: "0".to_owned(),
            schema: 1,
            taken_at: "t".to_owned(),
            store_id: "s".to_owned(),
            refreshes: 1,
            keys: Vec::new(),
            signed_by: "k".to_owned(),
            files: vec![FileOfBackup { name: DATABASE.to_owned(), size, sha256: String::new() }],
            signature: String::new(),
        };
        let path = home.join("archive.tar");
        let mut builder = tar::Builder::new(std::fs::File::create(&path).expect("made"));
        let text = serde_json::to_vec(&manifest).expect("text");
        for (name, content) in [(MANIFEST, text), (DATABASE, vec![7; 1 << 20])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice()).expect("written");
        }
        builder.finish().expect("written");
        path
    }

    #[test]
    fn nothing_is_written_of_an_archive_that_is_not_trusted() {
        let home = tempfile::tempdir().expect("a directory");
        let (archive, into) = (archive(home.path(), 1 << 20), home.path().join("unpacked"));
        let why =
            read(std::fs::File::open(&archive).expect("there"), Some(&into), &|_| Err("foreign".to_owned())).err();
        assert_eq!((why.as_deref(), into.exists()), (Some("foreign"), false));
    }

    #[test]
    fn no_more_is_written_than_the_manifest_says() {
        let home = tempfile::tempdir().expect("a directory");
        let (archive, into) = (archive(home.path(), 1000), home.path().join("unpacked"));
        let why = read(std::fs::File::open(&archive).expect("there"), Some(&into), &|_| Ok(())).err();
        assert_eq!(why.as_deref(), Some("sidekey.db in it is damaged: it is not what the manifest says"));
        assert_eq!(std::fs::metadata(into.join(DATABASE)).expect("there").len(), 1001);
    }
}
