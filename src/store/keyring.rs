//! The keys that seal what is stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::base::digest::sha256;
use crate::base::random::{self, Random};
use crate::base::secret::{Secret, SecretKey};

/// Names a key without telling anything about it: the beginning of a digest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 4]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl KeyId {
    fn of(key: &SecretKey) -> Self {
        let digest = sha256(&[b"sidekey key id\0".as_slice(), key.expose()].concat());
        Self([digest[0], digest[1], digest[2], digest[3]])
    }
}

/// All keys: the first one seals, every one opens what it sealed.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<(KeyId, SecretKey)>,
}

/// Why there is no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not base64 of 32 bytes.
    Malformed,
    /// 32 bytes, but hardly random ones.
    Weak,
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => {
                "is not a key: expected 32 random bytes in base64, as `sidekey keys generate` prints them"
            }
            Self::Weak => "is not a random key; make one with `sidekey keys generate`",
        })
    }
}

impl KeyRing {
    /// The first key seals; the others only open. `None` without any key.
    pub fn new(keys: Vec<SecretKey>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().map(|key| (KeyId::of(&key), key)).collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The key that seals.
    pub fn active(&self) -> (KeyId, &SecretKey) {
        let (id, key) = &self.keys[0];
        (*id, key)
    }

    /// The ids of all keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// All keys but the one that seals.
    pub fn others(&self) -> impl Iterator<Item = &SecretKey> {
        self.keys.iter().skip(1).map(|(_, key)| key)
    }

    /// These keys, and then those of `other` that are not among them.
    pub fn with(&self, other: &Self) -> Self {
        let more = other.keys.iter().filter(|(id, _)| self.get(*id).is_none());
        Self { keys: self.keys.iter().chain(more).cloned().collect() }
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&SecretKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// Makes a key, in the form that [`parse_key`] reads.
pub fn generate_key(random: &dyn Random) -> Secret {
    Secret::new(STANDARD.encode(Zeroizing::new(random::bytes::<32>(random))))
}

/// Reads a key; white space around it is ignored.
pub fn parse_key(text: &Secret) -> Result<SecretKey, KeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.expose().trim()).map_err(|_| KeyError::Malformed)?);
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
    // Of 32 random bytes, fewer than 16 different ones come up once in 10^17 keys.
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let different = seen.iter().filter(|seen| **seen).count();
    if different < 16 { Err(KeyError::Weak) } else { Ok(SecretKey::new(key)) }
}

/// Reads keys, one a line, the first of them first. Empty lines are ignored.
pub fn parse_keys(text: &Secret) -> Result<Vec<SecretKey>, KeyError> {
    let lines = text.expose().lines().filter(|line| !line.trim().is_empty());
    let keys: Vec<SecretKey> = lines.map(|line| parse_key(&Secret::new(line))).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(KeyError::Malformed) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;

    #[test]
    fn a_generated_key_is_read_back() {
        let text = generate_key(&SystemRandom);
        assert!(parse_key(&Secret::new(format!(" {}\n", text.expose()))).is_ok());
    }

    #[test]
    fn a_file_may_hold_several_one_a_line() {
        let lines = [generate_key(&SystemRandom), generate_key(&SystemRandom)];
        let text = Secret::new(format!("{}\n\n{}\r\n", lines[0].expose(), lines[1].expose()));
        let ids = |keys: Vec<SecretKey>| KeyRing::new(keys).expect("keys").ids().collect::<Vec<_>>();
        let one_by_one = lines.iter().map(|line| parse_key(line).expect("a key")).collect();
        assert_eq!(ids(parse_keys(&text).expect("two keys")), ids(one_by_one));
        for bad in ["", "\n \n", &format!("{}\nchangeme", lines[0].expose())] {
            assert_eq!(parse_keys(&Secret::new(bad)).err(), Some(KeyError::Malformed), "{bad}");
        }
    }

    #[test]
    fn short_odd_and_guessable_keys_are_refused() {
        for text in ["", "changeme", "c2hvcnQ=", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33]), "=="] {
            assert_eq!(parse_key(&Secret::new(text)).err(), Some(KeyError::Malformed), "{text}");
        }
        let words = STANDARD.encode("changemechangemechangemechangeme");
        for text in [STANDARD.encode([0; 32]), words] {
            assert_eq!(parse_key(&Secret::new(text)).err(), Some(KeyError::Weak));
        }
    }
}
