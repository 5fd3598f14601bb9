//! An MCP client, as the issuer knows it: registered by the operator, by itself (RFC 7591), or by a document at the URL
//! that is its id (Client ID Metadata Documents).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::digest::Digest;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::model::redirect_uri::{Destination, RedirectUri};
use crate::model::scope::ScopeSet;

/// Whose word we have for who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// The operator's.
    Static,
    /// Its own.
    Dynamic,
    /// That of whoever controls the URL.
    Document,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Who says so.
    pub kind: ClientKind,
    /// What it calls itself.
    pub name: String,
    /// Where browsers may be sent back to.
    pub redirect_uris: Vec<RedirectUri>,
    /// How it proves who it is at the token endpoint.
    pub authentication: ClientAuthentication,
    /// The scopes that it may ask for; `None` for all.
    pub scopes: Option<ScopeSet>,
}

/// How a client proves who it is (RFC 6749 section 2.3).
#[derive(Clone, Debug)]
pub enum ClientAuthentication {
    /// It does not: a public client.
    None,
    /// With a secret.
    Secret(SecretVerifier),
    /// With an assertion that its private key signed (RFC 7523).
    PrivateKeyJwt(ClientKeys),
}

/// What a presented secret is compared with.
#[derive(Clone, Debug)]
pub enum SecretVerifier {
    /// An argon2 hash in PHC form: secrets that people may have chosen.
    Argon2(Secret),
    /// SHA-256: secrets of 256 random bits.
    Sha256(Digest),
}

/// The public keys of a client.
#[derive(Clone, Debug)]
pub enum ClientKeys {
    /// A JWK set that we hold.
    Inline(Value),
    /// Where the client publishes it.
    Url(SafeUrl),
}

impl Client {
    /// The registered URI that a presented one is.
    pub fn redirect_uri(&self, presented: &str) -> Option<&RedirectUri> {
        self.redirect_uris.iter().find(|registered| registered.matches(presented))
    }

    /// Whether it is certain that who comes back at `redirect_uri` is this client: the operator or the owner of a domain
    /// says so, and the browser is sent to a site that nobody else can answer for (RFC 8252 section 8.6).
    pub fn is_assured_at(&self, redirect_uri: &RedirectUri) -> bool {
        self.kind != ClientKind::Dynamic && redirect_uri.destination() == Destination::Web
    }
}

/// A client that registered itself, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `client_name`.
    pub name: String,
    /// `redirect_uris`, exactly as they came.
    pub redirect_uris: Vec<RedirectUri>,
    /// `token_endpoint_auth_method`.
    pub method: RegisteredMethod,
    /// SHA-256 of the secret, where it has one.
    pub secret_digest: Option<Digest>,
    /// `jwks`, for `private_key_jwt`.
    pub jwks: Option<Value>,
    /// `jwks_uri`, likewise.
    pub jwks_uri: Option<String>,
    /// `scope`.
    pub scopes: Option<ScopeSet>,
}

/// How a client says that it authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisteredMethod {
    /// A public client.
    None,
    /// The secret in the body.
    ClientSecretPost,
    /// The secret in `Authorization`.
    ClientSecretBasic,
    /// RFC 7523.
    PrivateKeyJwt,
}

impl RegisteredMethod {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("client_secret_post", Self::ClientSecretPost),
        ("client_secret_basic", Self::ClientSecretBasic),
        ("private_key_jwt", Self::PrivateKeyJwt),
    ];

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, method)| method)
    }
}

/// Longer names are not shown to anybody.
const LONGEST_NAME: usize = 100;

/// A client's name, if it is fit to be shown: short, and without what changes how the text around it is read.
pub fn plain_name(name: &str) -> Option<&str> {
    let name = name.trim();
    let misleads = |letter: char| {
        matches!(
            letter,
            // What turns text around or is not seen, separators of lines, blanks that look like nothing.
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
    };
    let plain = !name.is_empty()
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(|letter| letter.is_control() || misleads(letter));
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_turn_text_around() {
        assert_eq!(plain_name(" Claude "), Some("Claude"));
        assert_eq!(plain_name("<script>"), Some("<script>"), "pages escape what they show");
        for bad in [
            "",
            "  ",
            "a\nb",
            "a\u{202e}b",
            "\u{0}",
            "a\u{1b}[31m",
            "\u{200b}x",
            "No\u{ad}tion",
            "\u{3164}",
            "\u{2800}",
            "a\u{2028}b",
            "x\u{fe0f}",
            "\u{e0041}x",
            &"x".repeat(101),
        ] {
            assert_eq!(plain_name(bad), None, "{bad:?}");
        }
    }
}
