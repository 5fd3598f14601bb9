//! Sidekey keeps OAuth away from MCP servers: it connects subjects to providers, keeps their tokens sealed and fresh,
//! and puts the right one into each API call of a server that knows nothing of OAuth.
//!
//! The modules are layers; each may use those above it in this list, never below (`tests/architecture.rs` checks it).
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 0 | [`base`] | secrets, clock, randomness, safe URLs, the outbound HTTP adapter, positions in TOML files |
//! | 1 | [`model`] | pure data and transitions: connection, token set, flow, handle, client, grant |
//! | 1 | [`telemetry`] | logging, metrics, health |
//! | 2 | [`catalogue`] | provider entries: strict, inheritable, checked |
//! | 2 | [`oauth`] | what is said to a provider's authorization server and how its replies are understood |
//! | 2 | [`store`] | durable records, sealing, key ring |
//! | 3 | [`config`] | the operator's TOML -> valid settings, every problem at once |
//! | 3 | [`vault`] | the current token of a connection: cache, single flight, refresh, schedule |
//! | 3 | [`issuer`] | the OAuth 2.1 authorization server towards MCP clients; knows nothing of providers |
//! | 3 | [`authority`] | the local certificate authority: certificates for the hosts of providers, and nothing else |
//! | 3 | [`identity`] | who the user is: the account at one provider |
//! | 4 | [`dance`] | connect a subject to a provider: link, begin, callback |
//! | 4 | [`launch`] | start a program with what it needs to reach its provider, and with nothing that it could steal |
//! | 5 | [`proxy`] | the data plane on Pingora: MCP server -> provider API |
//! | 5 | [`bridge`] | MCP servers that speak stdio: streamable HTTP in front, one child process for each user behind |
//! | 5 | [`portal`] | our own pages and HTTP APIs |
//! | 6 | [`server`] | composition, listeners, start-up and shutdown |
//! | 7 | [`cli`] | one sub-command, one file |

pub mod authority;
pub mod base;
pub mod bridge;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod dance;
pub mod identity;
pub mod issuer;
pub mod launch;
pub mod model;
pub mod oauth;
pub mod portal;
pub mod proxy;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod vault;
