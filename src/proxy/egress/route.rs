//! What the first segment of a path stands for, and where its requests go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderValue;

use super::super::peer::literal;
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
    pub metrics: Option<ApiMetrics>,
}

/// Where a request goes.
pub struct Upstream {
    /// Its URL.
    pub url: SafeUrl,
    /// `Host` of what goes out.
    pub authority: HeaderValue,
    /// What URLs of this API begin with.
    pub prefix: String,
    /// For a host that is an address already.
    pub literal: Option<Arc<[SocketAddr]>>,
}

impl Upstream {
    fn new(url: SafeUrl, base_path: &str) -> Option<Self> {
        let authority = HeaderValue::from_str(&url.authority()).ok()?;
        let prefix = format!("{}{base_path}", url.origin());
        let literal = literal(&url).map(|address| Arc::new([address]) as Arc<[SocketAddr]>);
        Some(Self { url, authority, prefix, literal })
    }
}

/// One route for each name of a provider and of an enabled API.
pub fn all(providers: &BTreeMap<ProviderName, Arc<Provider>>, metrics: &Metrics) -> BTreeMap<String, Arc<Route>> {
    let mut routes = BTreeMap::new();
    for provider in providers.values() {
        for api in &provider.apis {
            let is_default = api.name == provider.entry.default_api;
            let segments = std::iter::once(api.name.clone()).chain(is_default.then(|| provider.name.to_string()));
            let stands_for_this =
                |segment: &String| *segment == provider.name.as_str() || is_unambiguous(segment, provider, providers);
            for segment in segments.filter(stands_for_this) {
                let upstream = match &api.origin {
                    Origin::Fixed(url) => Upstream::new(url.clone(), &api.base_path).map(Arc::new),
                    Origin::Captured { .. } => None,
                };
                let metrics = metrics.api(&provider.name).cloned();
                let route = Route { segment: segment.clone(), api: Arc::clone(api), upstream, metrics };
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
pub fn captured_upstream(api: &Api, captured: &Captured) -> Option<Upstream> {
    let Origin::Captured { template, suffixes } = &api.origin else { return None };
    let text = template::fill(template, |name| captured.get(name).map(String::as_str));
    let url = provider::origin(text.trim_end_matches('/')).ok()?;
    let bounded = suffixes.iter().any(|suffix| suffix.starts_with('.') && url.host().ends_with(suffix.as_str()));
    if bounded && url.is_https() { Upstream::new(url, &api.base_path) } else { None }
}
