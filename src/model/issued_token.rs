//! What we hand out to programs: authorization codes, access tokens, refresh tokens, keys. Only digests of them are kept.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::digest::{Digest, sha256};
use crate::base::random::{self, Random};
use crate::base::secret::Secret;

/// What a token is for. Each kind has a prefix of its own, so that one never passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 6749 section 1.3.1.
    Code,
    /// RFC 6749 section 1.4.
    Access,
    /// RFC 6749 section 1.5.
    Refresh,
    /// The secret of a client that registered itself.
    ClientSecret,
    /// The key of a partner's program.
    ApiKey,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Code => "sk_ac_",
            Self::Access => "sk_at_",
            Self::Refresh => "sk_rt_",
            Self::ClientSecret => "sk_cs_",
            // Long enough for secret scanners to know it from other people's keys.
            Self::ApiKey => "sidekey_api_",
        }
    }
}

/// 256 random bits.
const RANDOM: usize = 43;
/// The first 24 bits of SHA-256 of what stands before: enough to tell a mistyped or foreign token without looking it up.
const CHECKSUM: usize = 4;

/// Makes a token: prefix, 256 random bits, checksum.
pub fn generate(kind: Kind, random: &dyn Random) -> Secret {
    let body = format!("{}{}", kind.prefix(), random::secret(random).expose());
    let checksum = checksum(&body);
    Secret::new(format!("{body}{checksum}"))
}

/// The digest under which a presented token is kept; `None` for what was never made by [`generate`] for this kind.
pub fn digest(kind: Kind, presented: &str) -> Option<Digest> {
    let body_length = kind.prefix().len() + RANDOM;
    let is_ours = presented.len() == body_length + CHECKSUM && presented.starts_with(kind.prefix());
    let (body, check) = presented.split_at_checked(body_length).filter(|_| is_ours)?;
    (checksum(body) == check).then(|| sha256(presented.as_bytes()))
}

fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(&sha256(body.as_bytes())[..3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;

    #[test]
    fn tokens_are_recognized_by_kind_and_checksum() {
        let token = generate(Kind::Access, &SystemRandom);
        assert!(token.expose().starts_with("sk_at_") && token.expose().len() == 53);
        assert_eq!(digest(Kind::Access, token.expose()), Some(sha256(token.expose().as_bytes())));
        assert_eq!(digest(Kind::Refresh, token.expose()), None);
        for at in 0..token.expose().len() {
            let mut changed = token.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(digest(Kind::Access, &changed), None, "{at}");
        }
        for junk in ["", "sk_at_", "sk_at_é", &"é".repeat(27), &"x".repeat(53)] {
            assert_eq!(digest(Kind::Access, junk), None);
        }
    }

    #[test]
    fn tokens_never_repeat() {
        let mut tokens: Vec<_> = (0..1000).map(|_| generate(Kind::Code, &SystemRandom).expose().to_owned()).collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 1000);
    }
}
