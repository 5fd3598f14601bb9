//! A new key in the place of an old one: everything that is kept is sealed again, value by value.
//!
//! Each value is replaced only if it is still the same, so tokens that are refreshed meanwhile are not touched; an interrupted run
//! is simply begun again. As long as it is not done, both keys are needed.

use serde::{Deserialize, Serialize};

use super::keyring::KeyId;
use super::seal::{Context, Sealed, Sealer};
use super::{Store, StoreError};

/// Where a sealed value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SealedPlace {
    /// Which of the columns that hold such values.
    pub column: usize,
    /// Which row.
    pub row: i64,
}

/// A sealed value, with all that is needed to open it and to put another one in its place.
#[derive(Clone, Debug)]
pub struct SealedValue {
    /// Where it stands.
    pub place: SealedPlace,
    /// [`Context::purpose`].
    pub purpose: &'static str,
    /// [`Context::field`].
    pub field: &'static str,
    /// [`Context::subject`].
    pub subject: String,
    /// [`Context::provider`].
    pub provider: String,
    /// [`Context::record`].
    pub record: String,
    /// [`Context::generation`].
    pub generation: u64,
    /// The value.
    pub sealed: Sealed,
}

impl SealedValue {
    fn context(&self) -> Context<'_> {
        Context {
            purpose: self.purpose,
            subject: &self.subject,
            provider: &self.provider,
            record: &self.record,
            field: self.field,
            generation: self.generation,
        }
    }
}

/// How many values are sealed by a key and still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub id: KeyId,
    /// How many.
    pub values: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed by the first key now.
    pub values: u64,
    /// Left as they are: their key is not configured, or they are damaged.
    pub unreadable: u64,
}

/// So many are looked at in one go.
const BATCH: usize = 256;

/// Seals everything by the first key that is not yet.
pub async fn reseal(store: &dyn Store, sealer: &Sealer) -> Result<Resealed, StoreError> {
    let (mut done, mut after) = (Resealed::default(), None);
    loop {
        let (batch, last) = reseal_batch(store, sealer, after).await?;
        done = Resealed { values: done.values + batch.values, unreadable: done.unreadable + batch.unreadable };
        if last.is_none() {
            return Ok(done);
        }
        after = last;
    }
}

/// The same for some of what comes after a place; the place of the last of them, or nothing once that was all.
pub async fn reseal_batch(
    store: &dyn Store,
    sealer: &Sealer,
    after: Option<SealedPlace>,
) -> Result<(Resealed, Option<SealedPlace>), StoreError> {
    let found = store.sealed_by_others(sealer.active_key(), after, BATCH).await?;
    let (mut done, last) = (Resealed::default(), found.last().map(|value| value.place));
    for value in found {
        let Ok(secret) = sealer.open(&value.context(), &value.sealed) else {
            done.unreadable += 1;
            continue;
        };
        let new = sealer.seal(&value.context(), &secret);
        // Where it is not the same anymore, whatever took its place is sealed by the first key already.
        done.values += u64::from(store.replace_sealed(value.place, value.sealed, new).await?);
    }
    Ok((done, last))
}

/// Keys that are needed and not configured, but for those that were given up.
pub async fn missing_keys(store: &dyn Store, sealer: &Sealer, given_up: &[String]) -> Result<Vec<KeyUse>, StoreError> {
    let is_missing = |used: &KeyUse| !sealer.knows(used.id) && !given_up.contains(&used.id.to_string());
    Ok(store.key_use().await?.into_iter().filter(is_missing).collect())
}
