//! What a dead process left on disk. The store is copied first, so that looking at it changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use sidekey::base::digest::sha256;
use sidekey::base::random::SystemRandom;
use sidekey::model::connection::ConnectionState;
use sidekey::store::Store;
use sidekey::store::record::{ConnectionRecord, field};
use sidekey::store::seal::{Sealed, Sealer};
use sidekey::store::sqlite::{FILE_NAME, SqliteStore};
use sidekey_simulator::oracle::{Held, Standing};

use crate::files::{Files, text};

/// Connections by provider and subject.
pub type Image = BTreeMap<(String, String), Stored>;

/// One connection, as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What the oracle asks for.
    pub held: Held,
    /// Raised by every refresh that was stored.
    pub generation: u64,
    /// When the refresh was begun that had neither succeeded nor failed, in milliseconds since 1970.
    pub refreshing_since_ms: Option<u64>,
}

/// Reads the store that nobody uses now.
pub async fn take(files: &Files) -> Result<Image, String> {
    let copy = tempfile::tempdir().map_err(text)?;
    std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o700)).map_err(text)?;
    // Without the shared-memory index, which belongs to a running process and is made again from the log.
    for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
        let original = files.store().join(&name);
        if original.exists() {
            std::fs::copy(original, copy.path().join(&name)).map_err(text)?;
        }
    }
    let store = SqliteStore::open(copy.path()).map_err(text)?;
    let sealer = Sealer::new(files.keys.clone(), Arc::new(SystemRandom));
    let records = store.connections(None).await.map_err(text)?;
    let stored = |record: &ConnectionRecord| {
        let key = (record.key.provider.to_string(), record.key.subject.to_string());
        Ok((key, stored(record, &sealer)?))
    };
    records.iter().map(stored).collect()
}

fn stored(record: &ConnectionRecord, sealer: &Sealer) -> Result<Stored, String> {
    let open = |name: &str, sealed: &Sealed| match sealer.open(&record.seal_context(name), sealed) {
        Ok(token) => Ok(hexadecimal(&sha256(token.expose().as_bytes()))),
        Err(error) => Err(format!("{name} of {} is {error}", record.key)),
    };
    let refresh_tokens = [
        (field::REFRESH_TOKEN, &record.refresh_token),
        (field::PREVIOUS_REFRESH_TOKEN, &record.previous_refresh_token),
    ];
    let refresh_tokens: Result<Vec<String>, String> =
        refresh_tokens.into_iter().filter_map(|(name, sealed)| Some(open(name, sealed.as_ref()?))).collect();
    let in_doubt_since = record.trouble.as_ref().and_then(|trouble| trouble.in_doubt_since);
    let begun = record.intent.as_ref().map(|intent| intent.started_at);
    let refreshing_since = begun.filter(|begun| in_doubt_since.is_none_or(|since| since < *begun));
    Ok(Stored {
        held: Held {
            user: record.key.subject.to_string(),
            refresh_tokens: refresh_tokens?,
            access_token: open(field::ACCESS_TOKEN, &record.access_token)?,
            standing: standing(record),
        },
        generation: record.generation,
        refreshing_since_ms: refreshing_since.and_then(|since| u64::try_from(since.as_millis()).ok()),
    })
}

fn standing(record: &ConnectionRecord) -> Standing {
    let trouble = record.trouble.as_ref().map(|trouble| trouble.last_error.clone());
    match (&record.state, &record.intent) {
        (ConnectionState::Active, None) => Standing::Active,
        (ConnectionState::Active, Some(intent)) => Standing::InDoubt {
            refresh_token: hexadecimal(&intent.refresh_token_digest),
            cause: trouble.unwrap_or_else(|| "a refresh was begun".to_owned()),
        },
        (ConnectionState::NeedsReauth { reason }, _) => Standing::GivenUp { cause: reason.clone() },
        (ConnectionState::Disconnected, _) => Standing::GivenUp { cause: "disconnected".to_owned() },
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
