//! `sidekey keys rotate`: a new key in the place of the one that seals.
//!
//! The file of the keys says how far it has come, so it can be cut off anywhere and run again: with one key in it a new
//! one is put in front; with several, a rotation was begun, and is brought to its end. Then the running server takes the keys
//! as they are in the file, everything is sealed by the first of them, and those that nothing needs anymore leave the file.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use super::key_file::KeyFile;
use super::{Resealed, reseal_all};
use crate::base::random::SystemRandom;
use crate::cli::admin_client::Admin;
use crate::cli::output::{Tone, remark, text};
use crate::cli::{CliError, CommonArguments, load, say};
use crate::config::secret_ref::SecretRef;
use crate::store::keyring::{KeyId, generate_key};

/// Rotates, or goes on with a rotation.
pub fn run(arguments: &CommonArguments) -> Result<(), CliError> {
    let config = &arguments.config.config;
    let sources = load(config)?.key_sources;
    let path = match sources.all().first() {
        Some(SecretRef::File(path)) => path.clone(),
        Some(SecretRef::Env(name)) => return Err(by_hand(&format!("store.keys[0] is the variable {name}"), None)),
        None => return Err(CliError::Failed("store.keys is empty".to_owned())),
    };
    let step = |what: &str| {
        if !arguments.json {
            remark(what);
        }
    };
    let _held = KeyFile::hold(&path).map_err(CliError::Failed)?;
    let mut file = KeyFile::read(&path).map_err(CliError::Failed)?;
    let admin = Admin::open(config)?;
    let is_resumed = file.ids().len() > 1;
    if is_resumed {
        step(&format!(
            "{} holds {} keys: a rotation was begun, and is brought to its end",
            path.display(),
            file.ids().len()
        ));
    } else {
        file.is_writable().map_err(|why| by_hand(&why, Some(&path)))?;
        // Nothing is begun where it could not be brought to its end.
        let keys = admin.ask(Method::GET, "/v1/keys", None::<&()>)?;
        are_the_same(&keys, &file)?;
        are_enough(&keys)?;
        file.put_in_front(generate_key(&SystemRandom)).map_err(|error| written(&path, &error))?;
        step(&format!("{} has a new first key, {}", path.display(), file.ids()[0]));
    }
    take(&admin, &file)?;
    let (resealed, keys) = reseal_until_done(&admin)?;
    step(&format!("{resealed} values are sealed by it"));
    let first = file.ids()[0];
    let is_needed = |id: KeyId| {
        keys.as_array().into_iter().flatten().any(|key| text(key, "id") == id.to_string() && key["values"] != 0)
    };
    let former: Vec<KeyId> = file.ids().iter().copied().filter(|id| *id != first && !is_needed(*id)).collect();
    let names: Vec<String> = former.iter().map(KeyId::to_string).collect();
    let writable = file.is_writable();
    if writable.is_ok() && !former.is_empty() {
        file.keep(|id| !former.contains(&id)).map_err(|error| written(&path, &error))?;
        take(&admin, &file)?;
    }
    let is_removed = writable.is_ok();
    if arguments.json {
        say(&json!({ "file": path, "key": first.to_string(), "resumed": is_resumed, "resealed": resealed,
            "removed": if is_removed { &names[..] } else { &[] }, "remove_by_hand": if is_removed { &[] } else { &names[..] } })
        .to_string());
        return Ok(());
    }
    say(&format!("{}: everything is sealed by {first}", Tone::Good.paint("rotated")));
    if is_removed && !names.is_empty() {
        say(&format!(
            "removed from {}: {}; backups made with it need it to be restored",
            path.display(),
            names.join(", ")
        ));
    } else if let (Err(why), false) = (writable, names.is_empty()) {
        say(&format!("{why}: remove all lines but the first from it by hand ({} needed no more)", names.join(", ")));
    }
    for further in keys.as_array().into_iter().flatten().filter(|key| key["role"] == "opens" && key["values"] == 0) {
        let id = text(further, "id");
        if !names.contains(&id) {
            say(&format!("{id} is needed no more, and may be removed from store.keys"));
        }
    }
    Ok(())
}

/// Has whoever seals use the keys as they are in the file. What needs a former one for some minutes more, a sign-in under way, still
/// finds it in the server's memory.
fn take(admin: &Admin, file: &KeyFile) -> Result<(), CliError> {
    are_the_same(&admin.ask(Method::POST, "/v1/keys/reload", None::<&()>)?, file)
}

/// What another key has sealed cannot be sealed anew.
fn are_enough(keys: &Value) -> Result<(), CliError> {
    let missing = keys.as_array().into_iter().flatten().find(|key| key["role"] == "missing");
    missing.map_or(Ok(()), |key| {
        Err(CliError::Failed(format!(
            "{} values are sealed with {}, which is not in store.keys: put that key back, or give it up in store.lost_keys",
            key["values"],
            text(key, "id")
        )))
    })
}

fn are_the_same(keys: &Value, file: &KeyFile) -> Result<(), CliError> {
    let seals = text(&keys[0], "id");
    if seals != file.ids()[0].to_string() {
        let why = format!("the server that runs seals with {seals}, and the file begins with {}", file.ids()[0]);
        return Err(CliError::Failed(format!("{why}: does it have the same configuration?")));
    }
    Ok(())
}

/// A value that was on its way to the disk may still be sealed by a former key: everything is looked at again until that is so no
/// more.
fn reseal_until_done(admin: &Admin) -> Result<(u64, Value), CliError> {
    let mut total = 0;
    loop {
        let Resealed { resealed, unreadable } = reseal_all(admin)?;
        total += resealed;
        let keys = admin.ask(Method::GET, "/v1/keys", None::<&()>)?;
        let others = keys.as_array().into_iter().flatten().skip(1);
        let is_left = others.filter(|key| key["role"] == "opens").any(|key| key["values"] != 0);
        if !is_left {
            return Ok((total, keys));
        }
        if resealed == 0 {
            return Err(CliError::Failed(format!(
                "{unreadable} values do not open with any key, though one of them has sealed them; all keys stay in the file. \
                 `sidekey status` shows whose they are; once they are connected again, run this again"
            )));
        }
    }
}

fn written(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("{} cannot be written: {error}", path.display()))
}

/// What is left to the operator, where the file is not ours to write.
fn by_hand(why: &str, path: Option<&Path>) -> CliError {
    let place = path.map_or_else(|| "it".to_owned(), |path| path.display().to_string());
    CliError::Failed(format!(
        "{why}, so it is changed by hand:\n\
         \x20 1. make a key: sidekey keys generate\n\
         \x20 2. put it before the one that is there, one key a line, and wait until {place} holds both\n\
         \x20 3. run `sidekey keys rotate` again: the server takes both, and everything is sealed by the first{}\n\
         \x20 4. remove the other line once it says that nothing needs it",
        if path.is_none() { " (restart the server before: it does not see variables change)" } else { "" }
    ))
}
