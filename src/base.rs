//! What everything else stands on and that knows nothing of the product: secrets, time, randomness, outbound HTTP,
//! and reading TOML with positions.

pub mod backoff;
pub mod clock;
pub mod digest;
pub mod duration;
pub mod files;
pub mod http;
pub mod problem_details;
pub mod random;
pub mod safe_url;
pub mod secret;
pub mod toml_document;
pub mod toml_schema;
