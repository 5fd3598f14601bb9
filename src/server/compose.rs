//! Puts the parts together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;

use super::StartError;
use crate::authority::{self, Authority, AuthorityError};
use crate::base::address::AllowedDestinations;
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::Dns;
use crate::base::http::{HttpClient, Limits, NetworkClient};
use crate::base::outbound::{self, Outbound};
use crate::base::random::{self, Random, SystemRandom};
use crate::base::resolver::Resolver;
use crate::config::Settings;
use crate::dance::{self, Dance};
use crate::identity::Accounts;
use crate::issuer::{self, GrantLiveness, Issuer};
use crate::model::grant::Grant;
use crate::model::names::ServerName;
use crate::model::server::McpServer;
use crate::portal::admin::{self, Addresses, AdminState};
use crate::portal::{self, PublicState, Seals, probes};
use crate::proxy::egress::{self, Callers, Egress, Hosts};
use crate::proxy::ingress::{self, Ingress};
use crate::proxy::intercept::Tunnels;
use crate::proxy::public::{self, Public};
use crate::store::reseal;
use crate::store::seal::Sealer;
use crate::store::sentinel::Sentinel;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::telemetry::audit::Audit;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::vault::guard::Guard;
use crate::vault::handles::HandleTable;
use crate::vault::{self, Vault};

/// What comes from outside: time, randomness, the network.
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Where calls to providers go.
    pub outbound: Arc<Outbound>,
    /// Token endpoints.
    pub http: Arc<dyn HttpClient>,
    /// Documents at URLs that strangers chose.
    pub documents: Arc<dyn HttpClient>,
}

/// What the fetching of a client's document may cost.
pub const DOCUMENT_LIMITS: Limits =
    Limits { connect: Duration::from_secs(3), total: Duration::from_secs(5), body: 64 * 1024 };

impl Environment {
    /// The real one.
    pub fn system(settings: &Settings) -> Result<Self, StartError> {
        let limits = Limits { connect: settings.timeouts.connect, total: settings.timeouts.token, ..Limits::default() };
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let parts = outbound::Parts {
            settings: settings.egress.outbound.clone(),
            own_ports: [&settings.public.listen, &settings.metrics_listen]
                .into_iter()
                .chain(&settings.egress.listen)
                .map(SocketAddr::port)
                .collect(),
            dns: Dns::system(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        let outbound = Arc::new(Outbound::new(parts).map_err(StartError)?);
        let http = NetworkClient::new(limits, Arc::clone(&outbound));
        let allowed = AllowedDestinations(settings.document_networks.clone());
        let documents = NetworkClient::guarded(DOCUMENT_LIMITS, &[], allowed).map_err(StartError)?;
        Ok(Self { clock, random, outbound, http: Arc::new(http), documents: Arc::new(documents) })
    }
}

/// All parts of a Sidekey, put together; nothing listens yet.
pub struct World {
    /// Tokens.
    pub vault: Arc<Vault>,
    /// Journey J1.
    pub dance: Arc<Dance>,
    /// Callers.
    pub handles: Arc<HandleTable>,
    /// Journeys J2 and J3.
    pub issuer: Arc<Issuer>,
    /// How often the public listener may be used.
    pub limits: Arc<issuer::limits::Limits>,
    /// Certificates for the hosts of providers.
    pub authority: Arc<Authority>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Whether all is well.
    pub health: Arc<Health>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// What was refused to whom.
    pub refusals: Arc<Refusals>,
    store: Arc<dyn Store>,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    outbound: Arc<Outbound>,
}

impl World {
    /// Opens the store and builds everything on it.
    pub async fn compose(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let Environment { clock, random, outbound, http, documents } = environment;
        let sqlite = SqliteStore::open(&settings.store_directory).map_err(|error| StartError(error.to_string()))?;
        let sqlite = Arc::new(sqlite);
        let store: Arc<dyn Store> = Arc::clone(&sqlite) as Arc<dyn Store>;
        let sealer = Sealer::new(settings.keys.clone(), Arc::clone(&random));
        let authority = Authority::open(authority::Parts {
            directory: settings.store_directory.join(authority::DIRECTORY_NAME),
            sealer: sealer.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            hosts: settings.provider_hosts(),
        });
        let authority = authority.map_err(|error| StartError(error.to_string()))?;
        outbound.distrust(&authority.bundle());
        let metrics = Metrics::new(settings.providers.keys()).map_err(|error| StartError(error.to_string()))?;
        let (metrics, health) = (Arc::new(metrics), Arc::new(Health::default()));
        let audit = Audit::open(&settings.store_directory, Arc::clone(&clock));
        let audit = audit.map_err(|error| StartError(format!("the audit trail: {error}")))?;
        // A process that is restarted is another one, and so is one on another machine.
        let instance = random::identifier(random.as_ref(), "i_");
        let sentinel = settings.store_sentinel.clone().map(|path| Sentinel::new(path, instance));
        let vault = Vault::new(vault::Parts {
            store: Arc::clone(&store),
            sealer: sealer.clone(),
            providers: settings.providers.clone(),
            http: Arc::clone(&http),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            refresh_ahead: settings.refresh_ahead,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            audit: Arc::clone(&audit),
            grant_end_notice: settings.grant_end_notice,
            guard: Guard::new(sentinel),
        });
        let dance = Dance::new(dance::Parts {
            store: Arc::clone(&store),
            sealer: sealer.clone(),
            providers: settings.providers.clone(),
            accounts: Accounts::new(Arc::clone(&http), Arc::clone(&clock)),
            http,
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            vault: Arc::clone(&vault),
            metrics: Arc::clone(&metrics),
            audit: Arc::clone(&audit),
        });
        let failed = |error: StoreError| StartError(error.to_string());
        let handles = HandleTable::load(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&random));
        let handles = handles.await.map_err(failed)?;
        let liveness = Connections { vault: Arc::clone(&vault), servers: settings.issuer.servers.clone() };
        let issuer = Issuer::load(issuer::Parts {
            settings: settings.issuer.clone(),
            store: sqlite,
            sealer: sealer.clone(),
            documents,
            clock: Arc::clone(&clock),
            random,
            liveness: Arc::new(liveness),
            audit: Arc::clone(&audit),
        });
        let issuer = issuer.await.map_err(failed)?;
        let limits = issuer::limits::Limits::new(settings.rates, &clock);
        let refusals = Arc::new(Refusals::default());
        Ok(Self {
            vault,
            dance,
            handles,
            issuer,
            limits,
            authority,
            metrics,
            health,
            audit,
            refusals,
            store,
            sealer,
            clock,
            outbound,
        })
    }

    /// Refuses to serve while a key is missing that something needs: it may have been taken out of the configuration too early,
    /// and each of its subjects would find out alone.
    pub async fn check_keys(&self, given_up: &[String]) -> Result<(), StartError> {
        let missing = reseal::missing_keys(self.store.as_ref(), &self.sealer, given_up).await;
        let missing = missing.map_err(|error| StartError(error.to_string()))?;
        let Some(first) = missing.first() else {
            return match self.authority.missing_key() {
                Some(AuthorityError::UnknownKey(_, id)) if given_up.contains(&id.to_string()) => Ok(()),
                Some(error) => Err(StartError(error.to_string())),
                None => Ok(()),
            };
        };
        let all: Vec<String> = missing.iter().map(|used| format!("{} ({} values)", used.id, used.values)).collect();
        Err(StartError(format!(
            "stored values are sealed with keys that are not in store.keys: {}. Put them back (with both keys there, `sidekey keys reseal` \
             gets the old one out of use), or, if a key is gone for good, write store.lost_keys = [\"{}\"]: its subjects must \
             connect again",
            all.join(", "),
            first.id
        )))
    }

    /// The admin API, of a server that listens there or of a command without one.
    pub fn admin(&self, settings: &Settings, listens: Option<Addresses>) -> Router {
        admin::router(AdminState {
            store: Arc::clone(&self.store),
            sealer: self.sealer.clone(),
            lost_keys: Arc::new(settings.lost_keys.clone()),
            dance: Arc::clone(&self.dance),
            vault: Arc::clone(&self.vault),
            handles: Arc::clone(&self.handles),
            issuer: Arc::clone(&self.issuer),
            audit: Arc::clone(&self.audit),
            authority: Arc::clone(&self.authority),
            refusals: Arc::clone(&self.refusals),
            clock: Arc::clone(&self.clock),
            public_url: Arc::new(settings.public_url.clone()),
            listens,
        })
    }

    /// Metrics and probes.
    pub fn probes(&self) -> Router {
        probes::router(Arc::clone(&self.metrics), Arc::clone(&self.health))
    }

    /// The public listener's application.
    pub fn public(&self, settings: &Settings) -> Public {
        let url = &settings.public_url;
        let portal = portal::public(PublicState {
            dance: Arc::clone(&self.dance),
            issuer: Arc::clone(&self.issuer),
            vault: Arc::clone(&self.vault),
            limits: Arc::clone(&self.limits),
            clock: Arc::clone(&self.clock),
            public_url: Arc::new(url.clone()),
            store: Arc::clone(&self.store),
            seals: Arc::new(Seals::new(self.sealer.signing_key("pages"))),
            branding: Arc::new(settings.branding.clone()),
        });
        let ingress = Ingress::new(ingress::Parts {
            issuer: Arc::clone(&self.issuer),
            limits: Arc::clone(&self.limits),
            resolver: Resolver::system(Arc::clone(&self.clock)),
            timeouts: settings.timeouts,
            public_url: url.clone(),
            allowed_origins: settings.public.allowed_origins.clone(),
        });
        Public::new(public::Parts {
            portal,
            mark: portal::limited::mark,
            ingress,
            issuer: Arc::clone(&self.issuer),
            public_url: url.clone(),
            trusted_proxies: settings.public.trusted_proxies.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Keeps the issuer's house until the future is dropped.
    pub async fn keep_issuer(issuer: Arc<Issuer>, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep(SWEEP).await;
            if let Err(error) = issuer.sweep().await {
                tracing::error!(operation = "housekeeping", %error);
            }
        }
    }

    /// Where calls to providers go.
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The egress listener's application, and what decides about tunnels.
    pub fn egress(&self, settings: &Settings) -> (Egress, Tunnels) {
        let hosts = Arc::new(Hosts::new(&settings.providers, &self.outbound, &self.metrics));
        let callers = Arc::new(Callers {
            handles: Arc::clone(&self.handles),
            issuer: Arc::clone(&self.issuer),
            fixed_subject: settings.egress.subject.clone(),
        });
        let egress = Egress::new(egress::Parts {
            providers: settings.providers.clone(),
            vault: Arc::clone(&self.vault),
            callers: Arc::clone(&callers),
            hosts_of_providers: Arc::clone(&hosts),
            servers: settings.issuer.servers.clone(),
            public_url: settings.public_url.clone(),
            listen: settings.egress.listen.clone(),
            hosts: settings.egress.hosts.clone(),
            timeouts: settings.timeouts,
            clock: Arc::clone(&self.clock),
            outbound: Arc::clone(&self.outbound),
            metrics: Arc::clone(&self.metrics),
            refusals: Arc::clone(&self.refusals),
            authority: Arc::clone(&self.authority),
        });
        let tunnels = Tunnels {
            hosts,
            callers,
            listed: settings.egress.tunnel_hosts.clone(),
            outbound: Arc::clone(&self.outbound),
            timeouts: settings.timeouts,
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            refusals: Arc::clone(&self.refusals),
        };
        (egress, tunnels)
    }
}

/// What is over is removed so often.
const SWEEP: Duration = Duration::from_secs(60);

/// A grant needs the connections to the providers that its server requires.
struct Connections {
    vault: Arc<Vault>,
    servers: BTreeMap<ServerName, Arc<McpServer>>,
}

#[async_trait]
impl GrantLiveness for Connections {
    async fn is_gone(&self, grant: &Grant) -> bool {
        let Some(server) = self.servers.get(&grant.authorization.server) else { return false };
        for provider in server.required.intersection(&grant.authorization.providers) {
            if !self.vault.standing(&grant.connection(provider)).await.is_connected() {
                return true;
            }
        }
        false
    }
}
