//! Journeys through a whole Sidekey: real listeners, a real store, a simulated provider. One binary, so that the
//! dependencies are linked once.

mod audit;
mod cli_grants;
mod client;
mod compile_fail;
mod connect;
mod demo;
mod disconnect;
mod docs;
mod egress;
mod egress_refusals;
mod front;
mod mcp_front;
mod process;
mod refresh;
mod replay;
mod secrets;
mod secrets_mcp;
mod streaming;
mod world;
