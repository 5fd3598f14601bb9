//! How a child process stands, for whoever asks.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::names::{ProviderName, ServerName, Subject};

/// One child process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildStatus {
    /// Its public name; that of its handle too.
    pub id: String,
    /// Of which MCP server.
    pub server: ServerName,
    /// On whose behalf.
    pub subject: Subject,
    /// What its handle reaches.
    pub providers: BTreeSet<ProviderName>,
    /// The number of the process.
    pub pid: u32,
    /// `running`, or `stopping` once it serves no further request.
    pub state: &'static str,
    /// How many requests it has.
    pub requests: usize,
    /// When it was started.
    pub started_at: String,
    /// When a request of its last began or ended.
    pub last_used_at: String,
}
