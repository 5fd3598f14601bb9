//! What can be seen from outside: log lines, metrics, health. None of them ever holds a secret.

pub mod health;
pub mod logging;
pub mod metrics;
pub mod stopwatch;
