//! Our own files: private to their owner from the moment they exist, and refused where they are not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Creates `path` (0700) where it is missing, and refuses one that others may enter or that somebody else owns.
pub fn private_directory(path: &Path) -> io::Result<()> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(refused(path, "is not a directory", "name a directory"));
    }
    refuse_strangers(path, &metadata, "chmod 700")
}

/// Refuses a file of ours that others may read, that somebody else owns, or that is a symbolic link.
pub fn private_file(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(refused(path, "is not a regular file", "remove it"));
    }
    refuse_strangers(path, &metadata, "chmod 600")
}

fn refuse_strangers(path: &Path, metadata: &fs::Metadata, remedy: &str) -> io::Result<()> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refused(
            path,
            &format!("has mode {mode:04o}, so others may use it"),
            &format!("{remedy} {}", path.display()),
        ));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user", "run as its owner, or chown it"));
    }
    Ok(())
}

/// Writes a new file (0600); an existing one is never overwritten.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Replaces a file (0600) as a whole; on the disk when it returns.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Opens, or creates (0600), a file that is ours alone.
pub fn open_private(path: &Path) -> io::Result<File> {
    open_ours(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

/// The same for a file that is only ever appended to.
pub fn append_private(path: &Path) -> io::Result<File> {
    open_ours(path, OpenOptions::new().append(true).create(true))
}

fn open_ours(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Never through a symbolic link: it could lead anywhere.
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.mode(0o600).custom_flags(no_follow).open(path)?;
    private_file(path)?;
    Ok(file)
}

/// Reads a file that holds a secret. It may be a symbolic link and readable by its group, as Kubernetes mounts secrets,
/// but never by everybody. At most 64 KiB are taken.
pub fn read_secret(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(refused(
            path,
            &format!("has mode {mode:04o}: everybody on this machine may use it"),
            &format!("chmod 600 {}", path.display()),
        ));
    }
    let mut content = String::new();
    Read::by_ref(&mut file).take(65_536).read_to_string(&mut content)?;
    Ok(content)
}

fn refused(path: &Path, what: &str, remedy: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {what}; to mend it: {remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn makes_private_things_and_refuses_lax_ones() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("a/b");
        private_directory(&directory).expect("made");
        assert_eq!(fs::metadata(&directory).expect("there").mode() & 0o777, 0o700);
        let file = directory.join("f");
        create_private(&file, b"x").expect("made");
        private_file(&file).expect("private");
        assert_eq!(create_private(&file, b"y").expect_err("kept").kind(), io::ErrorKind::AlreadyExists);

        chmod(&file, 0o640);
        let message = private_file(&file).expect_err("lax").to_string();
        assert!(
            message
                .ends_with(&format!("has mode 0640, so others may use it; to mend it: chmod 600 {}", file.display()))
        );
        chmod(&directory, 0o755);
        assert!(private_directory(&directory).expect_err("lax").to_string().contains("chmod 700"));
    }

    #[test]
    fn a_secret_may_be_a_link_and_group_readable_but_not_world_readable() {
        let home = tempfile::tempdir().expect("a directory");
        let (file, link) = (home.path().join("f"), home.path().join("l"));
        create_private(&file, b"s").expect("made");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        chmod(&file, 0o440);
        assert_eq!(read_secret(&link).expect("readable"), "s");
        chmod(&file, 0o444);
        assert!(read_secret(&link).expect_err("lax").to_string().contains("mode 0444"));
    }
}
