//! API keys: how programs of partners prove who they are, and what each may touch.
//!
//! A key is 256 random bits, so one round of SHA-256 is the right way to keep it: there is nothing to guess that a slow hash
//! would protect, and what is looked up is a digest, so the time that takes tells nothing about a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::connection::ConnectionKey;
use crate::model::names::{ProviderName, Subject};

/// What the name of a key looks like, for messages.
pub const EXPECTED_NAME: &str = "1 to 40 of the characters a-z 0-9 - beginning with a letter";
/// What a hash looks like, for messages.
pub const EXPECTED_HASH: &str = "\"sha256:\" and 64 hexadecimal digits, as `sidekey api-keys generate` prints them";
/// Before each hash, so that another way of hashing can follow.
const SCHEME: &str = "sha256:";

/// A key, without the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What the operator calls it: in the audit trail, in logs, in `sidekey api-keys list`.
    pub name: Arc<str>,
    /// At which providers it is good; `None` for all.
    pub providers: Option<BTreeSet<ProviderName>>,
    /// What the subjects begin with for whom it is good; `None` for all.
    pub subjects: Option<SubjectPrefix>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key may touch what is connected to this provider.
    pub fn covers_provider(&self, provider: &ProviderName) -> bool {
        self.providers.as_ref().is_none_or(|providers| providers.contains(provider))
    }

    /// Whether the key may touch what belongs to this subject.
    pub fn covers_subject(&self, subject: &Subject) -> bool {
        self.subjects.as_ref().is_none_or(|prefix| subject.as_str().starts_with(prefix.as_str()))
    }

    /// Whether what was made with it for this connection is still good.
    pub fn vouches_for(&self, key: &ConnectionKey, now: Timestamp) -> bool {
        self.is_live(now) && self.covers_provider(&key.provider) && self.covers_subject(&key.subject)
    }

    /// Whether it still works.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// What subjects begin with. It ends where a part of a name does, so that `org-4` never stands for `org-42` too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPrefix(Arc<str>);

impl SubjectPrefix {
    /// What it looks like, for messages.
    pub const EXPECTED: &'static str = "the beginning of subjects, up to one of . _ @ + : - (such as \"org-\"): without that, \"org-4\" would stand for org-42 too";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SubjectPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends_a_part = text.ends_with(['.', '_', '@', '+', ':', '-']);
        // With a letter more it must be a subject.
        let could_begin_one = format!("{text}a").parse::<Subject>().is_ok();
        if ends_a_part && could_begin_one { Ok(Self(text.into())) } else { Err(Self::EXPECTED.to_owned()) }
    }
}

/// All keys, by digest.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(BTreeMap<Digest, Arc<ApiKey>>);

impl ApiKeys {
    /// Adds a key; if there is one with this digest already, its name.
    pub fn add(&mut self, digest: Digest, key: ApiKey) -> Result<(), Arc<str>> {
        match self.0.get(&digest) {
            Some(there) => Err(Arc::clone(&there.name)),
            None => {
                self.0.insert(digest, Arc::new(key));
                Ok(())
            }
        }
    }

    /// The key of this digest, expired or not.
    pub fn find(&self, digest: &Digest) -> Option<&Arc<ApiKey>> {
        self.0.get(digest)
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<&Arc<ApiKey>> {
        let mut keys: Vec<_> = self.0.values().collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        keys
    }
}

/// A digest as the configuration writes it.
pub fn hash_text(digest: &Digest) -> String {
    format!("{SCHEME}{}", data_encoding::HEXLOWER.encode(digest))
}

/// The digest that a configuration names.
pub fn parse_hash(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix(SCHEME)?;
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha256;

    fn key(providers: &[&str], prefix: Option<&str>) -> ApiKey {
        let providers: BTreeSet<ProviderName> = providers.iter().map(|name| name.parse().expect("a name")).collect();
        ApiKey {
            name: "accounting".into(),
            providers: Some(providers).filter(|providers| !providers.is_empty()),
            subjects: prefix.map(|prefix| prefix.parse().expect("a prefix")),
            expires_at: Some(Timestamp::from_millis(1_000)),
        }
    }

    #[test]
    fn a_key_covers_its_providers_and_its_subjects() {
        let of = |text: &str| text.parse::<Subject>().expect("a subject");
        let narrow = key(&["quickbooks"], Some("org-"));
        assert!(narrow.covers_provider(&"quickbooks".parse().expect("a name")));
        assert!(!narrow.covers_provider(&"xero".parse().expect("a name")));
        assert!(narrow.covers_subject(&of("org-42")) && narrow.covers_subject(&of("org-")));
        for other in ["org", "Org-42", "organization-1", "user:abc", "x-org-42"] {
            assert!(!narrow.covers_subject(&of(other)), "{other}");
        }
        let wide = key(&[], None);
        assert!(wide.covers_provider(&"xero".parse().expect("a name")) && wide.covers_subject(&of("anybody")));
    }

    #[test]
    fn a_key_ends_at_its_time() {
        let key = key(&[], None);
        assert!(key.is_live(Timestamp::from_millis(999)) && !key.is_live(Timestamp::from_millis(1_000)));
    }

    #[test]
    fn a_prefix_ends_with_a_part_of_a_name() {
        for good in ["org-", "user:", "a@", "tenant.eu_"] {
            assert!(good.parse::<SubjectPrefix>().is_ok(), "{good}");
        }
        for bad in ["", "org", "org-4", "-", "a b-", "org/", "*", "ä-", &format!("{}-", "a".repeat(128))] {
            assert_eq!(bad.parse::<SubjectPrefix>(), Err(SubjectPrefix::EXPECTED.to_owned()), "{bad}");
        }
    }

    #[test]
    fn hashes_are_written_as_other_tools_write_them() {
        let digest = sha256(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_text(&digest), text);
        assert_eq!(parse_hash(text), Some(digest));
        for bad in
            ["", "sha256:", "ba7816bf", "sha512:00", &text[..70], &format!("{text}00"), &text.replace("ba", "xy")]
        {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_two_keys_are_one() {
        let mut keys = ApiKeys::default();
        assert_eq!(keys.add([1; 32], key(&[], None)), Ok(()));
        assert_eq!(keys.add([1; 32], key(&["xero"], None)), Err("accounting".into()));
        assert!(keys.find(&[1; 32]).is_some() && keys.find(&[2; 32]).is_none());
    }
}
