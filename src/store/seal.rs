//! Sealing: AES-256-GCM with a fresh random nonce, bound to what it is sealed for.
//!
//! A sealed value is `version (1) | key id (4) | nonce (12) | ciphertext and tag`. The associated data is the version,
//! the key id and every part of the [`Context`], each part with its length in front, so that a value copied to another
//! row, field, subject or generation does not open, and no two contexts share their bytes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::base::digest::SigningKey;
use crate::base::random::{self, Random};
use crate::base::secret::{Secret, SecretKey};
use crate::store::keyring::{KeyId, KeyRing};

/// A secret that only its key opens.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// As read from storage.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key that sealed it, if it looks sealed.
    pub fn key_id(&self) -> Option<KeyId> {
        self.0.get(1..5).and_then(|id| id.try_into().ok()).map(KeyId)
    }

    /// As written to storage.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sealed({} bytes)", self.0.len())
    }
}

/// What a secret is sealed for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The kind of record.
    pub purpose: &'a str,
    /// Whose it is.
    pub subject: &'a str,
    /// Of which provider.
    pub provider: &'a str,
    /// The record's id.
    pub record: &'a str,
    /// The field in the record.
    pub field: &'a str,
    /// The record's generation.
    pub generation: u64,
}

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Sealed with a key that is not in the ring.
    UnknownKey(KeyId),
    /// Damaged, tampered with, or sealed for something else.
    Corrupt,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownKey(id) => {
                write!(formatter, "sealed with key {id}, which is not configured; add it to store.keys")
            }
            Self::Corrupt => formatter.write_str("damaged, or sealed for something else"),
        }
    }
}

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4 + NONCE_LEN;

/// Seals and opens. All clones have the same keys, also after others took their place.
#[derive(Clone)]
pub struct Sealer {
    rings: Arc<ArcSwap<Rings>>,
    random: Arc<dyn Random>,
}

/// The keys in use, and those that were before.
struct Rings {
    configured: Arc<KeyRing>,
    /// They open what they have sealed as long as the process lives: a sign-in under way, say.
    former: Vec<Arc<KeyRing>>,
}

impl Rings {
    fn get(&self, id: KeyId) -> Option<&SecretKey> {
        self.configured.get(id).or_else(|| self.former.iter().find_map(|ring| ring.get(id)))
    }
}

impl Sealer {
    /// A sealer with these keys.
    pub fn new(ring: KeyRing, random: Arc<dyn Random>) -> Self {
        let rings = Rings { configured: Arc::new(ring), former: Vec::new() };
        Self { rings: Arc::new(ArcSwap::from_pointee(rings)), random }
    }

    /// The keys as they are now.
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.rings.load().configured)
    }

    /// Uses these keys from now on. Those before them open what they have sealed until the process ends.
    pub fn use_keys(&self, ring: KeyRing) {
        let ring = Arc::new(ring);
        self.rings.rcu(|rings| {
            let mut former = rings.former.clone();
            if rings.configured.ids().any(|id| ring.get(id).is_none() && former.iter().all(|old| old.get(id).is_none()))
            {
                former.push(Arc::clone(&rings.configured));
            }
            Rings { configured: Arc::clone(&ring), former }
        });
    }

    /// The key that seals.
    pub fn active_key(&self) -> KeyId {
        self.rings.load().configured.active().0
    }

    /// The configured keys, the one that seals first.
    pub fn keys(&self) -> Vec<KeyId> {
        self.rings.load().configured.ids().collect()
    }

    /// Whether what this key has sealed can be opened, by a restarted process too.
    pub fn knows(&self, id: KeyId) -> bool {
        self.rings.load().configured.get(id).is_some()
    }

    /// The key for signing messages of one purpose. What was signed under any of the present keys, or those before them, is accepted.
    pub fn signing_key(&self, purpose: &str) -> SigningKey {
        let rings = self.rings.load();
        let former = rings.former.iter().flat_map(|ring| std::iter::once(ring.active().1).chain(ring.others()));
        let others = rings.configured.others().chain(former);
        SigningKey::derive(rings.configured.active().1, purpose).accepting(others, purpose)
    }

    /// The same, made from the key of this id, if it is configured.
    pub fn signing_key_of(&self, id: KeyId, purpose: &str) -> Option<SigningKey> {
        self.rings.load().configured.get(id).map(|key| SigningKey::derive(key, purpose))
    }

    /// Seals `secret` for `context`.
    pub fn seal(&self, context: &Context<'_>, secret: &Secret) -> Sealed {
        let rings = self.rings.load();
        let (id, key) = rings.configured.active();
        let nonce: [u8; NONCE_LEN] = random::bytes(self.random.as_ref());
        let mut sealed = Vec::with_capacity(HEADER + secret.expose().len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&id.0);
        sealed.extend_from_slice(&nonce);
        // The plaintext is copied into a buffer that has room for the tag, and encrypted in place.
        sealed.extend_from_slice(secret.expose().as_bytes());
        let tag = aead_key(key)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(id, context)),
                &mut sealed[HEADER..],
            )
            .expect("a token is far below the size limit of AES-GCM");
        sealed.extend_from_slice(tag.as_ref());
        Sealed(sealed)
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Secret, OpenError> {
        let (header, ciphertext) = sealed.0.split_at_checked(HEADER).ok_or(OpenError::Corrupt)?;
        if header[0] != VERSION {
            return Err(OpenError::Corrupt);
        }
        let id = KeyId([header[1], header[2], header[3], header[4]]);
        let rings = self.rings.load();
        let key = rings.get(id).ok_or(OpenError::UnknownKey(id))?;
        let nonce = Nonce::try_assume_unique_for_key(&header[5..]).map_err(|_| OpenError::Corrupt)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plaintext = aead_key(key)
            .open_in_place(nonce, Aad::from(associated_data(id, context)), &mut buffer)
            .map_err(|_| OpenError::Corrupt)?;
        let text = std::str::from_utf8(plaintext).map_err(|_| OpenError::Corrupt)?;
        Ok(Secret::new(text))
    }
}

fn aead_key(key: &SecretKey) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 bytes are an AES-256 key"))
}

fn associated_data(id: KeyId, context: &Context<'_>) -> Vec<u8> {
    let mut data = vec![VERSION];
    let generation = context.generation.to_be_bytes();
    let parts: [&[u8]; 7] = [
        &id.0,
        context.purpose.as_bytes(),
        context.subject.as_bytes(),
        context.provider.as_bytes(),
        context.record.as_bytes(),
        context.field.as_bytes(),
        &generation,
    ];
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{SeededRandom, SystemRandom};

    fn sealer(keys: &[u8]) -> Sealer {
        let keys = keys.iter().map(|byte| SecretKey::new([*byte; 32])).collect();
        Sealer::new(KeyRing::new(keys).expect("a key"), Arc::new(SystemRandom))
    }

    const CONTEXT: Context<'static> = Context {
        purpose: "connection",
        subject: "alice",
        provider: "quickbooks",
        record: "c_1",
        field: "access_token",
        generation: 3,
    };

    fn opened(sealer: &Sealer, context: &Context<'_>, sealed: &Sealed) -> Result<String, OpenError> {
        sealer.open(context, sealed).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn opens_only_for_what_it_was_sealed_for() {
        let sealer = sealer(&[1]);
        let sealed = sealer.seal(&CONTEXT, &Secret::new("token"));
        assert_eq!(opened(&sealer, &CONTEXT, &sealed).as_deref(), Ok("token"));
        let others = [
            Context { purpose: "flow", ..CONTEXT },
            Context { subject: "bob", ..CONTEXT },
            Context { provider: "github", ..CONTEXT },
            Context { record: "c_2", ..CONTEXT },
            Context { field: "refresh_token", ..CONTEXT },
            Context { generation: 4, ..CONTEXT },
            // The same letters, divided differently.
            Context { subject: "alic", provider: "equickbooks", ..CONTEXT },
        ];
        for other in others {
            assert_eq!(opened(&sealer, &other, &sealed), Err(OpenError::Corrupt), "{other:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealer = sealer(&[1]);
        let sealed = sealer.seal(&CONTEXT, &Secret::new("token"));
        for at in 0..sealed.0.len() {
            let mut flipped = sealed.clone();
            flipped.0[at] ^= 1;
            assert!(opened(&sealer, &CONTEXT, &flipped).is_err(), "{at}");
            assert!(opened(&sealer, &CONTEXT, &Sealed(sealed.0[..at].to_vec())).is_err(), "{at}");
        }
    }

    #[test]
    fn an_older_key_still_opens_and_a_missing_one_is_named() {
        let sealed = sealer(&[1]).seal(&CONTEXT, &Secret::new("token"));
        assert_eq!(opened(&sealer(&[2, 1]), &CONTEXT, &sealed).as_deref(), Ok("token"));
        let error = opened(&sealer(&[2]), &CONTEXT, &sealed).expect_err("no key");
        assert!(matches!(error, OpenError::UnknownKey(_)) && error.to_string().contains("store.keys"));
    }

    #[test]
    fn other_keys_take_their_place_for_all_and_those_before_open_what_they_sealed() {
        let ring =
            |keys: &[u8]| KeyRing::new(keys.iter().map(|byte| SecretKey::new([*byte; 32])).collect()).expect("a key");
        let sealer = sealer(&[1]);
        let (clone, before) = (sealer.clone(), sealer.seal(&CONTEXT, &Secret::new("token")));
        let old = sealer.active_key();
        sealer.use_keys(ring(&[2, 1]));
        let after = clone.seal(&CONTEXT, &Secret::new("new"));
        assert_eq!((after.key_id() == Some(old), clone.knows(old), clone.keys().len()), (false, true, 2));
        sealer.use_keys(ring(&[2]));
        sealer.use_keys(ring(&[2]));
        assert_eq!(opened(&clone, &CONTEXT, &before).as_deref(), Ok("token"), "as long as the process lives");
        assert!(!clone.knows(old), "but not after a restart");
        sealer.use_keys(ring(&[3]));
        assert_eq!(opened(&clone, &CONTEXT, &after).as_deref(), Ok("new"));
        assert_eq!(opened(&clone, &CONTEXT, &before).as_deref(), Ok("token"));
    }

    /// Also where the header claims that it was this key.
    #[test]
    fn no_other_key_opens_it() {
        let sealed = sealer(&[1]).seal(&CONTEXT, &Secret::new("token"));
        let random = SeededRandom::new(7);
        for _ in 0..100_000 {
            let ring = KeyRing::new(vec![SecretKey::new(random::bytes(&random))]).expect("a key");
            let other = Sealer::new(ring, Arc::new(SystemRandom));
            let mut forged = sealed.clone();
            forged.0[1..5].copy_from_slice(&other.active_key().0);
            assert_eq!(opened(&other, &CONTEXT, &forged), Err(OpenError::Corrupt));
        }
    }

    #[test]
    fn nonces_do_not_repeat() {
        let ring = KeyRing::new(vec![SecretKey::new([1; 32])]).expect("a key");
        let sealer = Sealer::new(ring, Arc::new(SeededRandom::new(1)));
        let mut nonces: Vec<_> =
            (0..1000).map(|_| sealer.seal(&CONTEXT, &Secret::new("t")).0[5..HEADER].to_vec()).collect();
        nonces.sort();
        nonces.dedup();
        assert_eq!(nonces.len(), 1000);
    }

    #[test]
    fn the_plaintext_is_nowhere_in_what_is_stored() {
        let sealed = sealer(&[1]).seal(&CONTEXT, &Secret::new("marker-marker"));
        assert!(memchr::memmem::find(sealed.as_bytes(), b"marker").is_none());
    }
}
