//! Leaves, made when a host is asked for and kept for a while.
//!
//! One at a time is made, so that many who ask for the same host get the same leaf, and the work never takes more than
//! one processor. Hosts below a suffix, of which there may be any number, are kept and made in limited numbers; they never
//! crowd out the hosts that are named.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use super::generation::Generation;
use super::issue::{self, LEAF_LIFE, PrivateKey};
use super::names::Listed;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::base::rate_limit::{Rate, RateLimit};

/// A leaf is used so long, and then another is made: well before it ends.
const LEAF_USE: Duration = Duration::from_hours(4 * 24);
/// So many hosts below suffixes are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).expect("more than none");
/// So many leaves are made for them.
const RATE: Rate = Rate::new(240, 60);
/// So many TLS sessions can be taken up again.
const SESSIONS: usize = 1024;

/// Makes leaves and keeps them.
pub struct Leaves {
    key: PrivateKey,
    signer: Arc<dyn SigningKey>,
    base: ServerConfig,
    rate: RateLimit<()>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    kept: Mutex<Kept>,
}

struct Kept {
    named: BTreeMap<String, Leaf>,
    below_suffixes: LruCache<String, Leaf>,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    made_at: Timestamp,
    until: Timestamp,
}

impl Leaves {
    /// Nothing is made yet but the key, which all leaves of this process share and which is never stored.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Self, String> {
        let key = PrivateKey::generate()?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_pkcs8()));
        let signer = any_ecdsa_type(&der).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let base = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth();
        // What it says about itself is put in for each host.
        let nobody = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        let mut base = base.with_cert_resolver(nobody);
        base.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        base.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        let rate = RateLimit::new(RATE, Arc::clone(&clock));
        let kept = Mutex::new(Kept { named: BTreeMap::new(), below_suffixes: LruCache::new(KEPT) });
        Ok(Self { key, signer, base, rate, clock, random, kept })
    }

    /// The TLS configuration for a host that is `listed`, signed by the first authority that may. `None` where none may,
    /// and where too many hosts below suffixes were asked for lately.
    pub fn of(&self, host: &str, listed: Listed, generations: &[Arc<Generation>]) -> Option<Arc<ServerConfig>> {
        let now = self.clock.now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match listed {
            Listed::Named => kept.named.get(host),
            Listed::BelowSuffix => kept.below_suffixes.get(host),
        };
        if let Some(leaf) = known.filter(|leaf| leaf.made_at <= now && now < leaf.until) {
            return Some(Arc::clone(&leaf.config));
        }
        let usable = |generation: &&Arc<Generation>| now < generation.ends_at() && generation.permits(host);
        let generation = generations.iter().find(usable)?;
        if listed == Listed::BelowSuffix && !self.rate.take(&()).allowed {
            tracing::warn!(operation = "authority", host, "too many new hosts: no certificate is made for now");
            return None;
        }
        let leaf = match self.make(host, generation, now) {
            Ok(leaf) => leaf,
            Err(error) => {
                tracing::error!(operation = "authority", host, %error, "no certificate could be made");
                return None;
            }
        };
        let config = Arc::clone(&leaf.config);
        match listed {
            Listed::Named => drop(kept.named.insert(host.to_owned(), leaf)),
            Listed::BelowSuffix => drop(kept.below_suffixes.put(host.to_owned(), leaf)),
        }
        Some(config)
    }

    fn make(&self, host: &str, generation: &Generation, now: Timestamp) -> Result<Leaf, String> {
        let life = (now, now.plus(LEAF_LIFE).min(generation.not_after));
        let leaf = issue::leaf(&generation.id, &generation.key, host, &self.key, life, self.random.as_ref())?;
        let chain = vec![leaf, generation.intermediate.clone()];
        let mut config = self.base.clone();
        let certified = CertifiedKey::new(chain, Arc::clone(&self.signer));
        config.cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        let until = now.plus(LEAF_USE).min(generation.ends_at());
        Ok(Leaf { config: Arc::new(config), made_at: now, until })
    }
}
