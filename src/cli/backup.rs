//! `sidekey backup FILE`, or `-` where there is no place for a file.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::admin_client::Admin;
use super::output::remark;
use super::restore::archive::{self, Unpacked};
use super::{CliError, ConfigArgument, say};

/// Arguments of `backup`.
#[derive(Args)]
pub struct Arguments {
    /// The file to write, `-` for standard output; one that exists is never overwritten.
    file: PathBuf,
    /// Answer in JSON: the manifest.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Writes a backup, and reads it again.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let path = &arguments.file;
    if path == Path::new("-") {
        return to_output(arguments);
    }
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", path.display()));
    if path.symlink_metadata().is_ok() {
        return Err(CliError::Failed(format!("{} exists already; nothing was written", path.display())));
    }
    let admin = Admin::open(&arguments.config.config)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Left by a backup that was cut off.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    let written = write(&admin, &mut file, &new);
    let Unpacked { manifest } = match written {
        Ok(unpacked) => unpacked,
        Err(error) => {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
    };
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    if arguments.json {
        say(&serde_json::to_string(&manifest).map_err(|error| CliError::Failed(error.to_string()))?);
        return Ok(());
    }
    say(&format!(
        "wrote {}: store {}, {} refreshes begun, as of {}",
        path.display(),
        manifest.store_id,
        manifest.refreshes,
        manifest.taken_at
    ));
    say(&format!(
        "no key is in it: keep the keys {} elsewhere, for without them it cannot be restored",
        manifest.keys.join(", ")
    ));
    Ok(())
}

/// The archive is the answer. Whoever restores it looks at it; here nothing of it is kept.
fn to_output(arguments: &Arguments) -> Result<(), CliError> {
    let mut output = std::io::stdout().lock();
    if arguments.json || output.is_terminal() {
        let why = "a backup on standard output is an archive: send it into a file, and leave out --json";
        return Err(CliError::Usage(why.to_owned()));
    }
    Admin::open(&arguments.config.config)?.fetch("/v1/backup", |piece| output.write_all(piece))?;
    output.flush().map_err(|error| CliError::Failed(format!("standard output: {error}")))?;
    remark("no key is in it: keep the keys elsewhere (`sidekey keys status`), for without them it cannot be restored");
    Ok(())
}

fn write(admin: &Admin, file: &mut File, new: &Path) -> Result<Unpacked, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("{}: {error}", new.display()));
    admin.fetch("/v1/backup", |piece| file.write_all(piece))?;
    file.sync_all().map_err(failed)?;
    // The server has signed it just now, with a key that this process need not have.
    let again = File::open(new).map_err(failed)?;
    archive::read(again, None, &|_| Ok(())).map_err(|why| CliError::Failed(format!("{}: {why}", new.display())))
}
