//! Randomness as a parameter: the operating system's in production, a seeded one where a test needs to repeat itself.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::base::digest::sha256;
use crate::base::secret::Secret;

/// Where random bytes come from.
pub trait Random: Send + Sync {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks for randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        // Going on without randomness would mean guessable tokens, so there is nothing better than to stop.
        getrandom::fill(bytes).expect("the operating system provides random bytes");
    }
}

/// A repeatable sequence: for tests.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    block: AtomicU64,
}

impl SeededRandom {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, block: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block = self.block.fetch_add(1, Ordering::Relaxed);
            let digest = sha256(format!("{}:{block}", self.seed).as_bytes());
            chunk.copy_from_slice(&digest[..chunk.len()]);
        }
    }
}

/// `N` random bytes.
pub fn bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// A secret of 256 random bits as 43 base64url characters.
pub fn secret(random: &dyn Random) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes::<32>(random))))
}

/// A public identifier: `prefix`, then 80 random bits as 16 lower-case base32 characters.
pub fn identifier(random: &dyn Random, prefix: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut identifier = String::from(prefix);
    for byte in bytes::<16>(random) {
        identifier.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    identifier
}

/// A number in `0.0..1.0`, for jitter.
pub fn fraction(random: &dyn Random) -> f64 {
    f64::from(u32::from_le_bytes(bytes(random))) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_different_seeds_differ() {
        let [one, same, other] = [1, 1, 2].map(|seed| identifier(&SeededRandom::new(seed), "c_"));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(one.len(), 18);
    }

    #[test]
    fn secrets_of_the_system_differ() {
        let [one, two] = [secret(&SystemRandom), secret(&SystemRandom)];
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 43);
    }
}
