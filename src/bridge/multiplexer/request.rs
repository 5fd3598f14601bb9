//! A request on its way to the child, and who waits for its answer.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Multiplexer;
use crate::bridge::era::{Era, Level};
use crate::bridge::queue::{Receiver, Sender};

/// Who waits for an answer.
pub(super) enum Asker {
    /// A client.
    Client(Box<Waiting>),
    /// We.
    Ourselves(oneshot::Sender<Result<Box<RawValue>, OwnError>>),
}

/// A request of a client.
pub(super) struct Waiting {
    pub(super) request: ClientRequest,
    pub(super) progress: Option<Box<RawValue>>,
    pub(super) notes: Sender,
    pub(super) answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// What a client asks.
pub struct ClientRequest {
    /// The client's own id of the request.
    pub id: Box<RawValue>,
    /// What for.
    pub method: String,
    /// In which era.
    pub era: Era,
    /// In which session, if it is of the older era.
    pub session: Option<String>,
    /// The least important log messages that it wants to see; `None` for none in the newer era, and for those that the
    /// child sends of itself in the older one.
    pub level: Option<Level>,
}

/// The answer of a child, as its client is to get it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub text: Vec<u8>,
    /// The code, if it is an error.
    pub error: Option<i64>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The child is over.
    Ended,
    /// It wrote what is no message, and the answer may have been in it.
    Malformed,
    /// It asked for something that a client of the older era cannot be asked for.
    NeedsInput,
    /// It has more to do already than it may.
    TooMany,
    /// It does not read what it is told.
    NotReading,
}

/// Why a request of ours was not answered with a result.
#[derive(Debug)]
pub(super) enum OwnError {
    Ended,
    /// The error that it was answered with.
    Error {
        code: i64,
        data: Option<Box<RawValue>>,
    },
}

/// A request under way. To drop it is to no longer want the answer.
pub struct Running {
    /// What belongs to it and comes before the answer.
    pub notes: Receiver,
    /// The answer; nothing once the client has cancelled it in another way.
    pub answer: oneshot::Receiver<Result<Answer, Failure>>,
    pub(super) ticket: Ticket,
}

/// A request that its child is about to be handed.
pub struct Asking {
    pub(super) line: Vec<u8>,
    pub(super) running: Running,
}

impl Asking {
    /// Hands it on, as soon as there is room for it.
    pub async fn hand_on(self) -> Result<Running, Failure> {
        let multiplexer = Arc::clone(self.running.ticket.lease.multiplexer());
        multiplexer.send(self.line).await?;
        Ok(self.running)
    }
}

pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) cancels: bool,
    pub(super) lease: Lease,
}

impl Drop for Ticket {
    /// In the newer era to hang up is to cancel. In the older one it is not, and the child finishes what it began; nobody
    /// can get the answer any longer.
    fn drop(&mut self) {
        let multiplexer = &self.lease.multiplexer;
        if multiplexer.forget(self.id) && self.cancels {
            multiplexer.cancel(self.id, None);
        }
    }
}

/// As long as it is held, the child is in use.
pub struct Lease {
    pub(super) multiplexer: Arc<Multiplexer>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.multiplexer.state().last_used = self.multiplexer.clock.now();
        self.multiplexer.leases.send_modify(|leases| *leases -= 1);
    }
}

impl Lease {
    /// What is leased.
    pub fn multiplexer(&self) -> &Arc<Multiplexer> {
        &self.multiplexer
    }
}

impl Asker {
    pub(super) fn fail(self, failure: Failure) {
        // Whoever no longer waits does not need to know.
        match self {
            Self::Client(waiting) => drop(waiting.answer.send(Err(failure))),
            Self::Ourselves(sender) => drop(sender.send(Err(OwnError::Ended))),
        }
    }
}
