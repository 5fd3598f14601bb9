//! What the rest of the program works with: checked, resolved, complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::base::outbound::OutboundSettings;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::base::sources::Sources;
use crate::catalogue::Provider;
use crate::config::file::{LogFormat, LogLevel};
use crate::config::key_sources::KeySources;
use crate::config::outline::Outline;
use crate::model::api_key::ApiKeys;
use crate::model::branding::Branding;
use crate::model::issuer_settings::{IssuerSettings, Rates};
use crate::model::names::{ProviderName, Subject};
use crate::model::return_to::ReturnTargets;
use crate::model::token_set::RefreshAhead;
use crate::model::tunnel_host::TunnelHost;
use crate::store::keyring::KeyRing;

/// Valid settings.
#[derive(Clone)]
pub struct Settings {
    /// What they were read from.
    pub origin: Origin,
    /// Whether they are read again when a file changes.
    pub watch: bool,
    /// Where browsers reach us.
    pub public_url: SafeUrl,
    /// Worker threads.
    pub threads: usize,
    /// The listener for browsers and MCP clients.
    pub public: Public,
    /// The listener for MCP servers.
    pub egress: Egress,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// The listener for metrics and probes.
    pub metrics_listen: SocketAddr,
    /// Where connections are kept.
    pub store_directory: PathBuf,
    /// What tells the store from its copies and from its past, where that is wanted.
    pub store_sentinel: Option<PathBuf>,
    /// The keys that seal them.
    pub keys: KeyRing,
    /// Where they were read, and can be read again.
    pub key_sources: KeySources,
    /// Ids of keys that are gone for good.
    pub lost_keys: Vec<String>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Whether each request is a line at `info`.
    pub access_log: bool,
    /// When tokens are refreshed.
    pub refresh_ahead: RefreshAhead,
    /// How long before its absolute end a grant is announced to end.
    pub grant_end_notice: Duration,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// The authorization server towards MCP clients, and the MCP servers.
    pub issuer: IssuerSettings,
    /// Where client documents may be fetched from besides the public Internet.
    pub document_networks: Vec<IpNet>,
    /// How often the public listener may be used.
    pub rates: Rates,
    /// What the pages for users look like.
    pub branding: Branding,
    /// The HTTP API for partners.
    pub api: Api,
    /// What child processes must neither see nor change; there where a server has any.
    pub outline: Option<Arc<Outline>>,
}

impl Settings {
    /// All hosts of the providers that certificates are made for, as [`Provider::hosts`] has them.
    pub fn provider_hosts(&self) -> BTreeSet<String> {
        self.providers.values().flat_map(|provider| provider.hosts()).collect()
    }
}

/// The HTTP API for partners.
#[derive(Clone, Debug, Default)]
pub struct Api {
    /// Who may use it.
    pub keys: ApiKeys,
    /// Where browsers may be led back to.
    pub return_to: ReturnTargets,
}

/// What settings were read from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The configuration file.
    pub file: PathBuf,
    /// What is in force: its content, but for what only a restart changes.
    pub value: Value,
    /// Its content as it was read.
    pub written: Value,
    /// Keys whose values in the file are not those in force: a restart is needed.
    pub needs_restart: Vec<String>,
    /// It and all other files that were read.
    pub sources: Arc<Sources>,
}

/// The public listener.
#[derive(Clone)]
pub struct Public {
    /// Address and port.
    pub listen: SocketAddr,
    /// Certificate chain and key, both PEM.
    pub tls: Option<Tls>,
    /// Origins of web pages that may call the MCP endpoints, besides our own.
    pub allowed_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The chain in PEM.
    pub certificate: String,
    /// The key in PEM.
    pub key: Secret,
}

/// The egress listener.
#[derive(Clone, Debug)]
pub struct Egress {
    /// Addresses and ports: at least one.
    pub listen: Vec<SocketAddr>,
    /// Whose connections callers without a handle use.
    pub subject: Option<Subject>,
    /// Further accepted values of `Host`.
    pub hosts: Vec<String>,
    /// Hosts to which tunnels may be opened that are passed on unseen.
    pub tunnel_hosts: Vec<TunnelHost>,
    /// Where calls to providers go.
    pub outbound: OutboundSettings,
}

impl Egress {
    /// One of the addresses: the first that others can reach, if there is one.
    pub fn exposed(&self) -> SocketAddr {
        let exposed = self.listen.iter().find(|listen| !listen.ip().is_loopback());
        *exposed.unwrap_or(&self.listen[0])
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting to a provider.
    pub connect: Duration,
    /// The next bytes from an API.
    pub read: Duration,
    /// The next bytes to an API.
    pub write: Duration,
    /// A whole exchange with a token endpoint.
    pub token: Duration,
    /// Requests under way at shutdown.
    pub drain: Duration,
}
