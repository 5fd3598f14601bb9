//! Which server this is.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::AdminState;

/// Where a running server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Addresses {
    /// Browsers and MCP clients.
    pub public: SocketAddr,
    /// MCP servers.
    pub egress: Vec<SocketAddr>,
    /// Metrics and probes.
    pub metrics: SocketAddr,
}

/// Answer of `GET /v1/server`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ServerAnswer {
    /// Which Sidekey it is.
    pub version: String,
    /// Where it listens; absent where a command answers itself, without a server.
    pub listens: Option<Addresses>,
}

/// `GET /v1/server`
pub(super) async fn show(State(state): State<AdminState>) -> Json<ServerAnswer> {
    Json(ServerAnswer { version: env!("CARGO_PKG_VERSION").to_owned(), listens: state.listens.clone() })
}
