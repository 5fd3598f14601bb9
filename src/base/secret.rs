//! Values that must not be printed, serialized or compared by accident.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: a token, a client secret, a verifier.
///
/// It has no `Display`, no `Serialize` and no `PartialEq`, its `Debug` shows nothing of the content, and the memory is
/// wiped when it is dropped. [`Secret::expose`] is the one way to the content, so that a search for `expose` finds
/// every place that handles it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the content.
    pub fn new(content: impl Into<String>) -> Self {
        Self(Zeroizing::new(content.into()))
    }

    /// The content itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// 32 bytes of key material.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// Takes ownership of the key material.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key material itself.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_content() {
        let shown = format!("{:?} {:?}", Secret::new("hunter2"), SecretKey::new([7; 32]));
        assert_eq!(shown, "Secret(…) SecretKey(…)");
    }
}
