//! What is said to a provider's authorization server, and how its replies are understood: no sockets, no store.

pub mod authorize_url;
pub mod error_class;
pub mod retry_after;
pub mod revoke;
pub mod token_request;
pub mod token_response;
