//! Pure data and its transitions: who is connected to what, with which tokens, which handle stands for whom, and what an
//! MCP client was granted by whom.

pub mod access_policy;
pub mod api_key;
pub mod authorization;
pub mod branding;
pub mod child_status;
pub mod client;
pub mod connection;
pub mod continuation;
pub mod cors;
pub mod flow;
pub mod grant;
pub mod handle;
pub mod issued_token;
pub mod issuer_settings;
pub mod names;
pub mod redirect_uri;
pub mod return_to;
pub mod scope;
pub mod server;
pub mod stdio_server;
pub mod token_set;
pub mod tunnel_host;
