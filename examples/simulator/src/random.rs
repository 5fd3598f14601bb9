//! Random identifiers, and hashes of values that must not be shown.

use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `length` characters, 6 random bits each, safe in URLs, headers and JSON.
pub(crate) fn characters(length: usize) -> String {
    random_bytes(length).iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect()
}

/// Lower-case hexadecimal digits, as in request and trace ids.
pub(crate) fn hex_digits(length: usize) -> String {
    let mut digits = hex(&random_bytes(length.div_ceil(2)));
    digits.truncate(length);
    digits
}

/// A random id in the form of a UUID.
pub(crate) fn uuid() -> String {
    as_uuid(&hex_digits(32))
}

/// An id in the form of a UUID, the same for the same text.
pub(crate) fn uuid_of(text: &str) -> String {
    as_uuid(&sha256_hex(text))
}

fn as_uuid(digits: &str) -> String {
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..32])
}

/// A number of at most 32 bits, the same for the same text.
pub(crate) fn number_of(text: &str) -> u32 {
    Sha256::digest(text.as_bytes()).iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// SHA-256 in hexadecimal: how the ledger names a value without showing it.
pub(crate) fn sha256_hex(value: &str) -> String {
    hex(&Sha256::digest(value.as_bytes()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[allow(clippy::disallowed_methods, reason = "the simulator shares nothing with the program that it tests")]
fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // Without randomness there is nothing sensible to simulate.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
