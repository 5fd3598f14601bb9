//! The shape of `sidekey.toml`. The comments here are what the JSON schema and the reference table say.

mod children;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::address::{AddressText, Network};
use crate::base::duration::DurationText;
use crate::base::rate_limit::Rate;
use crate::base::safe_url::SafeUrl;
use crate::config::secret_ref::SecretRef;

pub use children::ChildrenTable;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Where browsers and MCP clients reach the public listener: scheme, host and port. Redirect URIs are made from it
    /// alone. Required unless every listener is on a loopback address.
    pub public_url: Option<SafeUrl>,
    /// A directory of further provider files; one of a bundled name replaces or changes that entry.
    pub provider_directory: Option<PathBuf>,
    /// A directory of further recipes for `sidekey run`; one of a bundled name takes its place.
    pub recipe_directory: Option<PathBuf>,
    /// Worker threads of the data plane; default: one per processor.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// The listener for browsers and MCP clients.
    pub public: PublicTable,
    /// The listener for MCP servers.
    pub egress: EgressTable,
    /// The listener for the command line.
    pub admin: AdminTable,
    /// The listener for metrics and probes.
    pub metrics: MetricsTable,
    /// Where connections are kept.
    pub store: StoreTable,
    /// What is logged.
    pub logging: LoggingTable,
    /// When this file, and all that it refers to, is read again.
    pub reload: ReloadTable,
    /// When tokens are refreshed.
    pub refresh: RefreshTable,
    /// How long things may take.
    pub timeouts: TimeoutsTable,
    /// The providers that subjects can connect to, by name.
    pub providers: BTreeMap<String, ProviderTable>,
    /// The authorization server towards MCP clients.
    pub issuer: IssuerTable,
    /// MCP clients that need not register themselves, by client id.
    pub clients: BTreeMap<String, ClientTable>,
    /// The MCP servers behind the public listener, by name.
    pub servers: BTreeMap<String, ServerTable>,
    /// How often the public listener may be used.
    pub limits: LimitsTable,
    /// What the pages for users look like.
    pub portal: PortalTable,
    /// The HTTP API for partners.
    pub api: ApiTable,
}

/// `[public]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PublicTable {
    /// Address and port.
    #[schemars(extend("format" = "sidekey-address"))]
    pub listen: String,
    /// Serves TLS with this certificate; without it, plain HTTP (behind something that does TLS, or on loopback).
    pub tls: Option<TlsTable>,
    /// Origins of web pages that may call the MCP endpoints, besides our own, such as `https://inspector.example`.
    pub allowed_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed; none by default.
    pub trusted_proxies: Vec<Network>,
}

impl Default for PublicTable {
    fn default() -> Self {
        let (allowed_origins, trusted_proxies) = (Vec::new(), Vec::new());
        Self { listen: "127.0.0.1:8700".to_owned(), tls: None, allowed_origins, trusted_proxies }
    }
}

/// `[public.tls]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsTable {
    /// The certificate chain in PEM, the leaf first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: SecretRef,
}

/// `[egress]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressTable {
    /// Address and port, or a list of them: further ones are for hosts that were led here (`127.0.0.1:443`).
    pub listen: Addresses,
    /// The subject of callers that present no handle. Only for a listener on a loopback address: everybody who reaches
    /// it acts as this subject.
    pub subject: Option<String>,
    /// Further values of the `Host` header to accept (`host` or `host:port`); loopback names are always accepted.
    pub hosts: Vec<String>,
    /// Hosts that are no provider's and to which callers may open tunnels all the same, which are passed on unseen:
    /// `registry.npmjs.org`, `*.pypi.org`, `10.0.0.7:8443`.
    pub tunnel_hosts: Vec<String>,
    /// Where hosts of providers really are, by `host` or `host:port`: an address with its port, or a list of them. For private
    /// endpoints; DNS is not asked, and no upstream proxy is used for these. The certificate is still checked against the
    /// host.
    pub resolve: BTreeMap<String, Addresses>,
    /// A PEM file of root certificates that providers' servers may have besides those of the system.
    pub extra_ca: Option<PathBuf>,
    /// The proxy through which providers are called, `http://[user:password@]host:port`, or `env:NAME` or `file:PATH` where that
    /// stands. It resolves the hosts' names. Loopback addresses and what stands in `resolve` are called without it.
    pub upstream_proxy: Option<String>,
}

impl Default for EgressTable {
    fn default() -> Self {
        Self {
            listen: Addresses::One(AddressText(SocketAddr::from(([127, 0, 0, 1], 8701)))),
            subject: None,
            hosts: Vec::new(),
            tunnel_hosts: Vec::new(),
            resolve: BTreeMap::new(),
            extra_ca: None,
            upstream_proxy: None,
        }
    }
}

/// One address, or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Addresses {
    /// One.
    One(AddressText),
    /// Several; they are tried in this order.
    Several(Vec<AddressText>),
}

impl Addresses {
    /// All of them.
    pub fn all(&self) -> Vec<SocketAddr> {
        match self {
            Self::One(address) => vec![address.0],
            Self::Several(addresses) => addresses.iter().map(|address| address.0).collect(),
        }
    }
}

/// `[admin]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminTable {
    /// The Unix socket; default: `admin.sock` in the store's directory.
    pub socket: Option<PathBuf>,
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsTable {
    /// Address and port.
    #[schemars(extend("format" = "sidekey-address"))]
    pub listen: String,
}

impl Default for MetricsTable {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".to_owned() }
    }
}

/// `[store]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreTable {
    /// A directory of Sidekey's own; made (mode 0700) if it is missing.
    pub directory: PathBuf,
    /// The keys that seal what is stored: the first one seals, all of them open. A file may hold several, one a line. Required.
    pub keys: Vec<SecretRef>,
    /// Ids of keys that are gone for good. What they have sealed is given up: its subjects connect again. Without this, Sidekey
    /// does not start while a key is missing.
    pub lost_keys: Vec<String>,
    /// A file outside the store's directory (and outside what is restored together with it) that tells this store from its
    /// copies and from its past: where it says that this is one, nothing is refreshed until `sidekey store confirm`.
    pub sentinel: Option<PathBuf>,
}

impl Default for StoreTable {
    fn default() -> Self {
        Self { directory: "data".into(), keys: Vec::new(), lost_keys: Vec::new(), sentinel: None }
    }
}

/// `[logging]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingTable {
    /// How lines are written.
    pub format: LogFormat,
    /// How much is written. API calls that succeed are at `debug`; refusals and failures at `warn`.
    pub level: LogLevel,
    /// Whether each request at the public and the egress listener is a line at `info`. Otherwise it is one at `debug`.
    pub access: bool,
}

/// `[reload]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadTable {
    /// Whether a change of any of these files is noticed and taken over. Without it, SIGHUP and `sidekey reload` have them
    /// read again.
    pub watch: bool,
}

impl Default for ReloadTable {
    fn default() -> Self {
        Self { watch: true }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs an operator.
    Error,
    /// And refusals and failures.
    Warn,
    /// And what happens to connections.
    #[default]
    Info,
    /// And every API call.
    Debug,
    /// And what the libraries do.
    Trace,
}

impl LogLevel {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[refresh]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshTable {
    /// So long before an access token expires it is refreshed.
    pub ahead: DurationText,
    /// But never longer before than this share of its lifetime.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub largest_share: f64,
    /// So long before a grant ends, however often it is refreshed, that is announced.
    pub grant_end_notice: DurationText,
}

impl Default for RefreshTable {
    fn default() -> Self {
        let seconds = |seconds| DurationText(std::time::Duration::from_secs(seconds));
        Self { ahead: seconds(300), largest_share: 0.2, grant_end_notice: seconds(7 * 86_400) }
    }
}

/// `[timeouts]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsTable {
    /// For connecting to a provider, TLS included.
    pub connect: DurationText,
    /// For an API to send its next bytes. Long enough for event streams that are quiet.
    pub read: DurationText,
    /// For an API to accept the next bytes.
    pub write: DurationText,
    /// For a token endpoint to answer in full.
    pub token: DurationText,
    /// For requests under way when the server is told to stop.
    pub drain: DurationText,
}

impl Default for TimeoutsTable {
    fn default() -> Self {
        let seconds = |seconds| DurationText(std::time::Duration::from_secs(seconds));
        Self { connect: seconds(10), read: seconds(300), write: seconds(60), token: seconds(60), drain: seconds(20) }
    }
}

/// `[providers.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderTable {
    /// The catalogue entry; default: the one called NAME.
    pub entry: Option<String>,
    /// The entry's environment, such as `sandbox`.
    pub environment: Option<String>,
    /// The client id of our registration: itself, or `env:NAME` or `file:PATH`.
    pub client_id: String,
    /// The client secret of our registration.
    pub client_secret: Option<SecretRef>,
    /// Exactly these scopes; default: those of the entry and of the enabled APIs.
    pub scopes: Option<Vec<String>>,
    /// The enabled APIs; default: the entry's default one.
    pub apis: Option<Vec<String>>,
    /// Where the provider sends browsers back to; register the one that `sidekey check` prints.
    #[serde(default)]
    pub callback: CallbackPath,
    /// What handles for this provider begin with, for MCP servers that look at their token before they use it; default: what the
    /// entry says, such as `ghp_`.
    pub handle_prefix: Option<String>,
    /// What callers may do there; default: call the entry's API hosts and paths.
    pub policy: Option<PolicyTable>,
    /// Use the entry although nobody has read in a source where it sends tokens (`trust.recall` says so).
    #[serde(default)]
    pub accept_unverified: bool,
    /// Values for the entry's inputs, such as the host of a self-managed instance.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}

/// The path of a redirect URI. Both paths are answered, whichever is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallbackPath {
    /// `/callback/NAME`.
    #[default]
    Short,
    /// `/api/v1/oauth/NAME/callback`.
    Api,
}

impl CallbackPath {
    /// The path for a provider.
    pub fn of(self, name: &str) -> String {
        match self {
            Self::Short => format!("/callback/{name}"),
            Self::Api => format!("/api/v1/oauth/{name}/callback"),
        }
    }
}

/// `[providers.NAME.policy]` and `[servers.NAME.policy.PROVIDER]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyTable {
    /// Only calls that fit one of these rules; `[]` allows none. Without it: what the provider's entry allows.
    pub allow: Option<Vec<RuleTable>>,
    /// No calls that fit one of these rules, whatever is allowed.
    pub deny: Vec<RuleTable>,
}

/// A rule: what is given must hold, and at least one thing must be given.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleTable {
    /// The host is one of these; `*.example.com` stands for those below.
    pub hosts: Option<Vec<String>>,
    /// The method is one of these.
    pub methods: Option<Vec<String>>,
    /// The path that goes out begins with one of these, by whole segments; `*` stands for one segment.
    pub paths: Option<Vec<String>>,
}

/// `[issuer]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerTable {
    /// The provider whose account says who the user is. Required where there are servers; its entry must have `[identity]`.
    pub identity: Option<String>,
    /// What access tokens look like.
    pub access_tokens: AccessTokens,
    /// How long an access token works; default: `1h`, or `15m` for JWTs.
    pub access_token_lifetime: Option<DurationText>,
    /// How long a refresh token works that is not used.
    pub refresh_token_lifetime: DurationText,
    /// How long a client may go on refreshing before the user must authorize it again.
    pub grant_lifetime: DurationText,
    /// How long the answer to a refresh is repeated when the same refresh token comes again; at most `10m`.
    pub refresh_grace: DurationText,
    /// How long an authorization code works; at most `10m`.
    pub code_lifetime: DurationText,
    /// Whether `/token` takes JSON bodies too, for clients that send no forms.
    pub accept_json: bool,
    /// For JWTs: private keys in PKCS#8 PEM (EC on P-256, or RSA). The first one signs, all of them are published.
    pub signing_keys: Vec<SecretRef>,
    /// Whether clients may be programs on the user's own machine (http on a loopback address, any port).
    pub loopback_redirect_uris: bool,
    /// Redirect URIs with a scheme other than https and loopback http that clients may use.
    pub private_redirect_uris: Vec<String>,
    /// What scopes mean, by scope.
    pub scopes: BTreeMap<String, ScopeTable>,
    /// Dynamic client registration (RFC 7591).
    pub registration: RegistrationTable,
    /// Clients whose id is the URL of a Client ID Metadata Document.
    pub client_documents: ClientDocumentsTable,
}

impl Default for IssuerTable {
    fn default() -> Self {
        let seconds = |seconds| DurationText(std::time::Duration::from_secs(seconds));
        Self {
            identity: None,
            access_tokens: AccessTokens::Opaque,
            access_token_lifetime: None,
            refresh_token_lifetime: seconds(7 * 86_400),
            grant_lifetime: seconds(90 * 86_400),
            refresh_grace: seconds(30),
            code_lifetime: seconds(60),
            accept_json: false,
            signing_keys: Vec::new(),
            loopback_redirect_uris: true,
            private_redirect_uris: vec!["cursor://anysphere.cursor-mcp/oauth/callback".to_owned()],
            scopes: BTreeMap::new(),
            registration: RegistrationTable::default(),
            client_documents: ClientDocumentsTable::default(),
        }
    }
}

/// What access tokens look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessTokens {
    /// Random.
    #[default]
    Opaque,
    /// Signed (RFC 9068), for servers that look into them.
    Jwt,
}

/// `[issuer.scopes.SCOPE]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeTable {
    /// What users are told about it.
    pub description: Option<String>,
    /// Scopes that it includes.
    pub includes: Vec<String>,
}

/// `[issuer.registration]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrationTable {
    /// Whether clients may register themselves.
    pub enabled: bool,
    /// How many clients are kept that no user has approved yet; the oldest go first.
    pub max_clients: u32,
    /// And for how long. Clients that a user approved are kept.
    pub unused_retention: DurationText,
}

impl Default for RegistrationTable {
    fn default() -> Self {
        let unused_retention = DurationText(std::time::Duration::from_secs(30 * 86_400));
        Self { enabled: true, max_clients: 10_000, unused_retention }
    }
}

/// `[issuer.client_documents]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientDocumentsTable {
    /// Whether such clients are accepted.
    pub enabled: bool,
    /// Networks that documents may be fetched from besides the public Internet.
    pub allow_networks: Vec<Network>,
    /// A directory of documents (`*.json`) that are used as they are and never fetched.
    pub pinned: Option<PathBuf>,
}

impl Default for ClientDocumentsTable {
    fn default() -> Self {
        Self { enabled: true, allow_networks: Vec::new(), pinned: None }
    }
}

/// `[clients.CLIENT_ID]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTable {
    /// What users are shown.
    pub name: String,
    /// Where browsers may be sent back to.
    pub redirect_uris: Vec<String>,
    /// What `sidekey clients hash` printed for the client's secret; a public client has neither this nor `jwks`.
    pub secret_hash: Option<String>,
    /// A file with the client's public keys (a JWK set), for `private_key_jwt`.
    pub jwks: Option<PathBuf>,
    /// The scopes it may ask for; default: all.
    pub scopes: Option<Vec<String>>,
}

/// `[servers.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTable {
    /// Where its MCP endpoint is on the public listener; default: `/NAME/mcp`.
    pub path: Option<String>,
    /// The MCP endpoint of the server itself: an `http` or `https` URL, or `unix:/run/mcp.sock:/mcp`. Either this, or `command` or
    /// `recipe`.
    pub upstream: Option<String>,
    /// A program that speaks MCP on stdin and stdout, and its arguments; one is started for each user. Everybody on the machine sees
    /// them.
    #[serde(default)]
    pub command: Vec<String>,
    /// The recipe that says what variables that program reads (docs/recipes.md), and without `command` what is started.
    pub recipe: Option<String>,
    /// Variables for that program, besides those that the recipe and Sidekey set.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What the processes of that program may do and use.
    #[serde(default)]
    pub children: ChildrenTable,
    /// Allows `http` to a host that is not this machine: the handle then travels in the clear.
    #[serde(default)]
    pub insecure_upstream: bool,
    /// The providers that its tools use; the user picks from them.
    #[serde(default)]
    pub providers: Vec<String>,
    /// The APIs that its tools use, by provider; default: those that are enabled there. Users are asked for these and no others.
    #[serde(default)]
    pub apis: BTreeMap<String, Vec<String>>,
    /// Those of them without which it is of no use: when one ends for good, the client must authorize again.
    #[serde(default)]
    pub required: Vec<String>,
    /// Which of several connections of the user it uses, by provider; default: the one with the label `default`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What every request needs, and what a client gets that asks for no scope.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// What a client may ask for besides.
    #[serde(default)]
    pub optional_scopes: Vec<String>,
    /// Where the server looks for the credential that it passes on to the provider's API.
    #[serde(default)]
    pub handle: HandleTable,
    /// What may be done on its behalf, by provider, besides what the provider's own `policy` allows.
    #[serde(default)]
    pub policy: BTreeMap<String, PolicyTable>,
}

fn default_scopes() -> Vec<String> {
    vec!["mcp".to_owned()]
}

/// `[servers.NAME.handle]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HandleTable {
    /// The request header.
    pub header: String,
    /// How its value is written.
    pub scheme: HandleScheme,
    /// What the server expects its token to begin with, such as `ntn_`; handles are given that beginning.
    pub prefix: String,
}

impl Default for HandleTable {
    fn default() -> Self {
        Self { header: "authorization".to_owned(), scheme: HandleScheme::Bearer, prefix: String::new() }
    }
}

/// How a handle is written into a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandleScheme {
    /// `Bearer HANDLE`.
    #[default]
    Bearer,
    /// The handle alone.
    Raw,
}

/// `[portal]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PortalTable {
    /// What users know this place by; default: `Sidekey`.
    pub name: Option<String>,
    /// A picture beside the name: a PNG or SVG file of at most 256 KiB.
    pub logo: Option<PathBuf>,
    /// The colour of buttons and links, such as `#1a5fb4`. It must be readable on a light page; dark pages get a lighter one.
    pub accent: Option<String>,
}

/// `[api]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiTable {
    /// Pages of partners that browsers may be led back to (`return_to`): origin and path, with everything below.
    pub return_to: Vec<String>,
    /// The keys of partners' programs, by name.
    pub keys: BTreeMap<String, ApiKeyTable>,
}

/// `[api.keys.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyTable {
    /// What `sidekey api-keys generate` printed for the key: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// The providers that it is good for; default: all.
    pub providers: Option<Vec<String>>,
    /// What the subjects begin with that it is good for, such as `org-`; default: all subjects.
    pub subject_prefix: Option<String>,
    /// When it stops working: a day (`2027-06-30`, at its beginning in UTC) or a moment (`2027-06-30T12:00:00Z`).
    pub expires: Option<String>,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// Requests without or with bad credentials, for each client address.
    pub failures_per_address: Rate,
    /// Client registrations, for each client address.
    pub registrations_per_address: Rate,
    /// MCP requests, for each grant.
    pub requests_per_grant: Rate,
    /// MCP requests, for each subject.
    pub requests_per_subject: Rate,
    /// Requests to the partner API, for each key.
    pub requests_per_api_key: Rate,
}

impl Default for LimitsTable {
    fn default() -> Self {
        Self {
            failures_per_address: Rate::new(300, 60),
            registrations_per_address: Rate::new(60, 3600),
            requests_per_grant: Rate::new(600, 60),
            requests_per_subject: Rate::new(600, 60),
            requests_per_api_key: Rate::new(600, 60),
        }
    }
}
