//! `sidekey restore FILE`: a backup takes the place of what is stored.
//!
//! In this order: nobody else has the store; the backup is unpacked beside it and looked at, down to whether the keys open
//! every connection; a note says that a restore is under way, so that nobody starts on half of it; what is there moves
//! aside, what was unpacked takes its place; the mark that keeps refresh tokens from being sent is there before the
//! note is gone. Killed anywhere, it is simply run again.

pub mod archive;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;

use super::admin_client::is_served;
use super::output::{Tone, now};
use super::{CliError, CommonArguments, load, say};
use crate::authority;
use crate::base::clock::SystemClock;
use crate::base::files;
use crate::base::random::SystemRandom;
use crate::config::Settings;
use crate::portal::admin::{Manifest, PURPOSE};
use crate::store::record::field;
use crate::store::restored::{Mark, Restored};
use crate::store::seal::Sealer;
use crate::store::sqlite::{self, SqliteStore, UNDER_WAY};
use crate::store::{Store, StoreError, reseal};
use crate::telemetry::audit::{Audit, Record};

/// Arguments of `restore`.
#[derive(Args)]
pub struct Arguments {
    /// The file that `sidekey backup` wrote, `-` for standard input.
    file: PathBuf,
    #[command(flatten)]
    common: CommonArguments,
}

/// Where a backup is unpacked, in the store's directory.
const UNPACKED: &str = "sidekey.unpacked";
/// What belongs to the store and is replaced, the database first.
const REPLACED: [&str; 4] = [sqlite::FILE_NAME, "sidekey.db-wal", "sidekey.db-shm", authority::DIRECTORY_NAME];

/// Restores.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let settings = load(arguments.common.file())?;
    if is_served(&settings.admin_socket)? {
        let why = "a server runs on this store; stop it first: it would go on with what it has in memory";
        return Err(CliError::Failed(why.to_owned()));
    }
    let directory = &settings.store_directory;
    let failed = |error: io::Error| CliError::Failed(format!("{}: {error}", directory.display()));
    let store_failed = |error: StoreError| CliError::Failed(error.to_string());
    let _hold = sqlite::hold(directory).map_err(store_failed)?;
    let unpacked = directory.join(UNPACKED);
    remove(&unpacked).and_then(|()| files::private_directory(&unpacked)).map_err(failed)?;
    let looked_at = unpack(&arguments.file, &unpacked, &settings);
    let (manifest, connections) = match looked_at {
        Ok(looked_at) => looked_at,
        Err(error) => {
            remove(&unpacked).map_err(failed)?;
            return Err(error);
        }
    };
    let aside = put_in_place(directory, &unpacked, &manifest).map_err(failed)?;
    if let Ok(audit) = Audit::open(directory, Arc::new(SystemClock)) {
        let reason = Some(format!("a backup of {}", manifest.taken_at));
        audit.record(Record { reason, ..Record::new("restore", "done") });
        audit.close();
    }
    if arguments.common.json {
        let answer = json!({ "manifest": manifest, "connections": connections, "kept_aside": aside });
        say(&answer.to_string());
        return Ok(());
    }
    say(&format!("{}: {connections} connections, as of {}", Tone::Good.paint("restored"), manifest.taken_at));
    say(&format!("what was there is kept in {}", aside.display()));
    say("next: stop whatever else runs on a copy of this store, start Sidekey, and look at `sidekey status`");
    say("nothing is refreshed until `sidekey store confirm` says that this store is the right one");
    Ok(())
}

/// Unpacks a backup and looks at it; how many connections it has.
fn unpack(file: &Path, into: &Path, settings: &Settings) -> Result<(Manifest, usize), CliError> {
    let refused = |why: String| CliError::Failed(format!("{}: {why}; nothing was changed", file.display()));
    let sealer = Sealer::new(settings.keys.clone(), Arc::new(SystemRandom));
    let is_ours = |manifest: &Manifest| check_signature(manifest, &sealer);
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(file).map_err(|error| refused(format!("it cannot be read: {error}")))?),
    };
    let manifest = archive::read(source, Some(into), &is_ours).map_err(refused)?.manifest;
    if !manifest.files.iter().any(archive::is_database) {
        return Err(refused("it holds no database".to_owned()));
    }
    if manifest.schema > sqlite::SCHEMA_VERSION {
        return Err(refused(format!(
            "it was made by a newer Sidekey ({}); restore it with that one",
            manifest.sidekey
        )));
    }
    let looked_at = super::runtime(1)?.block_on(look_at(into, &sealer, &manifest, &settings.lost_keys));
    let connections = looked_at.map_err(refused)?;
    let authority = into.join(authority::DIRECTORY_NAME);
    match authority::outlook(&authority, &sealer, &settings.provider_hosts(), now()) {
        Err(authority::AuthorityError::UnknownKey(_, id)) if settings.lost_keys.contains(&id.to_string()) => {}
        outlook => drop(outlook.map_err(|error| refused(error.to_string()))?),
    }
    Ok((manifest, connections))
}

fn check_signature(manifest: &Manifest, sealer: &Sealer) -> Result<(), String> {
    let signer = sealer.keys().into_iter().find(|id| id.to_string() == manifest.signed_by);
    let signer = signer.and_then(|id| sealer.signing_key_of(id, PURPOSE)).ok_or_else(|| {
        format!(
            "it was made with the key {}, which is not in store.keys: put that key behind the first one",
            manifest.signed_by
        )
    })?;
    let signature = STANDARD.decode(&manifest.signature).unwrap_or_default();
    match signer.verify(&manifest.signed_text(), &signature) {
        true => Ok(()),
        false => Err("its manifest was changed, or is damaged: the signature does not belong to it".to_owned()),
    }
}

/// Opens the unpacked store as a server would, and all that is sealed in it.
async fn look_at(directory: &Path, sealer: &Sealer, manifest: &Manifest, given_up: &[String]) -> Result<usize, String> {
    let told = |error: StoreError| error.to_string();
    let store = SqliteStore::open(directory).map_err(told)?;
    if store.guard().await.map_err(told)?.store_id != manifest.store_id {
        return Err("its database is another one than the manifest says".to_owned());
    }
    let missing = reseal::missing_keys(&store, sealer, given_up).await.map_err(told)?;
    if let Some(used) = missing.first() {
        return Err(format!(
            "{} values in it are sealed with the key {}, which is not in store.keys: put that key behind the first one",
            used.values, used.id
        ));
    }
    let connections = store.connections(None).await.map_err(told)?;
    for record in &connections {
        let tokens =
            [(field::ACCESS_TOKEN, Some(&record.access_token)), (field::REFRESH_TOKEN, record.refresh_token.as_ref())];
        for (field, sealed) in tokens {
            let Some(sealed) = sealed else { continue };
            if sealed.key_id().is_some_and(|id| given_up.contains(&id.to_string())) {
                continue;
            }
            let opened = sealer.open(&record.seal_context(field), sealed);
            opened.map_err(|error| format!("the {field} of {} in it is {error}", record.key))?;
        }
    }
    Ok(connections.len())
}

/// Moves aside what is there, and puts what was unpacked in its place. Where a restore before this one was cut off, what it has
/// moved aside stays there.
fn put_in_place(directory: &Path, unpacked: &Path, manifest: &Manifest) -> io::Result<PathBuf> {
    let note = directory.join(UNDER_WAY);
    let aside = match std::fs::read_to_string(&note) {
        Ok(name) => directory.join(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = free_name(directory, &format!("sidekey.before-{}", now().to_string().replace(':', "")));
            files::replace_private(&note, name.as_bytes())?;
            directory.join(name)
        }
        Err(error) => return Err(error),
    };
    files::private_directory(&aside)?;
    for name in REPLACED {
        let (there, kept) = (directory.join(name), aside.join(name));
        if there.symlink_metadata().is_err() {
            continue;
        }
        if kept.symlink_metadata().is_ok() {
            // That is what was there first; this came from the restore before this one.
            remove(&there)?;
        } else {
            std::fs::rename(&there, &kept)?;
        }
    }
    sync(&aside)?;
    let restored = Restored { taken_at: manifest.taken_at.clone(), restored_at: now().to_string() };
    Mark::of(directory).leave(&restored)?;
    for name in REPLACED {
        let from = unpacked.join(name);
        if from.symlink_metadata().is_ok() {
            std::fs::rename(from, directory.join(name))?;
        }
    }
    sync(directory)?;
    std::fs::remove_file(&note)?;
    sync(directory)?;
    remove(unpacked)?;
    Ok(aside)
}

/// A name that nothing has: what an earlier restore has kept stays.
fn free_name(directory: &Path, name: &str) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| directory.join(name).symlink_metadata().is_err()).unwrap_or_else(|| name.to_owned())
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a file or a directory, where there is one.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = json!({ "format": "f", "sidekey": "0", "schema": 1, "taken_at": "t", "store_id": "s", "refreshes": 1,
            "keys": [], "signed_by": "k", "files": [], "signature": "" });
        serde_json::from_value(text).expect("a manifest")
    }

    /// Whatever it was cut off at: what was there first is aside in the end, and the backup in its place.
    #[test]
    fn cut_off_anywhere_it_is_done_by_the_next_run() {
        for cut in 0..6 {
            let home = tempfile::tempdir().expect("a directory");
            let directory = home.path();
            let write = |path: PathBuf, text: &str| {
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
                std::fs::write(path, text).expect("written");
            };
            let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
            let unpacked = directory.join(UNPACKED);
            let (database, log, authority) = ("sidekey.db", "sidekey.db-wal", "authority/authority.json");
            for name in [database, log, authority] {
                write(directory.join(name), "old");
            }
            // What a run that ended after so many steps has left.
            let aside = directory.join("sidekey.before-x");
            let steps: [&dyn Fn(); 5] = [
                &|| write(directory.join(UNDER_WAY), "sidekey.before-x"),
                &|| {
                    files::private_directory(&aside).expect("made");
                    std::fs::rename(directory.join(database), aside.join(database)).expect("moved");
                },
                &|| std::fs::rename(directory.join(log), aside.join(log)).expect("moved"),
                &|| std::fs::rename(directory.join("authority"), aside.join("authority")).expect("moved"),
                &|| write(directory.join(database), "new"),
            ];
            steps.iter().take(cut).for_each(|step| step());
            for name in [database, authority] {
                write(unpacked.join(name), "new");
            }
            let aside = put_in_place(directory, &unpacked, &manifest()).expect("done");
            for name in [database, authority] {
                assert_eq!(read(directory.join(name)), "new", "{cut} {name}");
            }
            for name in [database, log, authority] {
                assert_eq!(read(aside.join(name)), "old", "{cut} {name}");
            }
            assert!(!directory.join(log).exists() && !directory.join(UNDER_WAY).exists() && !unpacked.exists());
            assert!(Mark::of(directory).read().is_some(), "{cut}");
        }
    }

    #[test]
    fn what_an_earlier_restore_has_kept_stays() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(free_name(home.path(), "before"), "before");
        for (name, next) in [("before", "before-2"), ("before-2", "before-3")] {
            std::fs::create_dir(home.path().join(name)).expect("made");
            assert_eq!(free_name(home.path(), "before"), next);
        }
    }
}
