//! The data plane on Pingora.
//!
//! [`egress`] is journey J4: an MCP server calls a provider's API through us, by one of the ways of [`intercept`]. [`public`] is the public listener: requests
//! at the endpoints of MCP servers are journey J3 ([`ingress`]), all others go to the portal.

mod connection;
mod current;
pub mod egress;
pub mod event_streams;
mod failure;
mod framing;
pub mod ingress;
pub mod intercept;
mod peer;
pub mod public;
mod respond;

pub use connection::Connection;
pub use current::Current;

/// A token among the parameters would be a second credential.
fn has_access_token(query: &str) -> bool {
    const NAMES: [&str; 3] = ["access_token", "private_token", "job_token"];
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}
