//! The HTTP API for partners: their programs have their users connect, and see how that stands. Programs prove who they are by
//! an API key and get JSON; the browser of a user comes by a one-time URL and is led on.
//!
//! Who may do what is decided in [`access`], in this order: which key is it, was it used too often, is this well-formed, does
//! the key cover it. Only then is looked whether it exists, so that a key tells nothing about what it does not cover.
//! [`problem`] is the one table of refusals. [`openapi`] describes all of it, and is made from the types used here.

mod access;
mod connect;
mod connections;
mod openapi;
mod problem;
mod sites;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dashmap::DashMap;

use super::{PublicState, callback};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::config::settings::Api;
use crate::model::api_key::ApiKey;
use crate::model::connection::ConnectionKey;
pub use openapi::document as openapi_document;
pub use problem::{answer, wants_json};

/// What the API knows besides what it is asked.
pub struct PartnerApi {
    settings: Api,
    memory: Arc<Memory>,
}

/// What stays when settings change.
#[derive(Default)]
pub struct Memory {
    /// When each key was last used, by its name. Since the start: what was done with it stands in the audit trail.
    used: DashMap<Arc<str>, Timestamp>,
    /// When a company's name was asked for in vain, by the id of the connection.
    nameless: DashMap<String, Timestamp>,
}

/// A provider that does not tell a company's name is asked again after so long.
const NAMELESS: Duration = Duration::from_secs(300);

impl PartnerApi {
    /// With these keys and pages.
    pub fn new(settings: Api, memory: Arc<Memory>) -> Self {
        Self { settings, memory }
    }

    /// All keys by name, and when they were last used since the start.
    pub fn keys(&self) -> Vec<(Arc<ApiKey>, Option<Timestamp>)> {
        let keys = self.settings.keys.all().into_iter();
        keys.map(|key| (Arc::clone(key), self.memory.used.get(&key.name).map(|used| *used))).collect()
    }

    /// Whether browsers may be led to this page.
    pub fn may_return_to(&self, url: &str) -> bool {
        self.settings.return_to.allows(url)
    }

    /// Whether what was made with the key of this digest for this connection is still good.
    pub fn vouches_for(&self, digest: &Digest, key: &ConnectionKey, now: Timestamp) -> bool {
        self.settings.keys.find(digest).is_some_and(|api_key| api_key.vouches_for(key, now))
    }

    /// Whether it is worth asking for the name of this connection's company.
    fn may_have_a_name(&self, id: &str, now: Timestamp) -> bool {
        self.memory.nameless.get(id).is_none_or(|asked| now.since(*asked) >= NAMELESS)
    }

    fn has_no_name(&self, id: &str, now: Timestamp) {
        self.memory.nameless.retain(|_, asked| now.since(*asked) < NAMELESS);
        self.memory.nameless.insert(id.to_owned(), now);
    }
}

/// The routes below `/api/v1`.
pub fn routes() -> Router<PublicState> {
    Router::new()
        .route("/openapi.json", get(openapi::show))
        .route("/oauth/connections", get(connections::list))
        .route("/oauth/{provider}/connect/{subject}", get(connect::open).post(connect::create))
        .route("/oauth/{provider}/callback", get(callback::callback))
        .route("/oauth/{provider}/status/{subject}", get(connections::status))
        .route("/oauth/{provider}/disconnect/{subject}", axum::routing::post(connections::disconnect))
        .route("/oauth/{provider}/sites/{subject}", get(sites::list).post(sites::choose))
        .fallback(|| async { problem::Refused::NotFound.into_response() })
        .method_not_allowed_fallback(other_method)
}

/// `OPTIONS` is answered, without any header that would let pages of other sites read what is here; other methods are not.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    problem::Refused::Method.into_response()
}
