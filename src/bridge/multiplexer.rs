//! The only client of one child: many requests of many clients on one pair of pipes.
//!
//! Each request goes to the child under an id of ours, and progress under a token of ours, so that clients cannot meet in
//! what they choose. [`connector`] and [`handshake`] open the conversation, [`request`] is what is asked in it, [`reader`] understands
//! what the child says, and [`wishes`] are those of clients that listen.

mod connector;
mod handshake;
mod reader;
mod request;
mod wishes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::debug;

use super::ChildKey;
use super::audience::Audience;
use super::era::{self, Era, Introduction, Level};
use super::message::{self, raw};
use super::queue::{self, Room, Sender};
use crate::base::clock::{Clock, Timestamp};

pub use connector::{Connector, NotConnected};
pub use request::{Answer, Asking, ClientRequest, Failure, Lease, Running};
use request::{Asker, OwnError, Ticket, Waiting};

/// How long a notification of a client waits for a place among what the child is to read.
const TELL_DEADLINE: Duration = Duration::from_secs(10);
/// Requests that one child works on at a time.
const MOST_REQUESTS: usize = 512;
/// Notifications of one request that wait for its client, and no more than one largest message of bytes. More are left
/// out: a client must not count on any.
const MOST_NOTES: usize = 256;
/// Ids whose late answers are recognized.
const MOST_DROPPED: usize = 4096;
/// Lines in a row that are no messages, after which a child is given up.
pub const MOST_MALFORMED: u32 = 1000;

/// What a child may do before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take until it has answered `initialize` or `server/discover`.
    pub handshake: Duration,
    /// How many bytes one message of its may have.
    pub largest_message: usize,
}

/// How the conversation with a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// [`Multiplexer::close`] was called.
    Closed,
    /// The child closed its output or its input: mostly because it ended.
    HungUp,
    /// The child wrote nothing but nonsense for long.
    GivenUp,
}

/// How much a child is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How many requests are being answered or about to be sent.
    pub leases: usize,
    /// When the last lease began or ended.
    pub last_used: Timestamp,
}

/// The only client of one child.
pub struct Multiplexer {
    key: ChildKey,
    limits: Limits,
    clock: Arc<dyn Clock>,
    audience: Arc<Audience>,
    introduction: OnceLock<Introduction>,
    state: Mutex<State>,
    leases: watch::Sender<usize>,
    ending: watch::Sender<Option<Ending>>,
    to_child: Sender,
    /// Places for notifications that are to be sent to it, and room for them.
    told: (Semaphore, Room),
}

struct State {
    last_id: u64,
    /// Requests that the child has not answered yet.
    pending: HashMap<u64, Asker>,
    /// Requests that it has not answered either, and whose answers nobody waits for any longer.
    dropped: HashSet<u64>,
    retired: bool,
    last_used: Timestamp,
    /// The log level that the child was told, and the resources that it was asked to watch.
    level: Option<Level>,
    watched: BTreeSet<String>,
    /// The subscription at a child of the newer era.
    listening: Option<u64>,
    /// How often it wrote what is no message.
    malformed: u64,
    /// How often in a row.
    malformed_in_a_row: u32,
}

impl Multiplexer {
    /// Takes the child into use; `None` once it was retired, or is over.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        let mut state = self.state();
        if state.retired || self.ending.borrow().is_some() {
            return None;
        }
        state.last_used = self.clock.now();
        self.leases.send_modify(|leases| *leases += 1);
        Some(Lease { multiplexer: Arc::clone(self) })
    }

    /// How much it is used.
    pub fn usage(&self) -> Usage {
        let last_used = self.state().last_used;
        Usage { leases: *self.leases.borrow(), last_used }
    }

    /// Gives no more leases if there are none and there was none since `moment`; whether it is so. What is to be stopped is
    /// retired first, so that nobody is handed a child that is about to go.
    pub fn retire_if_unused_since(&self, moment: Timestamp) -> bool {
        let mut state = self.state();
        let is_unused = *self.leases.borrow() == 0 && state.last_used <= moment;
        state.retired |= is_unused;
        is_unused
    }

    /// Gives no more leases. Those that there are go on.
    pub fn retire(&self) {
        self.state().retired = true;
    }

    /// Completes once there are no leases, which stays so after [`retire`](Self::retire).
    pub async fn unused(&self) {
        // The sender is ours, so there is always a value to come.
        let _ = self.leases.subscribe().wait_for(|leases| *leases == 0).await;
    }

    /// Ends the conversation: closes the child's input, which asks it to end. Requests that are still waiting fail.
    pub fn close(&self) {
        self.end(Ending::Closed);
    }

    /// Completes once the conversation is over; at once when it is.
    pub async fn over(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await.map(|ending| *ending);
        ended.ok().flatten().unwrap_or(Ending::Closed)
    }

    /// How the conversation ended, once it is over.
    pub fn ending(&self) -> Option<Ending> {
        *self.ending.borrow()
    }

    /// What the child said of itself. Every multiplexer that was handed out has it.
    pub fn introduction(&self) -> Option<&Introduction> {
        self.introduction.get()
    }

    /// Who listens to it.
    pub fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn era(&self) -> Era {
        self.introduction.get().map_or(Era::Modern, |introduction| introduction.era)
    }

    fn end(&self, ending: Ending) {
        let is_first = self.ending.send_if_modified(|ended| {
            let is_first = ended.is_none();
            *ended = ended.or(Some(ending));
            is_first
        });
        if is_first {
            let pending = std::mem::take(&mut self.state().pending);
            for (_, asker) in pending {
                asker.fail(Failure::Ended);
            }
        }
    }

    /// Makes ready what is asked of the child on behalf of a client: [`Asking::hand_on`] hands it on. Until then it waits as
    /// the line that it becomes, and nothing else of it need be held.
    pub fn ask(lease: Lease, request: ClientRequest, params: Option<&RawValue>) -> Result<Asking, Failure> {
        let multiplexer = Arc::clone(lease.multiplexer());
        let (notes_sender, notes) = queue::bounded(MOST_NOTES, multiplexer.limits.largest_message);
        let (answer_sender, answer) = oneshot::channel();
        let cancels = request.era == Era::Modern;
        let (method, era) = (request.method.clone(), request.era);
        let (id, params) = {
            let mut state = multiplexer.state();
            if state.pending.len() >= MOST_REQUESTS {
                return Err(Failure::TooMany);
            }
            let id = state.next_id();
            let (params, progress) = era::child_params(params, era, multiplexer.era(), id);
            let waiting = Waiting { request, progress, notes: notes_sender, answer: answer_sender };
            state.pending.insert(id, Asker::Client(Box::new(waiting)));
            (id, params)
        };
        let ticket = Ticket { id, cancels, lease };
        let line = message::request(&raw(&id), &method, params.as_deref());
        Ok(Asking { line, running: Running { notes, answer, ticket } })
    }

    /// Tells the child something on behalf of a client. One that does not read is not told for ever.
    pub async fn tell(&self, method: &str, params: Option<&RawValue>) -> Result<(), Failure> {
        let line = message::notification(method, params);
        let (places, room) = &self.told;
        let _place = places.try_acquire().map_err(|_| Failure::NotReading)?;
        let _room = room.try_take(&line).ok_or(Failure::NotReading)?;
        tokio::select! {
            biased;
            told = self.send(line) => told,
            () = self.clock.sleep(TELL_DEADLINE) => Err(Failure::NotReading),
        }
    }

    /// Cancels what a session asked under an id of its own. There is no answer then.
    pub fn cancel_of_session(&self, session: &str, id: &RawValue, reason: Option<&RawValue>) {
        let is_it = |asker: &Asker| match asker {
            Asker::Client(waiting) => {
                waiting.request.session.as_deref() == Some(session) && waiting.request.id.get() == id.get()
            }
            Asker::Ourselves(_) => false,
        };
        let found = self.state().pending.iter().find(|(_, asker)| is_it(asker)).map(|(own, _)| *own);
        if let Some(own) = found.filter(|own| self.forget(*own)) {
            self.cancel(own, reason);
        }
    }

    /// Cancels all that a session asked: it is over.
    pub fn end_session(&self, session: &str) {
        let is_its = |asker: &Asker| matches!(asker, Asker::Client(waiting) if waiting.request.session.as_deref() == Some(session));
        let all: Vec<u64> = self.state().pending.iter().filter(|(_, asker)| is_its(asker)).map(|(id, _)| *id).collect();
        for id in all {
            if self.forget(id) {
                self.cancel(id, None);
            }
        }
        self.watch(None);
    }

    /// Asks without waiting for the answer, nor for the child to read it; the id, if it could be asked.
    fn ask_ourselves(&self, method: &str, params: &serde_json::Value) -> Option<u64> {
        let (sender, _) = oneshot::channel();
        let id = {
            let mut state = self.state();
            let id = state.next_id();
            state.pending.insert(id, Asker::Ourselves(sender));
            id
        };
        self.send_if_possible(message::request(&raw(&id), method, Some(&raw(params)))).then_some(id)
    }

    /// Asks, for the handshake.
    async fn call(&self, method: &str, params: &serde_json::Value) -> Result<Box<RawValue>, OwnError> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut state = self.state();
            let id = state.next_id();
            state.pending.insert(id, Asker::Ourselves(sender));
            id
        };
        self.send(message::request(&raw(&id), method, Some(&raw(params)))).await.map_err(|_| OwnError::Ended)?;
        answer.await.unwrap_or(Err(OwnError::Ended))
    }

    async fn send(&self, line: Vec<u8>) -> Result<(), Failure> {
        tokio::select! {
            sent = self.to_child.send(line) => sent.map_err(|_| Failure::Ended),
            _ = self.over() => Err(Failure::Ended),
        }
    }

    /// Says what nobody waits for. A child that reads nothing must not keep us from reading.
    fn send_if_possible(&self, line: Vec<u8>) -> bool {
        let sent = self.to_child.try_send(line).is_ok();
        if !sent {
            debug!(operation = "bridge_write", server = %self.key.server, "the child does not read; left out");
        }
        sent
    }

    /// No longer waits for an answer; whether one was waited for.
    fn forget(&self, id: u64) -> bool {
        let mut state = self.state();
        let was_waiting = state.pending.remove(&id).is_some();
        if was_waiting {
            state.drop_answer(id);
        }
        was_waiting
    }

    fn cancel(&self, id: u64, reason: Option<&RawValue>) {
        let mut params = message::Object::default();
        params.set("requestId", raw(&id));
        if let Some(reason) = reason {
            params.set("reason", reason.to_owned());
        }
        self.send_if_possible(message::notification("notifications/cancelled", Some(&params.raw())));
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn drop_answer(&mut self, id: u64) {
        if self.dropped.len() >= MOST_DROPPED {
            self.dropped.clear();
        }
        self.dropped.insert(id);
    }
}
