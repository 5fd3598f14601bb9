//! The format of a provider file. `docs/providers.md` explains it with examples.
//!
//! Places in JSON replies are JSON pointers (RFC 6901). `{name}` in a text stands for one of the entry's `inputs`
//! (replaced when the file is loaded) or for a value captured with the connection (replaced for each request).

mod api;
mod authorize;
mod handle;
mod lifecycle;
mod look_up;
mod placement;
mod token;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use api::{
    ApiCommon, ApiEntry, Credential, CredentialScheme, DeclaredHeaders, ExpirySignature, NotExpired, RateLimit,
};
pub use authorize::{Authorize, CallbackSignature, Capture, Pkce};
pub use handle::{HandleLook, HandleShape};
pub use lifecycle::{ErrorClass, ErrorRule, Errors, Lifetime, Repetition, Reuse, Rotation, RotationModel};
pub use look_up::{CompanyLookup, Lookup};
pub use placement::{BasicHalf, Fill, PlaceEntry};
pub use token::{
    BodyFormat, Cascade, ClientAuthentication, Identity, IdentitySource, NamedToken, ReplyFormat, Token, TokenCall,
    TokenResponse, UserInfo,
};

/// Everything Sidekey knows about one provider.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What people call the provider.
    pub display_name: String,
    /// The day on which the sources of this entry were read, as YYYY-MM-DD.
    pub checked_on: String,
    /// Where the facts come from.
    pub documentation: Option<String>,
    /// What else an operator should know: redirect URI policy, consoles, limits.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How sure the facts are.
    #[serde(default)]
    pub trust: Trust,
    /// The entry that this one is laid over.
    pub extends: Option<String>,
    /// Values that an operator may set (`[providers.NAME.inputs]`), such as the host of a self-managed instance.
    #[serde(default)]
    pub inputs: BTreeMap<String, Input>,
    /// The environment used where the operator names none.
    pub default_environment: Option<String>,
    /// Variants of the entry (such as `sandbox`): each is laid over the rest when it is chosen.
    #[serde(default)]
    pub environments: BTreeMap<String, Map<String, Value>>,
    /// The authorization endpoint.
    pub authorize: Authorize,
    /// The token endpoint.
    pub token: Token,
    /// How long things live.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// What happens to the refresh token when it is used.
    pub rotation: Rotation,
    /// How a grant is revoked, where the provider offers it.
    pub revoke: Option<TokenCall>,
    /// How a token is introspected, where the provider offers it.
    pub introspect: Option<TokenCall>,
    /// How the user behind a token is found, where the provider offers it.
    pub userinfo: Option<UserInfo>,
    /// How the provider says who the user is, where it can be the one that identifies users.
    pub identity: Option<Identity>,
    /// The captured values that say which company, workspace or site a connection is for. It is not replaced by one for
    /// another.
    #[serde(default)]
    pub realm: Vec<String>,
    /// Look-ups to make once connected, whose results belong to the connection.
    #[serde(default)]
    pub post_connect: Vec<Lookup>,
    /// How the company is asked for that a connection is for, where nothing else brings its name.
    pub company: Option<CompanyLookup>,
    /// What the errors of the token endpoint mean.
    #[serde(default)]
    pub errors: Errors,
    /// What handles look like that stand in for the provider's tokens.
    pub handle: Option<HandleLook>,
    /// What holds for all APIs of the provider.
    #[serde(default)]
    pub api: ApiCommon,
    /// The API that is reached under the provider's own name.
    pub default_api: String,
    /// The APIs by name; each name is a first path segment at the egress listener.
    pub apis: BTreeMap<String, ApiEntry>,
}

/// How sure the facts of an entry are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Keys of this entry that are recall, not read in a source, such as `api.expired`; one stands for all below it. An operator
    /// must accept them where they say where tokens are sent (`accept_unverified`).
    #[serde(default)]
    pub recall: Vec<String>,
}

/// A value that an operator may set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is, for people.
    pub description: String,
    /// Used where the operator sets none; without it the operator must.
    pub default: Option<String>,
    /// What it may look like, for people; and for trying the entry where there is no default.
    /// What a value looks like, for people; needed where there is no default.
    pub example: Option<String>,
    /// What it must look like.
    #[schemars(extend("format" = "sidekey-pattern"))]
    pub pattern: String,
}
