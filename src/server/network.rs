//! The ways out.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::StartError;
use crate::base::address::AllowedDestinations;
use crate::base::http::{HttpClient, Limits, NetworkClient};
use crate::base::outbound::{Outbound, OutboundSettings};
use crate::config::Settings;
use crate::config::settings::Timeouts;

/// What the fetching of a client's document may cost.
pub const DOCUMENT_LIMITS: Limits =
    Limits { connect: Duration::from_secs(3), total: Duration::from_secs(5), body: 64 * 1024 };

/// The ways out, and the settings that they are made of.
#[derive(Clone)]
pub struct Network {
    /// Where calls to providers go.
    pub outbound: Arc<Outbound>,
    /// Token endpoints.
    pub http: Arc<dyn HttpClient>,
    /// Documents at URLs that strangers chose.
    pub documents: Arc<dyn HttpClient>,
    settings: OutboundSettings,
    /// How long things may take.
    pub timeouts: Timeouts,
    document_networks: Vec<IpNet>,
    /// Certificates that count for nothing.
    distrusted: String,
}

impl Network {
    /// With these settings; the certificates in `distrusted` count for nothing.
    pub fn new(
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

    /// Under other settings: what these do not touch stays as it is.
    pub fn under(&self, settings: &Settings, distrusted: String) -> Result<Self, StartError> {
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

/// What asks the token endpoints of providers.
pub fn providers_client(settings: &Settings, outbound: &Arc<Outbound>) -> Arc<dyn HttpClient> {
    let limits = Limits { connect: settings.timeouts.connect, total: settings.timeouts.token, ..Limits::default() };
    Arc::new(NetworkClient::new(limits, Arc::clone(outbound)))
}

/// What fetches documents at URLs that strangers chose.
pub fn documents_client(settings: &Settings) -> Result<Arc<dyn HttpClient>, StartError> {
    let allowed = AllowedDestinations(settings.document_networks.clone());
    Ok(Arc::new(NetworkClient::guarded(DOCUMENT_LIMITS, &[], allowed).map_err(StartError)?))
}
