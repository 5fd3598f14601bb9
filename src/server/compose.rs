//! Puts the parts together.

use std::sync::Arc;

use axum::Router;

use super::StartError;
use crate::base::clock::{Clock, SystemClock};
use crate::base::http::{HttpClient, Limits, NetworkClient};
use crate::base::random::{Random, SystemRandom};
use crate::config::Settings;
use crate::dance::{self, Dance};
use crate::portal::admin::{self, AdminState};
use crate::portal::{self, PublicState, probes};
use crate::proxy::Resolver;
use crate::proxy::egress::{self, Egress};
use crate::proxy::public::Public;
use crate::store::Store;
use crate::store::seal::Sealer;
use crate::store::sqlite::SqliteStore;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::vault::handles::HandleTable;
use crate::vault::{self, Vault};

/// What comes from outside: time, randomness, the network.
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Token endpoints.
    pub http: Arc<dyn HttpClient>,
}

impl Environment {
    /// The real one.
    pub fn system(settings: &Settings) -> Result<Self, StartError> {
        let limits = Limits { connect: settings.timeouts.connect, total: settings.timeouts.token, ..Limits::default() };
        let http = NetworkClient::new(limits, &[]).map_err(StartError)?;
        Ok(Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), http: Arc::new(http) })
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
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Whether all is well.
    pub health: Arc<Health>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl World {
    /// Opens the store and builds everything on it.
    pub async fn compose(settings: &Settings, environment: Environment) -> Result<Self, StartError> {
        let Environment { clock, random, http } = environment;
        let store = SqliteStore::open(&settings.store_directory).map_err(|error| StartError(error.to_string()))?;
        let store: Arc<dyn Store> = Arc::new(store);
        let sealer = Sealer::new(settings.keys.clone(), Arc::clone(&random));
        let metrics = Metrics::new(settings.providers.keys()).map_err(|error| StartError(error.to_string()))?;
        let (metrics, health) = (Arc::new(metrics), Arc::new(Health::default()));
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
        });
        let dance = Dance::new(dance::Parts {
            store: Arc::clone(&store),
            sealer,
            providers: settings.providers.clone(),
            http,
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            vault: Arc::clone(&vault),
            metrics: Arc::clone(&metrics),
        });
        let handles = HandleTable::load(Arc::clone(&store), Arc::clone(&clock), random);
        let handles = handles.await.map_err(|error| StartError(error.to_string()))?;
        Ok(Self { vault, dance, handles, metrics, health, store, clock })
    }

    /// The admin API.
    pub fn admin(&self, settings: &Settings) -> Router {
        admin::router(AdminState {
            store: Arc::clone(&self.store),
            dance: Arc::clone(&self.dance),
            handles: Arc::clone(&self.handles),
            clock: Arc::clone(&self.clock),
            public_url: Arc::new(settings.public_url.clone()),
        })
    }

    /// Metrics and probes.
    pub fn probes(&self) -> Router {
        probes::router(Arc::clone(&self.metrics), Arc::clone(&self.health))
    }

    /// The public listener's application.
    pub fn public(&self, settings: &Settings) -> Public {
        let url = &settings.public_url;
        let state = PublicState { dance: Arc::clone(&self.dance), public_url: Arc::new(url.clone()) };
        Public::new(portal::public(state), url.authority(), url.is_loopback())
    }

    /// The egress listener's application.
    pub fn egress(&self, settings: &Settings) -> Egress {
        Egress::new(egress::Parts {
            providers: settings.providers.clone(),
            vault: Arc::clone(&self.vault),
            handles: Arc::clone(&self.handles),
            fixed_subject: settings.egress.subject.clone(),
            listen: settings.egress.listen,
            hosts: settings.egress.hosts.clone(),
            timeouts: settings.timeouts,
            clock: Arc::clone(&self.clock),
            resolver: Resolver::new(Arc::clone(&self.clock)),
            metrics: Arc::clone(&self.metrics),
        })
    }
}
