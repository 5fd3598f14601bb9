//! Journeys through a whole Sidekey: real listeners, a real store, a simulated provider. One binary, so that the
//! dependencies are linked once.

mod client;
mod compile_fail;
mod connect;
mod demo;
mod docs;
mod document_server;
mod egress;
mod egress_refusals;
mod front;
mod issuer_assertions;
mod issuer_authorize;
mod issuer_clients;
mod issuer_document_fetches;
mod issuer_document_keys;
mod issuer_documents;
mod issuer_errors;
mod issuer_jwt;
mod issuer_limits;
mod issuer_metadata;
mod issuer_refresh;
mod issuer_registration;
mod issuer_request;
mod issuer_restart;
mod issuer_revocation;
mod issuer_support;
mod issuer_token;
mod issuer_token_requests;
mod mcp_front;
mod process;
mod refresh;
mod secrets;
mod streaming;
mod world;
