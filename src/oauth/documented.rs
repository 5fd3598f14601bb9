//! What providers answer by their own documentation and SDKs, in files that were written by hand (`tests/fixtures/providers`), and
//! whether the bundled entries read it as it is meant.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::token_response::{Exchange, TokenRefusal, TokenReply, Verdict, read};
use crate::base::clock::Timestamp;
use crate::base::http::Response;
use crate::base::secret::Secret;
use crate::catalogue::entry::{Entry, ErrorClass, Lifetime};
use crate::catalogue::provider::tests::provider;
use crate::model::names::TokenName;
use crate::model::token_set::TokenSet;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What one provider answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documented {
    /// The name of the file, and of the entry.
    #[serde(skip)]
    pub name: String,
    reply: Vec<DocumentedReply>,
    /// Answers of its APIs.
    pub api: Vec<DocumentedAnswer>,
}

/// A reply of a token endpoint: tokens, or a verdict.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentedReply {
    what: String,
    source: String,
    /// The entry, if not that of the file's name.
    entry: Option<String>,
    to: To,
    /// Which of several tokens is refreshed.
    of: Option<TokenName>,
    status: u16,
    #[serde(default = "json")]
    content_type: String,
    body: String,
    tokens: Option<Tokens>,
    verdict: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum To {
    Code,
    Refresh,
}

/// What is in a reply, all of it: what is not said is not there.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tokens {
    access: String,
    refresh: Option<String>,
    expires_in_s: Option<u64>,
    refresh_expires_in_s: Option<u64>,
    grant_expires_in_s: Option<u64>,
    scopes: Option<Vec<String>>,
    further: BTreeMap<String, Tokens>,
    /// Among other things: what is remembered is our choice.
    captured: BTreeMap<String, String>,
}

/// An answer of an API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentedAnswer {
    /// What it is.
    pub what: String,
    source: String,
    /// Its status.
    pub status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
    /// Whether the token that was used is past its recorded expiry.
    #[serde(default)]
    pub past_expiry: bool,
    /// What it says about the token.
    pub says: Says,
}

/// What an answer says about the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// It has expired, as status and headers tell.
    Expired,
    /// It has expired, as only the body tells.
    ExpiredByItsBody,
    /// The token is not the trouble, or another one is of no use.
    Nothing,
}

impl DocumentedAnswer {
    /// Its headers.
    pub fn headers(&self) -> HeaderMap {
        let parsed = |(name, value): (&String, &String)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        self.headers.iter().map(parsed).collect()
    }
}

fn json() -> String {
    "application/json".to_owned()
}

/// All files.
pub fn all() -> Vec<Documented> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers");
    let files = std::fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("text");
        let documented: Documented =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Documented { name: path.file_stem().expect("a name").to_string_lossy().into_owned(), ..documented }
    };
    files.map(read).collect()
}

impl DocumentedReply {
    fn read(&self, name: &str) -> Result<TokenReply, TokenRefusal> {
        // What the entry says where a reply says nothing is not in the reply.
        let lifetime = Lifetime::default();
        let entry = Entry { lifetime, ..provider(self.entry.as_deref().unwrap_or(name)).entry };
        let exchange = match self.to {
            To::Code => Exchange::Code,
            To::Refresh => Exchange::Refresh(self.of.as_ref()),
        };
        let content_type = HeaderValue::from_str(&self.content_type).expect("a value");
        let reply = Response {
            status: StatusCode::from_u16(self.status).expect("a status"),
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]),
            body: Zeroizing::new(self.body.as_bytes().to_vec()),
        };
        read(&entry, exchange, &reply, NOW)
    }
}

impl Tokens {
    fn of(tokens: &TokenSet) -> Self {
        let after = |time: Option<Timestamp>| time.map(|time| time.since(NOW).as_secs());
        Self {
            access: tokens.access_token.expose().to_owned(),
            refresh: tokens.refresh_token.as_ref().map(|token| Secret::expose(token).to_owned()),
            expires_in_s: after(tokens.access_expires_at),
            refresh_expires_in_s: after(tokens.refresh_expires_at),
            grant_expires_in_s: after(tokens.grant_expires_at),
            scopes: tokens.scopes.clone(),
            ..Self::default()
        }
    }

    fn of_reply(reply: &TokenReply) -> Self {
        let further = reply.further.iter().map(|(name, tokens)| (name.to_string(), Self::of(tokens)));
        let captured = reply.captured.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self { further: further.collect(), captured: captured.collect(), ..Self::of(&reply.tokens) }
    }
}

fn verdict_named(name: &str) -> Verdict {
    match name {
        "permanent" => Verdict::Class(ErrorClass::Permanent),
        "transient" => Verdict::Class(ErrorClass::Transient),
        "configuration" => Verdict::Class(ErrorClass::Configuration),
        "user_action" => Verdict::Class(ErrorClass::UserAction),
        "throttled" => Verdict::Throttled,
        "unknown" => Verdict::Unknown,
        "misbehaved" => Verdict::Misbehaved,
        other => panic!("no verdict is called {other}"),
    }
}

#[test]
fn replies_of_token_endpoints_mean_what_their_documentation_says() {
    for documented in all() {
        for reply in &documented.reply {
            let what = format!("{}: {} ({})", documented.name, reply.what, reply.source);
            match (reply.read(&documented.name), &reply.tokens, &reply.verdict) {
                (Ok(mut read), Some(tokens), None) => {
                    read.captured.retain(|name, _| tokens.captured.contains_key(name));
                    assert_eq!(&Tokens::of_reply(&read), tokens, "{what}");
                }
                (Err(refusal), None, Some(verdict)) => assert_eq!(refusal.verdict, verdict_named(verdict), "{what}"),
                (Ok(_), None, Some(verdict)) => panic!("{what}: it is read as tokens, and not as {verdict}"),
                (Err(refusal), Some(_), None) => panic!("{what}: it is read as {refusal:?}"),
                _ => panic!("{what}: it must have either tokens or a verdict"),
            }
        }
    }
}

/// Each file has what a connection goes through.
#[test]
fn the_first_ring_is_documented() {
    let ring = ["atlassian", "figma", "github", "google", "microsoft", "quickbooks", "slack", "zoom"];
    let all = all();
    let names: BTreeSet<&str> = all.iter().map(|documented| documented.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(ring));
    for Documented { name, reply, api } in &all {
        assert!(reply.iter().any(|reply| matches!(reply.to, To::Code) && reply.tokens.is_some()), "{name}: a code");
        assert!(reply.iter().any(|reply| reply.verdict.as_deref() == Some("permanent")), "{name}: a dead grant");
        assert!(api.iter().any(|answer| answer.says != Says::Nothing), "{name}: an expired token");
        assert!(api.iter().any(|answer| answer.says == Says::Nothing), "{name}: something else");
        let sources = reply.iter().map(|reply| &reply.source).chain(api.iter().map(|answer| &answer.source));
        assert!(sources.into_iter().all(|source| !source.is_empty()), "{name}");
    }
}
