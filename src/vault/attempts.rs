//! What was asked of a token endpoint and how that ended, told to whoever watches.

use std::time::Duration;

use crate::model::connection::ConnectionKey;

/// One request for a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// For which connection.
    pub key: ConnectionKey,
    /// The how manieth with this refresh token, beginning with 1.
    pub number: u32,
    /// From sending it to the end of the reply.
    pub took: Duration,
    /// `ok`, or the word for the failure in metrics and logs.
    pub outcome: &'static str,
    /// What was said, where it was not `ok`.
    pub said: Option<String>,
    /// How long to wait before the next one, if there is one.
    pub wait: Option<Duration>,
}

/// So many are kept for a watcher that does not look.
pub const KEPT: usize = 1024;
