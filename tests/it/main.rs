//! Journeys through a whole Sidekey: real listeners, a real store, a simulated provider. One binary, so that the
//! dependencies are linked once.

mod client;
mod compile_fail;
mod connect;
mod demo;
mod docs;
mod egress;
mod egress_refusals;
mod front;
mod front_support;
mod ingress_grants;
mod ingress_limits;
mod ingress_requests;
mod ingress_sessions;
mod ingress_streams;
mod ingress_tokens;
mod ingress_transport;
mod mcp_front;
mod process;
mod public_framing;
mod refresh;
mod secrets;
mod streaming;
mod visit_bounds;
mod visit_callback;
mod visit_consent;
mod visit_cookies;
mod visit_flow;
mod visit_forgery;
mod visit_identity;
mod visit_memory;
mod visit_secrets;
mod visit_sessions;
mod wire;
mod world;
