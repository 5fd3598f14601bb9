//! The stdio bridge: streamable HTTP towards MCP clients, in both eras of the protocol and at the same time, and behind it
//! child processes that speak MCP on stdin and stdout.
//!
//! A request that the proxy has admitted arrives at the bridge as an ordinary HTTP request. It asks
//! [`Children`] for the child of this user, which starts one where none runs, and hands the message to the child's
//! [`Multiplexer`]: the only client that the child ever sees. [`Connector`] is what makes a multiplexer out of a child's
//! pipes; who starts and stops processes is given one, and knows nothing of the protocol beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::issuer::LiveGrant;
use crate::model::names::{Label, ProviderName, ServerName, Subject};

mod answer;
mod audience;
pub mod children;
mod era;
mod front;
mod lines;
mod message;
mod multiplexer;
mod queue;
mod refusal;

pub use era::Opening;
pub use front::{Bridge, SessionOwners};
pub use multiplexer::{Connector, Ending, Lease, Limits, Multiplexer, NotConnected, Usage};

/// Which child a request belongs to. Clients of one user share a child where the user allowed them the same providers; a
/// client that was allowed less never reaches a child that may do more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildKey {
    /// Which MCP server the child is.
    pub server: ServerName,
    /// Whose it is.
    pub subject: Subject,
    /// What its handle reaches.
    pub providers: BTreeSet<ProviderName>,
    /// Which of several connections it reaches at a provider; at the others, the one that is called `default`.
    pub labels: BTreeMap<ProviderName, Label>,
    /// In which era of the protocol it is spoken to. Most servers speak one, and then there is one child; one that speaks
    /// both keeps to the era in which it was spoken to first.
    pub opening: Opening,
}

/// Who starts and stops the processes.
#[async_trait]
pub trait Children: Send + Sync {
    /// The child of this key: the one that runs, or one that is started now; callers that arrive meanwhile wait for the
    /// same start. `grant` is on whose behalf it is asked for; it is live, and has the subject and the providers of the
    /// key.
    ///
    /// What is returned comes from [`Multiplexer::lease`], and the child is in use until it is dropped.
    async fn child(&self, key: &ChildKey, grant: &Arc<LiveGrant>) -> Result<Lease, NoChild>;
}

/// Why there is no child to talk to. The sentences are shown to the user: they hold no secrets and none of the child's
/// own output that was not scrubbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoChild {
    /// As many children run as may, and none of them is idle.
    AllBusy {
        /// When to try again.
        retry_after: Duration,
    },
    /// It ended too often, and is not started again for a while.
    BackingOff {
        /// When to try again.
        retry_after: Duration,
        /// How it ended the last time.
        why: String,
    },
    /// It was started just now, and did not get as far as answering.
    CannotStart {
        /// What happened.
        why: String,
    },
    /// Sidekey is about to stop.
    Stopping,
}

#[cfg(test)]
mod tests;
