//! What can be seen from outside: log lines, the audit trail, metrics, health. None of them ever holds a secret.

pub mod access;
pub mod audit;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod refusals;
pub mod stopwatch;
