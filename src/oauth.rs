//! What is said to a provider's authorization server, and how its replies are understood: no sockets, no store.

pub mod authorize_url;
#[cfg(test)]
pub mod documented;
pub mod error_class;
pub mod retry_after;
pub mod revoke;
pub mod scopes;
pub mod token_request;
pub mod token_response;
