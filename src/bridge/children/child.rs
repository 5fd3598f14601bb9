//! A child that runs, and how it is told to go.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::clock::{Clock, Timestamp};
use crate::bridge::multiplexer::{Ending, MOST_MALFORMED};
use crate::bridge::{ChildKey, Multiplexer};
use crate::issuer::child_handles::ChildHandle;
use crate::model::child_status::ChildStatus;
use crate::model::connection::{Captured, ConnectionKey};

/// How long a child that is to go may take for what it was asked. Whatever it never answers would otherwise keep it, with
/// rights that it should no longer have and in a place that others wait for, for as long as somebody likes.
const LONGEST_FINISH: Duration = Duration::from_secs(60);

/// A child that runs.
pub struct Child {
    pub(super) key: ChildKey,
    pub(super) handle: Arc<ChildHandle>,
    pub(super) multiplexer: Arc<Multiplexer>,
    pub(super) pid: u32,
    pub(super) started_at: Timestamp,
    pub(super) connection: Option<(ConnectionKey, Captured)>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    /// Whether it counts as a failure already that it ended by itself.
    pub(super) is_noted: AtomicBool,
}

/// How and why a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Once it has answered what it was asked, and after [`LONGEST_FINISH`] at the latest.
    WhenUnused(&'static str),
    /// At once.
    Now(&'static str),
}

impl Child {
    /// Why it is of no use anymore, if that is its own doing.
    pub(super) fn given_up(&self) -> Option<String> {
        match self.multiplexer.ending()? {
            Ending::Closed => None,
            Ending::HungUp => Some("it closed its standard output or input".to_owned()),
            Ending::GivenUp => Some(format!("it wrote {MOST_MALFORMED} lines in a row that are no messages")),
        }
    }

    /// Has it stopped. What is more urgent goes before what is less.
    pub(super) fn ask_to_stop(&self, stop: Stop) {
        self.stop.send_if_modified(|asked| {
            let is_news = matches!((&asked, stop), (None, _) | (Some(Stop::WhenUnused(_)), Stop::Now(_)));
            if is_news {
                *asked = Some(stop);
            }
            is_news
        });
    }

    /// Completes once it is to be stopped, with the reason.
    pub(super) async fn is_to_stop(&self, clock: &dyn Clock) -> &'static str {
        let mut stop = self.stop.subscribe();
        let at_once = async {
            let found = stop.wait_for(|asked| matches!(asked, Some(Stop::Now(_)))).await;
            found.ok().and_then(|asked| *asked)
        };
        let mut stop = self.stop.subscribe();
        let when_unused = async {
            let found = stop.wait_for(Option::is_some).await.ok().and_then(|asked| *asked);
            tokio::select! {
                () = self.multiplexer.unused() => {}
                () = clock.sleep(LONGEST_FINISH) => {}
            }
            found
        };
        let asked = tokio::select! {
            asked = at_once => asked,
            asked = when_unused => asked,
        };
        match asked {
            Some(Stop::Now(reason) | Stop::WhenUnused(reason)) => reason,
            None => "stopped",
        }
    }

    pub(super) fn status(&self, state: &'static str) -> ChildStatus {
        let usage = self.multiplexer.usage();
        ChildStatus {
            id: self.handle.id.clone(),
            server: self.key.server.clone(),
            subject: self.key.subject.clone(),
            providers: self.key.providers.clone(),
            pid: self.pid,
            state,
            requests: usage.leases,
            started_at: self.started_at.to_string(),
            last_used_at: usage.last_used.to_string(),
        }
    }
}
