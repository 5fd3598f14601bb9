//! Our own files: private to their owner from the moment they exist, and refused where they are not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Creates `path` (0700) where it is missing, and refuses one that others may enter or that somebody else owns.
pub fn private_directory(path: &Path) -> io::Result<()> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| about(path, &error))?;
    }
    let metadata = fs::metadata(path).map_err(|error| about(path, &error))?;
    if !metadata.is_dir() {
        return Err(refused(path, "is not a directory", "name a directory"));
    }
    refuse_strangers(path, &metadata, "chmod 700")
}

/// Refuses a file of ours that others may read, that somebody else owns, or that is a symbolic link.
pub fn private_file(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| about(path, &error))?;
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
    let file = options.mode(0o600).custom_flags(no_follow).open(path).map_err(|error| about(path, &error))?;
    private_file(path)?;
    Ok(file)
}

/// No file that somebody wrote for us is larger: a configuration, a provider file, a certificate.
const LARGEST: u64 = 4 << 20;
/// No secret is.
const LARGEST_SECRET: u64 = 64 << 10;

/// Reads a file that somebody wrote for us. Only regular ones are read, and no more of them than 4 MiB: a pipe would keep us
/// waiting for ever, and a device may have no end.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    content(open_regular(path)?, LARGEST)
}

/// The same for a file of text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    text(read(path)?)
}

/// Reads a file that holds a secret. It may be a symbolic link and readable by its group, as Kubernetes mounts secrets,
/// but never by everybody. It is a regular file of at most 64 KiB.
pub fn read_secret(path: &Path) -> io::Result<String> {
    let file = open_regular(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(refused(
            path,
            &format!("has mode {mode:04o}: everybody on this machine may use it"),
            &format!("chmod 600 {}", path.display()),
        ));
    }
    text(content(file, LARGEST_SECRET)?)
}

/// Never waits for who would write into a pipe, and never makes a terminal ours.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a named pipe",
        _ => "a device",
    };
    let message = format!("it is {what}, and only regular files are read; put one in its place, or remove it");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn content(file: File, largest: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(largest + 1).read_to_end(&mut content)?;
    if content.len() as u64 > largest {
        let message = format!("it is larger than {} KiB, and no more is read; make it smaller", largest >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// The text that was read.
pub fn text(content: Vec<u8>) -> io::Result<String> {
    let odd = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    String::from_utf8(content).map_err(odd)
}

/// What the operating system says, with the file that it is about.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
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
    fn what_cannot_be_opened_is_named() {
        let home = tempfile::tempdir().expect("a directory");
        let (file, below) = (home.path().join("f"), home.path().join("f/b"));
        create_private(&file, b"x").expect("made");
        let named = |error: io::Error, path: &Path| {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        };
        named(private_directory(&below).expect_err("a file is above it"), &below);
        named(private_file(&below).expect_err("a file is above it"), &below);
        named(open_private(&below).expect_err("a file is above it"), &below);
        named(append_private(home.path()).expect_err("a directory"), home.path());
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

    #[test]
    fn only_regular_files_are_read_and_no_more_of_them_than_is_said() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("made");
        std::os::unix::fs::symlink("/dev/zero", at("zero")).expect("linked");
        create_private(&at("most"), &[b'x'; 4 << 20]).expect("made");
        create_private(&at("more"), &[b'x'; (4 << 20) + 1]).expect("made");
        create_private(&at("secret"), &[b'x'; 64 << 10]).expect("made");
        create_private(&at("long"), &[b'x'; (64 << 10) + 1]).expect("made");
        let only = "and only regular files are read; put one in its place, or remove it";
        for (name, what) in [("pipe", "a named pipe"), ("zero", "a device"), (".", "a directory")] {
            let expected = format!("it is {what}, {only}");
            assert_eq!(read(&at(name)).expect_err(name).to_string(), expected);
            assert_eq!(read_to_string(&at(name)).expect_err(name).to_string(), expected);
            assert_eq!(read_secret(&at(name)).expect_err(name).to_string(), expected);
        }
        let too_large = |limit| format!("it is larger than {limit} KiB, and no more is read; make it smaller");
        assert_eq!(read(&at("most")).expect("as large as allowed").len(), 4 << 20);
        assert_eq!(read(&at("more")).expect_err("too large").to_string(), too_large(4096));
        assert_eq!(read_secret(&at("secret")).expect("as large as allowed").len(), 64 << 10);
        assert_eq!(read_secret(&at("long")).expect_err("too large").to_string(), too_large(64));
    }
}
