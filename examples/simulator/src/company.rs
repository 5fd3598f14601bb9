//! Companies that need no logic of their own: each is a file, `companies/NAME.toml`, written by hand from what the company
//! documents, what its SDKs do and what was seen of it. The files are never derived from anybody's catalogue of providers: they are a
//! second opinion about it.
//!
//! Bodies are JSON texts in which `{name}` stands for a value; [`filled`] says which there are.

mod answer;
mod fill;
mod load;
mod path;
mod sites;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

pub(crate) use answer::{fixed, usual_value};
pub(crate) use fill::{Values, filled, filled_text, value_like};
pub(crate) use path::{Fit, fits};
pub(crate) use sites::{headers_missing, path_fit, sites_of};

use crate::settings::ClientAuth;

/// Every company that has a file, by name.
pub(crate) fn all() -> &'static [Company] {
    static ALL: LazyLock<Vec<Company>> = LazyLock::new(load::all);
    &ALL
}

/// What a file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Company {
    /// The name of the file.
    #[serde(skip)]
    pub(crate) name: String,
    /// Where the facts come from. For readers of the file.
    pub(crate) sources: Vec<String>,
    /// How its settings differ from plain ones.
    #[serde(default = "nothing")]
    pub(crate) settings: Value,
    /// What it calls itself in ID tokens, if it speaks OpenID Connect.
    pub(crate) issuer: Option<String>,
    /// Its hosts.
    pub(crate) hosts: Vec<Host>,
    #[serde(default)]
    pub(crate) authorize: Authorize,
    pub(crate) token: Token,
    /// What refused token requests are answered with, where it differs from RFC 6749.
    #[serde(default)]
    pub(crate) refusals: Refusals,
    pub(crate) revoke: Option<Revoke>,
    pub(crate) api: Api,
    /// Sites, organizations and the like that the user may have, as the company lists them. How many the user has is a setting.
    #[serde(default)]
    pub(crate) sites: Vec<Json>,
    /// Where the id of such a site is, as JSON pointer.
    #[serde(default)]
    pub(crate) site_id: String,
}

/// One of a company's hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// What is at which path (`*` stands for one segment): `authorize`, `token`, `refresh` (where that is another place),
    /// `revoke`, `userinfo`, `jwks.json`.
    #[serde(default)]
    pub(crate) endpoints: BTreeMap<String, String>,
    /// Whether all other paths are those of an API.
    #[serde(default)]
    pub(crate) api: bool,
}

/// What it insists on in authorization requests, and what it sends back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorize {
    /// Parameters that must be there, and what each must be.
    #[serde(default)]
    pub(crate) requires: BTreeMap<String, String>,
    /// What stands between scopes; a request with another separator is refused. Empty: a request with scopes is refused.
    pub(crate) scope_separator: Option<String>,
    /// The parameter and the word in it without which there is no refresh token.
    pub(crate) offline: Option<(String, String)>,
    /// Further parameters of the callback.
    #[serde(default)]
    pub(crate) callback: BTreeMap<String, String>,
    /// The parameter of the callback that carries an HMAC-SHA256, in hexadecimal, over all others in order of their names, with the
    /// client secret as its key.
    pub(crate) hmac: Option<String>,
}

/// What tokens look like, and what token requests are answered with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What an access token looks like: `{alphanumeric:40}`, `{hexadecimal:64}` and `{characters:43}` are random.
    pub(crate) access: String,
    /// What a refresh token looks like.
    #[serde(default)]
    pub(crate) refresh: String,
    /// Request headers that must be there, and what each must be.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Parameters that an exchange of a code must have, and what each must be.
    #[serde(default)]
    pub(crate) exchange_requires: BTreeMap<String, String>,
    /// Parameters that a refresh must have, and what each must be.
    #[serde(default)]
    pub(crate) refresh_requires: BTreeMap<String, String>,
    /// What stands between scopes in replies.
    #[serde(default = "space")]
    pub(crate) scope_separator: String,
    /// The reply to a code. Values: `access_token`, `refresh_token`, `expires_in`, `refresh_expires_in`, `scope`, `realm`, `user`,
    /// `user_id`, `grant`, `now_s`, `now_ms`, `uuid`.
    pub(crate) reply: Json,
    /// The reply to a refresh token, where it is another.
    pub(crate) refresh_reply: Option<Json>,
}

/// Refused token requests.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusals {
    pub(crate) invalid_client: Option<Answer>,
    pub(crate) invalid_request: Option<Answer>,
    pub(crate) unsupported_grant_type: Option<Answer>,
    pub(crate) bad_code: Option<Answer>,
    pub(crate) redirect_mismatch: Option<Answer>,
    pub(crate) bad_refresh_token: Option<Answer>,
}

/// How a grant is given back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    #[serde(default = "post")]
    pub(crate) method: String,
    /// How the client proves who it is.
    pub(crate) auth: RevokeAuth,
    /// How the body is written; none is read where this is not said.
    pub(crate) format: Option<RevokeFormat>,
    /// The parameter that says what is given back.
    pub(crate) parameter: Option<String>,
    /// What that parameter has.
    #[serde(default)]
    pub(crate) names: RevokeNames,
    /// Parameters that must be there besides, and what each must be.
    #[serde(default)]
    pub(crate) requires: BTreeMap<String, String>,
    /// Request headers that must be there, and what each must be.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// What a grant given back is answered with.
    pub(crate) done: Answer,
    /// What is answered where there is nothing to give back; as RFC 7009 has it, the same.
    pub(crate) unknown: Option<Answer>,
    /// Whether access tokens go on to work.
    #[serde(default)]
    pub(crate) keeps_access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RevokeAuth {
    Basic,
    Body,
    SecretAsUser,
    /// The access token, as in API calls.
    Bearer,
    None,
}

impl RevokeAuth {
    /// How a client proves who it is, if it is a client that does.
    pub(crate) fn of_client(self) -> Option<ClientAuth> {
        match self {
            RevokeAuth::Basic => Some(ClientAuth::Basic),
            RevokeAuth::Body => Some(ClientAuth::Body),
            RevokeAuth::SecretAsUser => Some(ClientAuth::SecretAsUser),
            RevokeAuth::Bearer | RevokeAuth::None => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RevokeFormat {
    Form,
    Json,
    /// In the query of the URL.
    Query,
}

/// What a grant is named by that is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RevokeNames {
    #[default]
    AnyToken,
    AccessToken,
    RefreshToken,
    /// The account.
    Realm,
}

/// Its API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// The header that carries the token, bare; otherwise it is `Authorization: Bearer`.
    pub(crate) token_header: Option<String>,
    /// Request headers that must be there, below which path: values as in `paths`, `*` for any.
    #[serde(default)]
    pub(crate) headers: Vec<NeededHeader>,
    /// What a call without one of them is answered with.
    pub(crate) header_missing: Option<Answer>,
    /// What there is: patterns of paths in which `*` stands for one segment, `{site}` for one of the user's sites and `{realm}` for the
    /// grant's account. One that ends with a slash stands for all below it. None: everything.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// What a call with a token that has expired is answered with; the first whose path fits.
    pub(crate) expired: Vec<PathAnswer>,
    /// What one with a token that was revoked or replaced is answered with; as an expired one, where this is not said.
    #[serde(default)]
    pub(crate) dead: Vec<PathAnswer>,
    /// What one with no token, or with one that never was, is answered with; as a dead one, where this is not said.
    #[serde(default)]
    pub(crate) unknown: Vec<PathAnswer>,
    /// What one for another account or site is answered with.
    pub(crate) wrong_site: Option<Answer>,
    /// Fixed answers. All other calls are answered with what arrived.
    #[serde(default)]
    pub(crate) answers: Vec<Fixed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NeededHeader {
    pub(crate) name: String,
    /// What it must be; `*` for anything.
    pub(crate) value: String,
    /// At which paths; all where this is not said.
    pub(crate) path: Option<String>,
}

/// An answer for certain paths.
#[derive(Debug, Deserialize)]
pub(crate) struct PathAnswer {
    pub(crate) path: Option<String>,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// A fixed answer. `"{sites}"` in it is the list of the user's sites.
#[derive(Debug, Deserialize)]
pub(crate) struct Fixed {
    #[serde(default = "get")]
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// An answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    #[serde(default = "ok")]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// JSON.
    pub(crate) body: Option<Json>,
    /// Something else.
    pub(crate) text: Option<String>,
}

/// JSON, written as text.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Json(pub(crate) Value);

impl TryFrom<String> for Json {
    type Error = serde_json::Error;

    fn try_from(text: String) -> Result<Json, serde_json::Error> {
        serde_json::from_str(&text).map(Json)
    }
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

fn space() -> String {
    " ".to_owned()
}

fn post() -> String {
    "POST".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}
