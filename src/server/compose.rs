//! Puts the parts together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::StartError;
use crate::authority::{self, Authority, AuthorityError};
use crate::base::address::AllowedDestinations;
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::Dns;
use crate::base::http::{HttpClient, Limits, NetworkClient};
use crate::base::outbound::{self, Outbound, OutboundSettings};
use crate::base::random::{self, Random, SystemRandom};
use crate::base::resolver::Resolver;
use crate::base::sources::Sources;
use crate::bridge::children::{self, Processes};
use crate::bridge::{self, Bridge, Connector};
use crate::config::Settings;
use crate::config::key_sources::KeySources;
use crate::config::settings::Timeouts;
use crate::dance::{self, Dance};
use crate::identity::Accounts;
use crate::issuer::{self, GrantLiveness, Issuer};
use crate::launch::confined::OURSELVES;
use crate::model::grant::Grant;
use crate::model::names::ServerName;
use crate::model::server::McpServer;
use crate::portal::admin::{self, Addresses, AdminState, KeyReader, Reloads};
use crate::portal::{self, ApiMemory, PartnerApi, PublicState, Seals, probes};
use crate::proxy::egress::{self, Callers, Egress, Hosts};
use crate::proxy::event_streams::{EventStreams, Purpose};
use crate::proxy::ingress::{self, Ingress};
use crate::proxy::intercept::Tunnels;
use crate::proxy::public::{self, Public};
use crate::store::issuer::IssuerStore;
use crate::store::keyring::KeyRing;
use crate::store::reseal;
use crate::store::restored::Mark;
use crate::store::seal::Sealer;
use crate::store::sentinel::Sentinel;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::telemetry::access::RequestIds;
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
    /// The program that child processes are started through: Sidekey itself.
    pub sidekey: PathBuf,
    /// Environment variables, for settings that are read again.
    pub variables: Variables,
}

/// Where the value of a variable is found.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the fetching of a client's document may cost.
pub const DOCUMENT_LIMITS: Limits =
    Limits { connect: Duration::from_secs(3), total: Duration::from_secs(5), body: 64 * 1024 };

impl Environment {
    /// The real one.
    pub fn system(settings: &Settings) -> Result<Self, StartError> {
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
        let http = providers_client(settings, &outbound);
        let variables: Variables = Arc::new(|name| std::env::var(name).ok());
        let (documents, sidekey) = (documents_client(settings)?, PathBuf::from(OURSELVES));
        Ok(Self { clock, random, outbound, http, documents, sidekey, variables })
    }
}

fn providers_client(settings: &Settings, outbound: &Arc<Outbound>) -> Arc<dyn HttpClient> {
    let limits = Limits { connect: settings.timeouts.connect, total: settings.timeouts.token, ..Limits::default() };
    Arc::new(NetworkClient::new(limits, Arc::clone(outbound)))
}

fn documents_client(settings: &Settings) -> Result<Arc<dyn HttpClient>, StartError> {
    let allowed = AllowedDestinations(settings.document_networks.clone());
    Ok(Arc::new(NetworkClient::guarded(DOCUMENT_LIMITS, &[], allowed).map_err(StartError)?))
}

/// All parts of a Sidekey, put together; nothing listens yet.
///
/// What it is made of is of two kinds. Some parts hold what was stored, counted or learnt: there is one of each as long as
/// the process lives. The others hold settings, and are made anew where these change ([`World::under`]), on the very same
/// parts of the first kind: whoever holds the former ones can go on with them to the end.
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
    /// The HTTP API for partners.
    pub api: Arc<PartnerApi>,
    /// The child processes of MCP servers that speak stdio; absent where there is no such server.
    pub children: Option<Arc<Processes>>,
    /// What speaks to them for MCP clients.
    pub bridge: Option<Arc<Bridge>>,
    lasting: Lasting,
    network: Network,
    retired: CancellationToken,
}

/// What there is one of, whatever the settings are.
#[derive(Clone)]
struct Lasting {
    store: Arc<dyn Store>,
    issuer_store: Arc<dyn IssuerStore>,
    sealer: Sealer,
    guard: Arc<Guard>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Names of MCP servers to addresses.
    resolver: Arc<Resolver>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    audit: Arc<Audit>,
    refusals: Arc<Refusals>,
    /// Names of requests.
    requests: Arc<RequestIds>,
    /// Event streams of MCP servers that are open.
    event_streams: Arc<EventStreams>,
    handles: Arc<HandleTable>,
    /// What is known of API keys besides the settings.
    api: Arc<ApiMemory>,
    connector: Connector,
    /// The program that child processes are started through.
    sidekey: PathBuf,
    /// Where child processes reach us, once that is known.
    egress: Arc<OnceLock<SocketAddr>>,
}

/// What has a memory of its own, and hands it on from world to world.
struct Keepers {
    authority: Arc<Authority>,
    vault: Arc<Vault>,
    issuer: Arc<Issuer>,
    limits: Arc<issuer::limits::Limits>,
    children: Option<Arc<Processes>>,
}

/// The ways out, and the settings that they are made of.
#[derive(Clone)]
struct Network {
    outbound: Arc<Outbound>,
    http: Arc<dyn HttpClient>,
    documents: Arc<dyn HttpClient>,
    settings: OutboundSettings,
    timeouts: Timeouts,
    document_networks: Vec<IpNet>,
    /// Certificates that count for nothing.
    distrusted: String,
}

impl World {
    /// Opens the store and builds everything on it.
    pub async fn compose(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let Environment { clock, random, outbound, http, documents, sidekey, variables: _ } = environment;
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
        let metrics = Metrics::new(settings.providers.keys()).map_err(|error| StartError(error.to_string()))?;
        let audit = Audit::open(&settings.store_directory, Arc::clone(&clock));
        let audit = audit.map_err(|error| StartError(format!("the audit trail: {error}")))?;
        // A process that is restarted is another one, and so is one on another machine.
        let instance = random::identifier(random.as_ref(), "i_");
        let sentinel = settings.store_sentinel.clone().map(|path| Sentinel::new(path, instance));
        let failed = |error: StoreError| StartError(error.to_string());
        let handles = HandleTable::load(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&random));
        let lasting = Lasting {
            handles: handles.await.map_err(failed)?,
            store,
            issuer_store: sqlite,
            sealer,
            guard: Arc::new(Guard::new(sentinel).heeding(Mark::of(&settings.store_directory))),
            resolver: Arc::new(Resolver::system(Arc::clone(&clock))),
            requests: Arc::new(RequestIds::new(random.as_ref())),
            event_streams: Arc::default(),
            random,
            metrics: Arc::new(metrics),
            health: Arc::new(Health::default()),
            audit,
            refusals: Arc::new(Refusals::default()),
            api: Arc::default(),
            connector: Connector::new(Arc::clone(&clock)),
            sidekey,
            egress: Arc::default(),
            clock,
        };
        let network = Network::new(settings, outbound, http, documents, authority.bundle());
        let vault = Vault::new(lasting.vault(settings, &network));
        let issuer = Issuer::load(lasting.issuer(settings, &network, &vault)).await.map_err(failed)?;
        let limits = issuer::limits::Limits::new(settings.rates, &lasting.clock);
        let children = lasting.children(settings, &issuer, &authority).map(Processes::new).transpose();
        let children = children.map_err(no_children)?;
        Ok(Self::of(settings, lasting, network, Keepers { authority, vault, issuer, limits, children }))
    }

    /// The same world under other settings: what is stored, in memory, counted and under way is shared. The former one goes
    /// on for whoever holds it, until [`World::retire`] has it do nothing more of its own accord.
    pub fn under(&self, settings: &Settings) -> Result<Self, StartError> {
        let lasting = self.lasting.clone();
        let authority = self.authority.serving(settings.provider_hosts());
        let authority = authority.map_err(|error| StartError(error.to_string()))?;
        let network = self.network.under(settings, authority.bundle())?;
        lasting.metrics.admit(settings.providers.keys());
        let vault = self.vault.under(lasting.vault(settings, &network));
        let issuer = self.issuer.under(lasting.issuer(settings, &network, &vault));
        let limits = self.limits.at(settings.rates, &lasting.clock);
        let children = match (lasting.children(settings, &issuer, &authority), &self.children) {
            (Some(parts), Some(former)) => Some(former.under(parts)),
            (Some(parts), None) => Some(Processes::new(parts).map_err(no_children)?),
            (None, Some(former)) => Some(former.without_servers()),
            (None, None) => None,
        };
        Ok(Self::of(settings, lasting, network, Keepers { authority, vault, issuer, limits, children }))
    }

    fn of(settings: &Settings, lasting: Lasting, network: Network, keepers: Keepers) -> Self {
        let Keepers { authority, vault, issuer, limits, children } = keepers;
        let dance = Dance::new(dance::Parts {
            store: Arc::clone(&lasting.store),
            sealer: lasting.sealer.clone(),
            providers: settings.providers.clone(),
            accounts: Accounts::new(Arc::clone(&network.http), Arc::clone(&lasting.clock)),
            http: Arc::clone(&network.http),
            clock: Arc::clone(&lasting.clock),
            random: Arc::clone(&lasting.random),
            vault: Arc::clone(&vault),
            metrics: Arc::clone(&lasting.metrics),
            audit: Arc::clone(&lasting.audit),
        });
        let bridge = children.clone().map(|children| {
            Arc::new(Bridge {
                children: Arc::new(children) as Arc<dyn bridge::Children>,
                connector: lasting.connector.clone(),
                sessions: Arc::clone(&issuer) as Arc<dyn bridge::SessionOwners>,
                clock: Arc::clone(&lasting.clock),
                random: Arc::clone(&lasting.random),
            })
        });
        Self {
            vault,
            dance,
            children,
            bridge,
            handles: Arc::clone(&lasting.handles),
            issuer,
            limits,
            authority,
            metrics: Arc::clone(&lasting.metrics),
            health: Arc::clone(&lasting.health),
            audit: Arc::clone(&lasting.audit),
            refusals: Arc::clone(&lasting.refusals),
            api: Arc::new(PartnerApi::new(settings.api.clone(), Arc::clone(&lasting.api))),
            lasting,
            network,
            retired: CancellationToken::new(),
        }
    }

    /// Does what is to be done without anybody asking, until [`World::retire`] is called.
    pub async fn work(self: Arc<Self>) {
        let vault = Arc::clone(&self.vault).work();
        let revocations = Arc::clone(&self.dance).work_on_revocations();
        tokio::join!(vault, revocations, self.keep_issuer(), self.keep_authority(), self.keep_children());
    }

    async fn keep_children(&self) {
        let Some(children) = self.children.clone() else { return };
        tokio::select! {
            () = self.retired.cancelled() => {}
            () = children.look_after() => {}
        }
    }

    async fn keep_issuer(&self) {
        while self.pause(SWEEP).await {
            if let Err(error) = self.issuer.sweep().await {
                tracing::error!(operation = "housekeeping", %error);
            }
        }
    }

    async fn keep_authority(&self) {
        while self.pause(authority::TENDED).await {
            if let Err(error) = self.authority.tend() {
                tracing::error!(operation = "authority", %error);
            }
        }
    }

    /// Waits; `false` if there is nothing more to do then.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.retired.cancelled() => false,
            () = self.lasting.clock.sleep(pause) => true,
        }
    }

    /// Says where child processes reach us. Before that none is started.
    pub fn reach_egress_at(&self, address: SocketAddr) {
        let _ = self.lasting.egress.set(address);
    }

    /// Why child processes cannot be kept apart on this system, though they are to be.
    pub async fn check_isolation(&self) -> Result<(), StartError> {
        let Some(children) = &self.children else { return Ok(()) };
        children.cannot_isolate().await.map_or(Ok(()), |why| Err(StartError(why)))
    }

    /// Another one does the work from now on.
    pub fn retire(&self, next: &Self) {
        self.retired.cancel();
        if let (Some(former), Some(next)) = (&self.children, &next.children) {
            former.give_way(next);
        }
        self.vault.retire();
        self.dance.retire();
    }

    /// Refuses to serve while a key is missing that something needs: it may have been taken out of the configuration too early,
    /// and each of its subjects would find out alone.
    pub async fn check_keys(&self, given_up: &[String]) -> Result<(), StartError> {
        let Some(why) = self.keys_missing_from(&self.lasting.sealer.ring(), given_up).await? else {
            return match self.authority.missing_key() {
                Some(AuthorityError::UnknownKey(_, id)) if given_up.contains(&id.to_string()) => Ok(()),
                Some(error) => Err(StartError(error.to_string())),
                None => Ok(()),
            };
        };
        Err(StartError(why))
    }

    /// What is wrong with these keys, if something is stored that was sealed with another one.
    pub async fn keys_missing_from(&self, keys: &KeyRing, given_up: &[String]) -> Result<Option<String>, StartError> {
        let sealer = Sealer::new(keys.clone(), Arc::clone(&self.lasting.random));
        let missing = reseal::missing_keys(self.lasting.store.as_ref(), &sealer, given_up).await;
        let missing = missing.map_err(|error| StartError(error.to_string()))?;
        let Some(first) = missing.first() else { return Ok(None) };
        let all: Vec<String> = missing.iter().map(|used| format!("{} ({} values)", used.id, used.values)).collect();
        Ok(Some(format!(
            "stored values are sealed with keys that are not in store.keys: {}. Put them back (with both keys there, `sidekey keys reseal` \
             gets the old one out of use), or, if a key is gone for good, write store.lost_keys = [\"{}\"]: its subjects must \
             connect again",
            all.join(", "),
            first.id
        )))
    }

    /// The admin API, of a server that listens there and can have its settings read again, or of a command without one.
    pub fn admin(&self, settings: &Settings, listens: Option<Addresses>, reloads: Option<Arc<dyn Reloads>>) -> Router {
        admin::router(AdminState {
            store: Arc::clone(&self.lasting.store),
            sealer: self.lasting.sealer.clone(),
            lost_keys: Arc::new(settings.lost_keys.clone()),
            dance: Arc::clone(&self.dance),
            vault: Arc::clone(&self.vault),
            handles: Arc::clone(&self.handles),
            issuer: Arc::clone(&self.issuer),
            audit: Arc::clone(&self.audit),
            authority: Arc::clone(&self.authority),
            refusals: Arc::clone(&self.refusals),
            clock: Arc::clone(&self.lasting.clock),
            public_url: Arc::new(settings.public_url.clone()),
            api: Arc::clone(&self.api),
            listens,
            health: Arc::clone(&self.health),
            store_directory: Arc::new(settings.store_directory.clone()),
            read_keys: key_reader(settings.key_sources.clone()),
            explain: egress::explain,
            exchange: settings.timeouts.token + TIME_FOR_THE_DISK,
            children: self
                .children
                .clone()
                .map(|children| Arc::new(move || children.status()) as admin::ChildrenStatus),
            reloads,
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
            clock: Arc::clone(&self.lasting.clock),
            public_url: Arc::new(url.clone()),
            store: Arc::clone(&self.lasting.store),
            seals: Arc::new(Seals::new(self.lasting.sealer.signing_key("pages"))),
            branding: Arc::new(settings.branding.clone()),
            api: Arc::clone(&self.api),
            sealer: self.lasting.sealer.clone(),
            audit: Arc::clone(&self.audit),
        });
        let ingress = Ingress::new(ingress::Parts {
            issuer: Arc::clone(&self.issuer),
            limits: Arc::clone(&self.limits),
            resolver: Arc::clone(&self.lasting.resolver),
            timeouts: settings.timeouts,
            public_url: url.clone(),
            allowed_origins: settings.public.allowed_origins.clone(),
        });
        Public::new(public::Parts {
            bridge: self.bridge.clone().map(bridge_service),
            portal,
            mark: portal::limited::mark,
            ingress,
            issuer: Arc::clone(&self.issuer),
            public_url: url.clone(),
            trusted_proxies: settings.public.trusted_proxies.clone(),
            metrics: Arc::clone(&self.metrics),
            requests: Arc::clone(&self.lasting.requests),
            event_streams: Arc::clone(&self.lasting.event_streams),
        })
    }

    /// Ends what would otherwise last as long as MCP clients like: a stop need not wait for it.
    pub fn end_streams(&self) {
        if let Some(bridge) = &self.bridge {
            bridge.end_streams();
        }
        self.lasting.event_streams.end(Purpose::Listening);
    }

    /// Ends the streams of those too who still wait for an answer: they learn that there is none.
    pub fn end_all_streams(&self) {
        self.lasting.event_streams.end(Purpose::Answering);
    }

    /// Seals what is stored.
    pub fn sealer(&self) -> Sealer {
        self.lasting.sealer.clone()
    }

    /// Where calls to providers go.
    pub fn outbound(&self) -> &Outbound {
        &self.network.outbound
    }

    /// How long things may take.
    pub fn timeouts(&self) -> Timeouts {
        self.network.timeouts
    }

    /// Time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.lasting.clock)
    }

    /// The egress listener's application, and what decides about tunnels.
    pub fn egress(&self, settings: &Settings) -> (Egress, Tunnels) {
        let hosts = Arc::new(Hosts::new(&settings.providers, &self.network.outbound, &self.metrics));
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
            clock: Arc::clone(&self.lasting.clock),
            outbound: Arc::clone(&self.network.outbound),
            metrics: Arc::clone(&self.metrics),
            requests: Arc::clone(&self.lasting.requests),
            refusals: Arc::clone(&self.refusals),
            authority: Arc::clone(&self.authority),
        });
        let tunnels = Tunnels {
            hosts,
            callers,
            listed: settings.egress.tunnel_hosts.clone(),
            outbound: Arc::clone(&self.network.outbound),
            timeouts: settings.timeouts,
            clock: Arc::clone(&self.lasting.clock),
            metrics: Arc::clone(&self.metrics),
            refusals: Arc::clone(&self.refusals),
        };
        (egress, tunnels)
    }
}

/// Reads the keys from where the configuration says, whoever has changed them there.
fn key_reader(sources: KeySources) -> KeyReader {
    Arc::new(move || {
        sources.read(&|name| std::env::var(name).ok(), &Sources::default()).map_err(|problems| {
            let told = |(index, why): (usize, String)| format!("store.keys[{index}]: {why}.");
            problems.into_iter().map(told).collect::<Vec<_>>().join(" ")
        })
    })
}

/// What an exchange with a token endpoint may take besides its own time.
pub const TIME_FOR_THE_DISK: Duration = Duration::from_secs(5);

/// The bridge, as the public listener is given it: neither knows the other.
fn bridge_service(bridge: Arc<Bridge>) -> public::BridgeService {
    BoxCloneSyncService::new(service_fn(move |request| {
        let bridge = Arc::clone(&bridge);
        async move { Ok(bridge.call(request).await) }
    }))
}

impl Lasting {
    /// What child processes are made of, if any server has such.
    fn children(
        &self,
        settings: &Settings,
        issuer: &Arc<Issuer>,
        authority: &Arc<Authority>,
    ) -> Option<children::Parts> {
        let outline = Arc::clone(settings.outline.as_ref()?);
        Some(children::Parts {
            outline,
            providers: settings.providers.clone(),
            issuer: Arc::clone(issuer),
            store: Arc::clone(&self.store),
            authority: Arc::clone(authority),
            sidekey: self.sidekey.clone(),
            egress: Arc::clone(&self.egress),
            connector: self.connector.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: Arc::clone(&self.metrics),
            audit: Arc::clone(&self.audit),
        })
    }

    fn vault(&self, settings: &Settings, network: &Network) -> vault::Parts {
        vault::Parts {
            store: Arc::clone(&self.store),
            sealer: self.sealer.clone(),
            providers: settings.providers.clone(),
            http: Arc::clone(&network.http),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            refresh_ahead: settings.refresh_ahead,
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            audit: Arc::clone(&self.audit),
            grant_end_notice: settings.grant_end_notice,
            guard: Arc::clone(&self.guard),
        }
    }

    fn issuer(&self, settings: &Settings, network: &Network, vault: &Arc<Vault>) -> issuer::Parts {
        let liveness = Connections { vault: Arc::clone(vault), servers: settings.issuer.servers.clone() };
        issuer::Parts {
            settings: settings.issuer.clone(),
            store: Arc::clone(&self.issuer_store),
            sealer: self.sealer.clone(),
            documents: Arc::clone(&network.documents),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            liveness: Arc::new(liveness),
            audit: Arc::clone(&self.audit),
        }
    }
}

impl Network {
    fn new(
        settings: &Settings,
        outbound: Arc<Outbound>,
        http: Arc<dyn HttpClient>,
        documents: Arc<dyn HttpClient>,
        distrusted: String,
    ) -> Self {
        outbound.distrust(&distrusted);
        Self {
            outbound,
            http,
            documents,
            settings: settings.egress.outbound.clone(),
            timeouts: settings.timeouts,
            document_networks: settings.document_networks.clone(),
            distrusted,
        }
    }

    /// What its settings do not touch stays as it is.
    fn under(&self, settings: &Settings, distrusted: String) -> Result<Self, StartError> {
        let leads_elsewhere = settings.egress.outbound != self.settings || distrusted != self.distrusted;
        let outbound = match leads_elsewhere {
            true => Arc::new(self.outbound.under(settings.egress.outbound.clone()).map_err(StartError)?),
            false => Arc::clone(&self.outbound),
        };
        let http = match leads_elsewhere || settings.timeouts != self.timeouts {
            true => providers_client(settings, &outbound),
            false => Arc::clone(&self.http),
        };
        let documents = match settings.document_networks != self.document_networks {
            true => documents_client(settings)?,
            false => Arc::clone(&self.documents),
        };
        Ok(Self::new(settings, outbound, http, documents, distrusted))
    }
}

fn no_children(error: std::io::Error) -> StartError {
    StartError(format!("child processes: {error}"))
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
