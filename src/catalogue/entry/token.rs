//! The token endpoint and its relatives.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::safe_url::SafeUrl;

/// The token endpoint (RFC 6749 section 3.2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Where codes are exchanged and tokens refreshed.
    pub url: SafeUrl,
    /// Where tokens are refreshed, if elsewhere.
    pub refresh_url: Option<SafeUrl>,
    /// How the client may prove who it is; the first is used.
    pub client_authentication: Vec<ClientAuthentication>,
    /// How requests are written.
    #[serde(default)]
    pub request_format: BodyFormat,
    /// Further request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Further parameters of a code exchange.
    #[serde(default)]
    pub code_parameters: BTreeMap<String, String>,
    /// Further parameters of a refresh; `{redirect_uri}` stands for ours.
    #[serde(default)]
    pub refresh_parameters: BTreeMap<String, String>,
    /// Where things stand in the reply.
    #[serde(default)]
    pub response: TokenResponse,
}

/// How the client proves who it is (RFC 6749 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// HTTP Basic.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// HTTP Basic with the secret as user name and no password.
    BasicSecretOnly,
    /// The access token as bearer.
    Bearer,
    /// None: a public client, or an endpoint that needs none.
    None,
}

/// How a request body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`.
    #[default]
    Form,
    /// `application/json`.
    Json,
}

/// How a token reply is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplyFormat {
    /// JSON.
    #[default]
    Json,
    /// JSON or form-encoded, by `Content-Type`.
    JsonOrForm,
}

/// Where things stand in a token reply, as JSON pointers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenResponse {
    /// How the reply is written.
    pub format: ReplyFormat,
    /// A boolean that says whether the call succeeded, whatever the status.
    pub ok: Option<String>,
    /// The error code.
    pub error: String,
    /// Its description.
    pub error_description: String,
    /// Whether errors come with status 200.
    pub error_with_status_200: bool,
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// The token type.
    pub token_type: String,
    /// What it may be, in any case, where it is sent: the provider's words for bearer tokens.
    pub token_types: Vec<String>,
    /// Seconds the access token lives.
    pub expires_in: String,
    /// When the token was issued, where the provider says.
    pub issued_at: Option<String>,
    /// Seconds the refresh token lives, rolling.
    pub refresh_expires_in: Option<String>,
    /// Seconds the grant lives at most.
    pub refresh_hard_expires_in: Option<String>,
    /// The scopes granted: a text, or a list of texts.
    pub scope: String,
    /// What stands between them, if not what stands in the request.
    pub scope_separator: Option<String>,
    /// Whether a refresh reply carries a refresh token at all (without one the old is kept in any case).
    pub refresh_reply_has_refresh_token: bool,
    /// Values that belong to the connection: name to place.
    pub capture: BTreeMap<String, String>,
    /// Whether they are captured from refresh replies too.
    pub capture_on_refresh: bool,
    /// Further tokens in the same reply.
    pub more_tokens: Vec<NamedToken>,
}

impl Default for TokenResponse {
    fn default() -> Self {
        Self {
            format: ReplyFormat::Json,
            ok: None,
            error: "/error".to_owned(),
            error_description: "/error_description".to_owned(),
            error_with_status_200: false,
            access_token: "/access_token".to_owned(),
            refresh_token: "/refresh_token".to_owned(),
            token_type: "/token_type".to_owned(),
            token_types: vec!["Bearer".to_owned()],
            expires_in: "/expires_in".to_owned(),
            issued_at: None,
            refresh_expires_in: None,
            refresh_hard_expires_in: None,
            scope: "/scope".to_owned(),
            scope_separator: None,
            refresh_reply_has_refresh_token: true,
            capture: BTreeMap::new(),
            capture_on_refresh: false,
            more_tokens: Vec::new(),
        }
    }
}

/// A further token in the same reply, such as the user's own beside the app's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedToken {
    /// What APIs call it.
    pub name: String,
    /// The access token.
    pub access_token: String,
    /// Its refresh token.
    pub refresh_token: Option<String>,
    /// Seconds it lives.
    pub expires_in: Option<String>,
    /// The scopes granted to it.
    pub scope: Option<String>,
}

/// A call about a token: revocation (RFC 7009) or introspection (RFC 7662), in the provider's own shape.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCall {
    /// Where; `{client_id}` is allowed in it.
    pub url: SafeUrl,
    /// The HTTP method.
    #[serde(default = "post")]
    pub method: String,
    /// How the client proves who it is.
    pub client_authentication: ClientAuthentication,
    /// How the body is written.
    #[serde(default)]
    pub request_format: BodyFormat,
    /// The body; `{access_token}`, `{refresh_token}`, `{client_id}`, `{client_secret}` and captured values are replaced.
    #[serde(default)]
    pub body: BTreeMap<String, String>,
    /// The query, likewise.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Further request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Statuses that mean success.
    #[serde(default = "ok")]
    pub ok_status: Vec<u16>,
    /// A boolean that says whether the call succeeded, as JSON pointer.
    pub ok: Option<String>,
    /// Error codes at `/error` that say that there is nothing to end, where the status does not.
    #[serde(default)]
    pub gone: Vec<String>,
    /// What is gone after it.
    pub cascades: Option<Cascade>,
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> Vec<u16> {
    vec![200]
}

/// What a revocation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// The whole grant.
    Grant,
    /// The one token.
    Token,
    /// The refresh token; access tokens work until they expire.
    RefreshTokenOnly,
    /// The user's sessions at every app: too blunt to be used unless the operator asks for it.
    AllAppsOfUser,
}

/// Where the user behind a token is found.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserInfo {
    /// Where to ask, with the access token as bearer.
    pub url: SafeUrl,
    /// The user's stable identifier, as JSON pointer.
    #[serde(default = "sub")]
    pub subject: String,
    /// A name that people recognize, as JSON pointer.
    pub display_name: Option<String>,
}

fn sub() -> String {
    "/sub".to_owned()
}

/// How the provider says who the user is, where it is the one that identifies users (`[issuer] identity`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Where it says so.
    pub source: IdentitySource,
    /// Whose accounts these are: accounts of different issuers are never the same. For `id_token`, exactly what `iss` says.
    pub issuer: String,
    /// The account's stable identifier, as JSON pointer into the ID token or the token reply; for `userinfo`, what
    /// `userinfo.subject` says counts.
    #[serde(default = "sub")]
    pub account: String,
    /// A name that people recognize, as JSON pointer; for `userinfo`, what `userinfo.display_name` says counts.
    pub display_name: Option<String>,
    /// Scopes to ask for besides, so that it says so.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// For `id_token`: where the provider publishes its keys.
    pub jwks_url: Option<SafeUrl>,
}

/// Where a provider says who the user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// In the ID token of the token reply (OpenID Connect).
    IdToken,
    /// At `userinfo`.
    Userinfo,
    /// In the token reply itself.
    TokenResponse,
}
