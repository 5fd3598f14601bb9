//! What comes from outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::network::{documents_client, providers_client};
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::Dns;
use crate::base::http::HttpClient;
use crate::base::outbound::{self, Outbound};
use crate::base::random::{Random, SystemRandom};
use crate::config::Settings;
use crate::launch::confined::OURSELVES;

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
