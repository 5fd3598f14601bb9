//! Puts the parts together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StartError;
use super::environment::{Environment, Variables};
use super::liveness::Connections;
use super::network::Network;
use crate::authority::{self, Authority, AuthorityError};
use crate::base::byte_budget::ByteBudget;
use crate::base::clock::Clock;
use crate::base::outbound::Outbound;
use crate::base::random::{self, Random};
use crate::base::resolver::Resolver;
use crate::bridge::children::{self, Processes};
use crate::bridge::{self, Bridge, Connector};
use crate::config::Settings;
use crate::config::settings::Timeouts;
use crate::dance::{self, Dance};
use crate::identity::Accounts;
use crate::issuer::{self, Issuer};
use crate::model::names::Subject;
use crate::portal::{ApiMemory, PartnerApi};
use crate::proxy::event_streams::{EventStreams, Purpose};
use crate::proxy::public::{BODIES_OF_ALL, BODIES_OF_ONE};
use crate::store::issuer::IssuerStore;
use crate::store::keyring::KeyRing;
use crate::store::reseal;
use crate::store::restored::Mark;
use crate::store::seal::Sealer;
use crate::store::sentinel::Sentinel;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError};
use crate::telemetry::access::RequestIds;
use crate::telemetry::audit::{self, Audit};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::vault::guard::Guard;
use crate::vault::handles::HandleTable;
use crate::vault::{self, Vault};

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
    pub(super) lasting: Lasting,
    pub(super) network: Network,
    retired: CancellationToken,
}

/// What there is one of, whatever the settings are.
#[derive(Clone)]
pub(super) struct Lasting {
    pub(super) store: Arc<dyn Store>,
    pub(super) issuer_store: Arc<dyn IssuerStore>,
    pub(super) sealer: Sealer,
    pub(super) guard: Arc<Guard>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    /// Names of MCP servers to addresses.
    pub(super) resolver: Arc<Resolver>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) audit: Arc<Audit>,
    pub(super) refusals: Arc<Refusals>,
    /// Names of requests.
    pub(super) requests: Arc<RequestIds>,
    /// Event streams of MCP servers that are open.
    pub(super) event_streams: Arc<EventStreams>,
    /// Bodies that wait for MCP servers.
    pub(super) bodies: Arc<ByteBudget<Subject>>,
    pub(super) handles: Arc<HandleTable>,
    /// What is known of API keys besides the settings.
    pub(super) api: Arc<ApiMemory>,
    pub(super) connector: Connector,
    /// The program that child processes are started through.
    pub(super) sidekey: PathBuf,
    /// Environment variables.
    pub(super) variables: Variables,
    /// Where child processes reach us, once that is known.
    pub(super) egress: Arc<OnceLock<SocketAddr>>,
}

/// What has a memory of its own, and hands it on from world to world.
struct Keepers {
    authority: Arc<Authority>,
    vault: Arc<Vault>,
    issuer: Arc<Issuer>,
    limits: Arc<issuer::limits::Limits>,
    children: Option<Arc<Processes>>,
}

impl World {
    /// Opens the store and builds everything on it.
    pub async fn compose(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let Environment { clock, random, outbound, http, documents, sidekey, variables } = environment;
        is_no_remnant(&settings.store_directory)?;
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
            bodies: ByteBudget::new(BODIES_OF_ALL, BODIES_OF_ONE),
            random,
            metrics: Arc::new(metrics),
            health: Arc::new(Health::default()),
            audit,
            refusals: Arc::new(Refusals::default()),
            api: Arc::default(),
            connector: Connector::new(Arc::clone(&clock)),
            sidekey,
            variables,
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
}

/// What an exchange with a token endpoint may take besides its own time.
pub const TIME_FOR_THE_DISK: Duration = Duration::from_secs(5);

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

/// Refuses a directory that was in use and has no database anymore: to begin with an empty one would have every subject connect
/// again, and nobody would know why.
fn is_no_remnant(directory: &Path) -> Result<(), StartError> {
    let is_there = |name: &str| directory.join(name).metadata().is_ok_and(|metadata| metadata.len() > 0);
    let log = format!("{}-wal", sqlite::FILE_NAME);
    let others = [audit::FILE_NAME, authority::DIRECTORY_NAME];
    let Some(remnant) = others.into_iter().find(|name| is_there(name)) else { return Ok(()) };
    if is_there(sqlite::FILE_NAME) || is_there(&log) {
        return Ok(());
    }
    Err(StartError(format!(
        "{} is missing or empty, though its directory was in use ({remnant} is there): put it back, or run `sidekey restore FILE` \
         with a backup; to begin without any connection, name another directory in store.directory",
        directory.join(sqlite::FILE_NAME).display()
    )))
}

fn no_children(error: std::io::Error) -> StartError {
    StartError(format!("child processes: {error}"))
}

/// What is over is removed so often.
const SWEEP: Duration = Duration::from_secs(60);
