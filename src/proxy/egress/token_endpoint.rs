//! Requests to a provider's token endpoint, answered here ([`emulate`]) for the caller whose they are.

use std::sync::Arc;

use pingora::proxy::Session;
use tracing::debug;

use super::admit::read_body;
use super::caller::{self, CallerError, Who};
use super::emulate::{self, Connected, Endpoint, Request, Whose};
use super::placement::PlacementError;
use super::refusal::Refusal;
use super::way::{Address, Way};
use super::{Context, Egress};
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::model::connection::{Captured, ConnectionKey};
use crate::vault::TokenError;

/// An endpoint that is emulated, and the providers whose it may be.
pub struct Emulated {
    endpoint: Endpoint,
    providers: Vec<Arc<Provider>>,
}

impl Egress {
    /// What is emulated at a request's address, if anything.
    pub(super) fn emulated(&self, method: &str, address: &Address<'_>) -> Option<Emulated> {
        let segments = &address.target.segments;
        let (host, base_path, rest) = match &address.way {
            Way::Host(host) => (host.as_str(), "", segments.as_slice()),
            // A base URL leads to the API's own host, and what is at that host must not be called this way either.
            Way::BaseUrl => {
                let (first, rest) = segments.split_first()?;
                let route = self.routes.get(*first)?;
                (route.upstream.as_ref()?.url.host(), route.api.base_path.as_str(), rest)
            }
        };
        let at_host = &self.parts.hosts_of_providers.get(host)?.emulated;
        if at_host.is_empty() {
            return None;
        }
        let path = format!("{base_path}/{}", rest.join("/"));
        let found = at_host
            .iter()
            .filter_map(|provider| Some((emulate::endpoint(provider, method, host, &path)?, Arc::clone(provider))));
        let (endpoints, providers): (Vec<_>, Vec<_>) = found.unzip();
        endpoints.first().map(|endpoint| Emulated { endpoint: *endpoint, providers })
    }

    /// Answers in the provider's place.
    pub(super) async fn emulate(
        &self,
        session: &mut Session,
        context: &mut Context,
        address: &Address<'_>,
        emulated: Emulated,
    ) -> Result<emulate::Answer, Refusal> {
        let body = read_body(session).await?;
        let body = body.bytes().ok_or(Refusal::Placement(PlacementError::BodyTooLarge))?;
        let headers = &session.req_header().headers;
        let request = Request { endpoint: emulated.endpoint, headers, query: address.target.query, body };
        let presented = emulate::presented(&request).map_err(Refusal::Placement)?;
        let handle = presented.as_deref().or(address.handle.as_ref().map(Secret::expose));
        let now = self.parts.clock.now();
        let who = match caller::identify(headers, handle, &self.parts.callers) {
            Err(error @ CallerError::Browser) => return Err(Refusal::Caller(error)),
            other => other,
        };
        context.who = who.as_ref().ok().cloned();
        let (provider, key) = chosen(&emulated.providers, |provider| match &who {
            Ok(who) => Who::at(who, &provider.name, address.label.as_ref(), now).map(|caller| caller.key),
            Err(error) => Err(*error),
        });
        let token = match &key {
            Ok(key) if emulated.endpoint == Endpoint::Token => Some(self.parts.vault.token_at(key, now).await),
            _ => None,
        };
        let nothing = Captured::new();
        let whose = match (&key, &token) {
            (Err(error), _) => Whose::Unknown(*error),
            (Ok(key), Some(Err(TokenError::NotConnected | TokenError::NeedsReauth { .. }))) => Whose::NotConnected(key),
            (Ok(_), token) => {
                // A token that cannot be had just now is no reason to say that there is no connection.
                let captured = token.as_ref().and_then(|token| token.as_ref().ok()).map(|token| &token.captured);
                Whose::Connected(Connected { handle, scopes: None, captured: captured.unwrap_or(&nothing) })
            }
        };
        let answer = emulate::answer(provider, &request, &whose, now);
        debug!(
            operation = "emulate", provider = %provider.name,
            subject = key.as_ref().ok().map(|key| key.subject.as_str()), outcome = answer.status,
        );
        Ok(answer)
    }
}

/// The first provider that the caller may use; else the first.
fn chosen(
    providers: &[Arc<Provider>],
    key_at: impl Fn(&Provider) -> Result<ConnectionKey, CallerError>,
) -> (&Provider, Result<ConnectionKey, CallerError>) {
    let tried = || providers.iter().map(|provider| (provider.as_ref(), key_at(provider)));
    tried().find(|(_, key)| key.is_ok()).or_else(|| tried().next()).expect("there is at least one")
}
