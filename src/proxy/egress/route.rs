//! What a request is for: by the first segment of its path where that names an API, or by the provider's host; and where
//! it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::HeaderValue;

use super::emulate;
use crate::base::host_name;
use crate::base::outbound::{self, Outbound};
use crate::base::safe_url::SafeUrl;
use crate::catalogue::provider::{self, Origin};
use crate::catalogue::{Api, Provider, template};
use crate::model::connection::Captured;
use crate::model::names::ProviderName;
use crate::telemetry::metrics::{ApiMetrics, Metrics};

/// What a first path segment stands for.
pub struct Route {
    /// The segment.
    pub segment: String,
    /// The API.
    pub api: Arc<Api>,
    /// For an API that is always in the same place.
    pub upstream: Option<Arc<Upstream>>,
    /// Counts its calls.
    pub metrics: ApiMetrics,
}

impl Route {
    fn new(segment: String, api: Arc<Api>, outbound: &Outbound, metrics: &Metrics) -> Self {
        let upstream = match &api.origin {
            Origin::Fixed(url) => Upstream::new(url.clone(), &api.base_path, outbound).map(Arc::new),
            Origin::Captured { .. } => None,
        };
        let metrics = metrics.api(&api.provider);
        Self { segment, api, upstream, metrics }
    }

    /// The segments of a path at the API's own host, without those that the API begins with; `None` if it does not begin so.
    pub fn below_base<'t, 's>(&self, segments: &'t [&'s str]) -> Option<&'t [&'s str]> {
        let base = self.api.base_path.split('/').filter(|segment| !segment.is_empty());
        let mut rest = segments;
        for wanted in base {
            rest = match rest {
                [first, others @ ..] if *first == wanted => others,
                _ => return None,
            };
        }
        Some(rest)
    }
}

/// The hosts of providers, and what is there.
pub struct Hosts {
    by_name: BTreeMap<String, Host>,
    /// For APIs whose host a connection names: how the host ends.
    by_suffix: Vec<(String, Host)>,
}

/// One host of providers.
#[derive(Default)]
pub struct Host {
    /// The APIs there.
    pub routes: Vec<Arc<Route>>,
    /// The providers whose token endpoint, or one like it, is there.
    pub emulated: Vec<Arc<Provider>>,
    ports: Vec<u16>,
}

impl Host {
    fn is_at(&mut self, port: u16) {
        if !self.ports.contains(&port) {
            self.ports.push(port);
        }
    }
}

impl Host {
    fn emulates_none_of(&self, provider: &Provider) -> bool {
        self.emulated.iter().all(|known| known.name != provider.name)
    }
}

impl Hosts {
    /// The hosts of all APIs and token endpoints that are reached over TLS and by name.
    pub fn new(providers: &BTreeMap<ProviderName, Arc<Provider>>, outbound: &Outbound, metrics: &Metrics) -> Self {
        let mut hosts = Self { by_name: BTreeMap::new(), by_suffix: Vec::new() };
        for provider in providers.values() {
            for api in &provider.apis {
                let route = Arc::new(Route::new(api.name.clone(), Arc::clone(api), outbound, metrics));
                match &api.origin {
                    Origin::Fixed(url) => hosts.add_route(url, route),
                    Origin::Captured { suffixes, .. } => {
                        for suffix in suffixes {
                            let mut host = Host::default();
                            host.routes.push(Arc::clone(&route));
                            host.is_at(443);
                            hosts.by_suffix.push((suffix.clone(), host));
                        }
                    }
                }
            }
            if let (Some(api), Some(userinfo)) = (provider.userinfo_api(), &provider.entry.userinfo) {
                let route = Route::new(api.name.clone(), Arc::new(api), outbound, metrics);
                hosts.add_route(&userinfo.url, Arc::new(route));
            }
            for url in emulate::urls(provider) {
                if let Some(host) = hosts.at(url).filter(|host| host.emulates_none_of(provider)) {
                    host.emulated.push(Arc::clone(provider));
                }
            }
        }
        hosts
    }

    fn add_route(&mut self, url: &SafeUrl, route: Arc<Route>) {
        if let Some(host) = self.at(url) {
            host.routes.push(route);
        }
    }

    /// The host of a URL, if it is reached over TLS and by name.
    fn at(&mut self, url: &SafeUrl) -> Option<&mut Host> {
        let name = host_name::canonical(url.host()).ok().filter(|_| url.is_https())?;
        let host = self.by_name.entry(name).or_default();
        host.is_at(url.port());
        Some(host)
    }

    /// What is at a host; `None` if it is no provider's.
    pub fn get(&self, name: &str) -> Option<&Host> {
        let by_suffix = || self.by_suffix.iter().find(|(suffix, _)| name.ends_with(suffix.as_str()));
        self.by_name.get(name).or_else(|| by_suffix().map(|(_, host)| host))
    }

    /// The ports of a host; `None` if it is no provider's.
    pub fn ports(&self, name: &str) -> Option<&[u16]> {
        self.get(name).map(|host| host.ports.as_slice())
    }
}

/// Where a request goes.
pub struct Upstream {
    /// Its URL.
    pub url: SafeUrl,
    /// `Host` of what goes out.
    pub authority: HeaderValue,
    /// What URLs of this API begin with.
    pub prefix: String,
    /// For a host whose address is written down.
    pub settled: Option<outbound::Way>,
}

impl Upstream {
    fn new(url: SafeUrl, base_path: &str, outbound: &Outbound) -> Option<Self> {
        let authority = HeaderValue::from_str(&url.authority()).ok()?;
        let prefix = format!("{}{base_path}", url.origin());
        let settled = outbound.settled_way(&url);
        Some(Self { url, authority, prefix, settled })
    }
}

/// One route for each name of a provider and of an enabled API.
pub fn all(
    providers: &BTreeMap<ProviderName, Arc<Provider>>,
    outbound: &Outbound,
    metrics: &Metrics,
) -> BTreeMap<String, Arc<Route>> {
    let mut routes = BTreeMap::new();
    for provider in providers.values() {
        for api in &provider.apis {
            let is_default = api.name == provider.entry.default_api;
            let segments = std::iter::once(api.name.clone()).chain(is_default.then(|| provider.name.to_string()));
            let stands_for_this =
                |segment: &String| *segment == provider.name.as_str() || is_unambiguous(segment, provider, providers);
            for segment in segments.filter(stands_for_this) {
                let route = Route::new(segment.clone(), Arc::clone(api), outbound, metrics);
                routes.insert(segment, Arc::new(route));
            }
        }
    }
    routes
}

/// Whether the name of an API means this provider's: a provider of that name goes first, and where two providers have an
/// API of that name, it stands for neither.
fn is_unambiguous(api: &str, provider: &Provider, providers: &BTreeMap<ProviderName, Arc<Provider>>) -> bool {
    providers
        .values()
        .filter(|other| other.name != provider.name)
        .all(|other| other.name.as_str() != api && other.apis.iter().all(|others| others.name != api))
}

/// The place that a connection names, if it is within the provider's bounds: https, and a host below one of the
/// declared suffixes.
pub fn captured_upstream(api: &Api, captured: &Captured, outbound: &Outbound) -> Option<Upstream> {
    let Origin::Captured { template, suffixes } = &api.origin else { return None };
    let text = template::fill(template, |name| captured.get(name).map(String::as_str));
    let url = provider::origin(text.trim_end_matches('/')).ok()?;
    let bounded = suffixes.iter().any(|suffix| suffix.starts_with('.') && url.host().ends_with(suffix.as_str()));
    if bounded && url.is_https() { Upstream::new(url, &api.base_path, outbound) } else { None }
}
