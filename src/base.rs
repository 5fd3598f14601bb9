//! What everything else stands on and that knows nothing of the product: secrets, time, randomness, outbound HTTP,
//! reading TOML with positions, rate limits, and signed JSON (JWS).

pub mod address;
pub mod backoff;
pub mod byte_budget;
pub mod clock;
pub mod colour;
pub mod digest;
pub mod dns;
pub mod duration;
pub mod file_mark;
pub mod files;
pub mod host_name;
pub mod http;
pub mod jws;
pub mod live;
pub mod outbound;
pub mod problem_details;
pub mod random;
pub mod rate_limit;
pub mod resolver;
pub mod safe_url;
pub mod secret;
pub mod shown;
pub mod size;
pub mod sources;
pub mod toml_document;
pub mod toml_schema;
