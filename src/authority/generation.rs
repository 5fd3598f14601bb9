//! One authority after the other: what each may stand for, when one takes another's place, and until when both are used.
//!
//! Clients hold a bundle of roots that they were given once. As long as an authority that was replaced is still used for
//! what it may stand for, a client with an older bundle misses nothing but what is new; afterwards the key is destroyed.

use std::collections::BTreeSet;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::issue::{self, Made, PrivateKey};
use super::names;
use crate::base::clock::Timestamp;
use crate::base::random::{self, Random};

/// How long an authority that was replaced is used beside the new one.
pub const OVERLAP: Duration = Duration::from_hours(30 * 24);
/// So long before its end an authority is replaced.
const RENEWED_AHEAD: Duration = Duration::from_hours(90 * 24);
/// More of them are not kept; the oldest goes early.
const KEPT: usize = 8;

/// An authority: a root, and an intermediate that signs leaves.
pub struct Generation {
    /// Its name.
    pub id: String,
    /// What it may stand for, as patterns.
    pub hosts: BTreeSet<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When its certificates end.
    pub not_after: Timestamp,
    /// When another one took its place.
    pub replaced_at: Option<Timestamp>,
    /// What clients trust.
    pub root: CertificateDer<'static>,
    /// Sent with each leaf.
    pub intermediate: CertificateDer<'static>,
    /// The key of the intermediate.
    pub key: PrivateKey,
}

impl Generation {
    /// A new one for these hosts.
    pub fn make(hosts: &BTreeSet<String>, now: Timestamp, random: &dyn Random) -> Result<Self, String> {
        let id = random::identifier(random, "a_");
        let Made { root, intermediate, key, not_after } = issue::authority(&id, hosts, now, random)?;
        Ok(Self { id, hosts: hosts.clone(), made_at: now, not_after, replaced_at: None, root, intermediate, key })
    }

    /// When it is used no more.
    pub fn ends_at(&self) -> Timestamp {
        self.replaced_at.map_or(self.not_after, |replaced| replaced.plus(OVERLAP).min(self.not_after))
    }

    /// Whether it may stand for `host`.
    pub fn permits(&self, host: &str) -> bool {
        names::permits(&self.hosts, host)
    }
}

/// What the newest one of some authorities cannot be used for; `None` if it can be used for all.
pub fn lacking(newest: Option<&Generation>, hosts: &BTreeSet<String>, now: Timestamp) -> Option<BTreeSet<String>> {
    let Some(newest) = newest else { return (!hosts.is_empty()).then(|| hosts.clone()) };
    let lacking: BTreeSet<String> = hosts.iter().filter(|host| !newest.permits(host)).cloned().collect();
    let ends_soon = !hosts.is_empty() && newest.ends_at() <= now.plus(RENEWED_AHEAD);
    (ends_soon || !lacking.is_empty()).then_some(lacking)
}

/// What is to be done about authorities, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// So many of the oldest have had their time.
    pub gone: usize,
    /// A new one is needed.
    pub new: bool,
}

/// When it is looked what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The hosts may be others than before: what the newest authority lacks is made good while a former one may still be used.
    Start,
    /// Nothing was changed here, but maybe by another process that has other hosts: the two do not take turns in replacing
    /// each other's.
    Routine,
}

/// Decides what is to be done.
pub fn succession(
    generations: &[Generation],
    hosts: &BTreeSet<String>,
    now: Timestamp,
    occasion: Occasion,
) -> Succession {
    let is_provided = |host: &String| generations.iter().any(|known| now < known.ends_at() && known.permits(host));
    let new = match lacking(generations.last(), hosts, now) {
        None => false,
        Some(lacking) => occasion == Occasion::Start || lacking.is_empty() || !lacking.iter().all(is_provided),
    };
    let too_many = (generations.len() + usize::from(new)).saturating_sub(KEPT);
    let over = generations.iter().take_while(|generation| generation.ends_at() <= now).count();
    Succession { gone: over.max(too_many), new }
}
