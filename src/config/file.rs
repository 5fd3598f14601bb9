//! The shape of `sidekey.toml`. The comments here are what the JSON schema and the reference table say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::duration::DurationText;
use crate::base::safe_url::SafeUrl;
use crate::config::secret_ref::SecretRef;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// Where browsers and MCP clients reach the public listener: scheme, host and port. Redirect URIs are made from it
    /// alone. Required unless every listener is on a loopback address.
    pub public_url: Option<SafeUrl>,
    /// A directory of further provider files; one of a bundled name replaces or changes that entry.
    pub provider_directory: Option<PathBuf>,
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
    /// When tokens are refreshed.
    pub refresh: RefreshTable,
    /// How long things may take.
    pub timeouts: TimeoutsTable,
    /// The providers that subjects can connect to, by name.
    pub providers: BTreeMap<String, ProviderTable>,
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
}

impl Default for PublicTable {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8700".to_owned(), tls: None }
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
    /// Address and port.
    #[schemars(extend("format" = "sidekey-address"))]
    pub listen: String,
    /// The subject of callers that present no handle. Only for a listener on a loopback address: everybody who reaches
    /// it acts as this subject.
    pub subject: Option<String>,
    /// Further values of the `Host` header to accept (`host` or `host:port`); loopback names are always accepted.
    pub hosts: Vec<String>,
}

impl Default for EgressTable {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8701".to_owned(), subject: None, hosts: Vec::new() }
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
    /// The keys that seal what is stored: the first one seals, all of them open. Required.
    pub keys: Vec<SecretRef>,
}

impl Default for StoreTable {
    fn default() -> Self {
        Self { directory: "data".into(), keys: Vec::new() }
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

/// `[refresh]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshTable {
    /// So long before an access token expires it is refreshed.
    pub ahead: DurationText,
    /// But never longer before than this share of its lifetime.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub largest_share: f64,
}

impl Default for RefreshTable {
    fn default() -> Self {
        Self { ahead: DurationText(std::time::Duration::from_secs(300)), largest_share: 0.2 }
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
    /// Values for the entry's inputs, such as the host of a self-managed instance.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}
