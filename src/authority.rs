//! The local authority: certificates for the hosts of the configured providers, so that a server that knows nothing of
//! Sidekey can be answered in a provider's place.
//!
//! A root is made on first use. Clients are given it once (`sidekey ca export`), so it must be worth little to a thief:
//! it is constrained to these hosts, its own key is destroyed as soon as it has signed an intermediate, and the
//! intermediate's is kept sealed. Where a host is added that the constraints leave out, a new authority is made, and the
//! former one is used beside it for a while ([`generation`]).

pub mod bundle;
mod generation;
mod issue;
mod leaves;
mod names;
mod storage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::sha256;
use crate::base::random::Random;
use crate::store::keyring::KeyId;
use crate::store::seal::Sealer;
pub use generation::OVERLAP;
use generation::{Generation, Occasion, Succession};
use leaves::Leaves;
pub use storage::FILE_NAME;
use storage::Storage;

/// How often it is looked whether something is due.
pub const TENDED: Duration = Duration::from_secs(600);

/// Where the authority is kept, below the store's directory.
pub const DIRECTORY_NAME: &str = "authority";

/// Why there is no authority.
#[derive(Debug)]
pub enum AuthorityError {
    /// Its files cannot be used, or not written.
    Files(std::io::Error),
    /// The file was sealed with a key that is not configured.
    UnknownKey(PathBuf, KeyId),
    /// The file is not what was written.
    Damaged(PathBuf, String),
    /// Certificates could not be made.
    Made(String),
}

impl std::fmt::Display for AuthorityError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let anew = "a new authority is made at the next start, and all clients must take its certificate \
                    (`sidekey ca export`)";
        match self {
            Self::Files(error) => write!(formatter, "the local authority: {error}"),
            Self::UnknownKey(path, id) => write!(
                formatter,
                "the local authority {} is sealed with key {id}, which is not in store.keys. Put it back, or, if it is gone for \
                 good, remove the file: {anew}",
                path.display()
            ),
            Self::Damaged(path, what) => write!(
                formatter,
                "the local authority {} is damaged: {what}. Restore the file from a backup, or remove it: {anew}",
                path.display()
            ),
            Self::Made(why) => write!(formatter, "the local authority cannot make certificates: {why}"),
        }
    }
}

impl std::error::Error for AuthorityError {}

/// What an authority needs.
pub struct Parts {
    /// Where it is kept; made where it is missing.
    pub directory: PathBuf,
    /// Seals its key.
    pub sealer: Sealer,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// What certificates are made for: host names in lower case, and `*.suffix` for all hosts below a suffix.
    pub hosts: BTreeSet<String>,
}

/// The local authority.
pub struct Authority {
    directory: PathBuf,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    hosts: BTreeSet<String>,
    /// The oldest first.
    generations: Arc<ArcSwap<Vec<Arc<Generation>>>>,
    leaves: Arc<Leaves>,
}

impl Authority {
    /// Opens what is stored, and makes what is missing. Without any host nothing is made. Where the key is missing that it was
    /// sealed with ([`Self::missing_key`]), it stays closed and untouched.
    pub fn open(parts: Parts) -> Result<Arc<Self>, AuthorityError> {
        let Parts { directory, sealer, clock, random, hosts } = parts;
        let leaves = Leaves::new(Arc::clone(&clock), Arc::clone(&random)).map_err(AuthorityError::Made)?;
        let (hosts, leaves, generations) = (certifiable(hosts), Arc::new(leaves), Arc::default());
        Self { directory, sealer, clock, random, hosts, generations, leaves }.ready()
    }

    /// The same authority for these hosts. What has been made is shared.
    pub fn serving(&self, hosts: BTreeSet<String>) -> Result<Arc<Self>, AuthorityError> {
        let next = Self {
            directory: self.directory.clone(),
            sealer: self.sealer.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            hosts: certifiable(hosts),
            generations: Arc::clone(&self.generations),
            leaves: Arc::clone(&self.leaves),
        };
        next.ready()
    }

    fn ready(self) -> Result<Arc<Self>, AuthorityError> {
        let authority = self;
        match authority.look_after(Occasion::Start) {
            // What needs no certificates goes on: where the disk is full, or a key was given up.
            Err(AuthorityError::Files(error)) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                error!(operation = "authority", %error, "what it lacks is made as soon as its files can be written");
            }
            Err(error @ AuthorityError::UnknownKey(..)) => error!(operation = "authority", %error),
            done => done?,
        }
        if let Some(notice) = authority.notice() {
            warn!(operation = "authority", "{notice}");
        }
        Ok(Arc::new(authority))
    }

    /// Lets go of what has had its time, and makes what is needed.
    pub fn tend(&self) -> Result<(), AuthorityError> {
        self.look_after(Occasion::Routine)
    }

    /// Seals by the first key what another has sealed: whether there was anything.
    pub fn reseal(&self) -> Result<bool, AuthorityError> {
        let is_sealed_by_another = storage::is_sealed_by_another(&self.directory, &self.sealer)?;
        if is_sealed_by_another {
            self.look_after(Occasion::Routine)?;
        }
        Ok(is_sealed_by_another)
    }

    /// The key that all this is sealed with, if it is not configured: then nothing is intercepted.
    pub fn missing_key(&self) -> Option<AuthorityError> {
        match storage::look(&self.directory, &self.sealer) {
            Err(error @ AuthorityError::UnknownKey(..)) => Some(error),
            _ => None,
        }
    }

    fn look_after(&self, occasion: Occasion) -> Result<(), AuthorityError> {
        if self.hosts.is_empty() && !self.directory.exists() {
            return Ok(());
        }
        let storage = Storage::hold(&self.directory)?;
        let storage::Loaded { mut generations, sealed_by_another } = storage.load(&self.sealer)?;
        let now = self.clock.now();
        let Succession { gone, new } = generation::succession(&generations, &self.hosts, now, occasion);
        if new {
            let made = Generation::make(&self.hosts, now, self.random.as_ref()).map_err(AuthorityError::Made)?;
            if let Some(former) = generations.last_mut() {
                former.replaced_at.get_or_insert(now);
            }
            generations.push(made);
        }
        let over: Vec<String> = generations.drain(..gone).map(|generation| generation.id).collect();
        let saved = match new || gone > 0 || sealed_by_another {
            true => storage.save(&generations, &self.sealer),
            false => Ok(()),
        };
        if saved.is_err() && new {
            // Nobody will know it after a restart.
            generations.pop();
        }
        if let Some(made) = generations.last().filter(|_| new && saved.is_ok()) {
            info!(operation = "authority", made = made.id, hosts = ?made.hosts, "a new local authority was made");
        }
        if gone > 0 {
            info!(operation = "authority", ?over, "former local authorities are used no more");
        }
        self.generations.store(Arc::new(generations.into_iter().map(Arc::new).collect()));
        saved
    }

    /// TLS configuration with a certificate for `host`, offering HTTP/2 and HTTP/1.1. `None` for a host that is not one of
    /// ours, and where too many new hosts below suffixes were asked for lately.
    pub fn server_config(&self, host: &str) -> Option<Arc<rustls::ServerConfig>> {
        let host = names::plain(host)?;
        let listed = names::listed(&self.hosts, &host)?;
        self.leaves.of(&host, listed, &self.generations.load())
    }

    /// All roots that clients should trust, in PEM: the present one, and former ones as long as they are used.
    pub fn bundle(&self) -> String {
        self.live().iter().map(|generation| bundle::pem(&generation.root)).collect()
    }

    /// All authorities that are used, the oldest first; the last one is the present one.
    pub fn roots(&self) -> Vec<Root> {
        let live = self.live();
        let newest = live.last().map(|generation| generation.id.clone());
        let root = |generation: &Arc<Generation>| Root {
            id: generation.id.clone(),
            is_current: newest.as_ref() == Some(&generation.id),
            sha256: fingerprint(&generation.root),
            hosts: generation.hosts.clone(),
            made_at: generation.made_at.to_string(),
            not_after: generation.not_after.to_string(),
            used_until: generation.ends_at().to_string(),
        };
        live.iter().map(root).collect()
    }

    /// What clients must know, if anything: that a newer bundle is needed.
    pub fn notice(&self) -> Option<Notice> {
        Notice::of(&self.live(), &self.hosts)
    }

    /// What certificates are made for, as patterns.
    pub fn hosts(&self) -> &BTreeSet<String> {
        &self.hosts
    }

    fn live(&self) -> Vec<Arc<Generation>> {
        let now = self.clock.now();
        self.generations.load().iter().filter(|generation| now < generation.ends_at()).cloned().collect()
    }
}

/// A root that clients should trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its name; it stands in the certificate's.
    pub id: String,
    /// Whether it is the newest one.
    pub is_current: bool,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
    /// What it may stand for: these names, and those below them.
    pub hosts: BTreeSet<String>,
    /// When it was made.
    pub made_at: String,
    /// When the certificate ends.
    pub not_after: String,
    /// When it is used no more.
    pub used_until: String,
}

/// Clients with an older bundle miss something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What they cannot reach even now.
    pub hosts: BTreeSet<String>,
    /// When they reach nothing anymore.
    pub until: Timestamp,
}

impl Notice {
    fn of(live: &[Arc<Generation>], hosts: &BTreeSet<String>) -> Option<Self> {
        let (_, former) = live.split_last()?;
        let oldest = former.first()?;
        let hosts = hosts.iter().filter(|host| !oldest.permits(host)).cloned().collect();
        Some(Self { hosts, until: oldest.ends_at() })
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        formatter.write_str(
            "the local authority was replaced: all clients must take the new bundle (`sidekey ca export`)",
        )?;
        if !hosts.is_empty() {
            write!(formatter, "; those with the former one cannot reach {}", hosts.join(", "))?;
        }
        write!(formatter, "; from {} on they reach no provider", self.until)
    }
}

/// What the next start will find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// There is nothing to make certificates for.
    NoHosts,
    /// The first authority will be made.
    First,
    /// The authority that is there will do.
    Same(Option<Notice>),
    /// A new authority will be made: for these hosts, or, without any, since the present one ends soon.
    New(BTreeSet<String>),
}

/// Looks at what is stored in a directory, without changing anything: what a start with these hosts would mean for clients.
pub fn outlook(
    directory: &Path,
    sealer: &Sealer,
    hosts: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Outlook, AuthorityError> {
    let hosts: BTreeSet<String> = hosts.iter().filter(|host| names::is_pattern(host)).cloned().collect();
    if hosts.is_empty() {
        return Ok(Outlook::NoHosts);
    }
    let generations: Vec<_> = storage::look(directory, sealer)?.into_iter().map(Arc::new).collect();
    let Some(newest) = generations.last() else { return Ok(Outlook::First) };
    Ok(match generation::lacking(Some(newest), &hosts, now) {
        Some(hosts) => Outlook::New(hosts),
        None => {
            let live: Vec<_> = generations.into_iter().filter(|generation| now < generation.ends_at()).collect();
            Outlook::Same(Notice::of(&live, &hosts))
        }
    })
}

/// The hosts that there can be certificates for.
fn certifiable(hosts: BTreeSet<String>) -> BTreeSet<String> {
    let (hosts, others): (BTreeSet<String>, BTreeSet<String>) =
        hosts.into_iter().partition(|host| names::is_pattern(host));
    if !others.is_empty() {
        warn!(operation = "authority", ?others, "no certificates can be made for these hosts");
    }
    hosts
}

fn fingerprint(certificate: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha256(certificate))
}

#[cfg(test)]
mod tests;
