//! The data plane on Pingora.
//!
//! [`egress`] is journey J4: an MCP server calls a provider's API through us. [`public`] hands the public listener's
//! requests to the portal.

pub mod egress;
mod peer;
pub mod public;
mod respond;

pub use peer::Resolver;
