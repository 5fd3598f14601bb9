//! What each listener serves.

use std::sync::Arc;

use axum::Router;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::compose::{TIME_FOR_THE_DISK, World};
use super::environment::Variables;
use crate::base::sources::Sources;
use crate::bridge::Bridge;
use crate::config::Settings;
use crate::config::key_sources::KeySources;
use crate::portal::admin::{self, Addresses, AdminState, KeyReader, Reloads};
use crate::portal::{self, PublicState, Seals, probes};
use crate::proxy::egress::{self, Callers, Egress, Hosts};
use crate::proxy::ingress::{self, Ingress};
use crate::proxy::intercept::Tunnels;
use crate::proxy::public::{self, Public};

impl World {
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
            read_keys: key_reader(settings.key_sources.clone(), Arc::clone(&self.lasting.variables)),
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
            bodies: Arc::clone(&self.lasting.bodies),
        })
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
fn key_reader(sources: KeySources, variables: Variables) -> KeyReader {
    Arc::new(move || {
        sources.read(variables.as_ref(), &Sources::default()).map_err(|problems| {
            let told = |(index, why): (usize, String)| format!("store.keys[{index}]: {why}.");
            problems.into_iter().map(told).collect::<Vec<_>>().join(" ")
        })
    })
}

/// The bridge, as the public listener is given it: neither knows the other.
fn bridge_service(bridge: Arc<Bridge>) -> public::BridgeService {
    BoxCloneSyncService::new(service_fn(move |request| {
        let bridge = Arc::clone(&bridge);
        async move { Ok(bridge.call(request).await) }
    }))
}
