//! The only client of one child: many requests of many clients on one pair of pipes.
//!
//! Each request goes to the child under an id of ours, and progress under a token of ours, so that clients cannot meet in
//! what they choose. [`handshake`] opens the conversation, [`reader`] understands what the child says.

mod handshake;
mod reader;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::debug;

use super::ChildKey;
use super::audience::{Audience, Audiences};
use super::era::{self, Era, Eras, Introduction, Level};
use super::lines::Line;
use super::message::{self, raw};
use super::queue::{self, Receiver, Room, Sender};
use crate::base::clock::{Clock, Timestamp};

/// Messages that wait for a child to read them, and no more than one largest message of bytes. More wait where they come
/// from.
const LONGEST_QUEUE: usize = 64;
/// Notifications of clients that wait for a place among those, and no more than one largest message of bytes.
const MOST_TOLD: usize = 64;
/// How long one waits for that.
const TELL_DEADLINE: Duration = Duration::from_secs(10);
/// Requests that one child works on at a time.
const MOST_REQUESTS: usize = 512;
/// Notifications of one request that wait for its client, and no more than one largest message of bytes. More are left
/// out: a client must not count on any.
const MOST_NOTES: usize = 256;
/// Ids whose late answers are recognized.
const MOST_DROPPED: usize = 4096;
/// Lines in a row that are no messages, after which a child is given up.
const MOST_MALFORMED: u32 = 1000;
/// Longer lines are understood where they keep no worker from other clients.
const LONG_LINE: usize = 256 * 1024;

/// What a child may do before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take until it has answered `initialize` or `server/discover`.
    pub handshake: Duration,
    /// How many bytes one message of its may have.
    pub largest_message: usize,
}

/// Makes a [`Multiplexer`] of a child's pipes. Copies know the same.
#[derive(Clone)]
pub struct Connector {
    clock: Arc<dyn Clock>,
    eras: Arc<Eras>,
    audiences: Arc<Audiences>,
}

/// Why a child could not be talked to. The text holds nothing of what the child wrote that could be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// It closed its output, or its input: mostly because it ended.
    HungUp,
    /// It did not answer in time.
    TimedOut,
    /// It refused to be initialized, or answered what cannot be understood.
    Refused(String),
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

/// Who waits for an answer.
enum Asker {
    /// A client.
    Client(Box<Waiting>),
    /// We.
    Ourselves(oneshot::Sender<Result<Box<RawValue>, OwnError>>),
}

/// A request of a client.
struct Waiting {
    request: ClientRequest,
    progress: Option<Box<RawValue>>,
    notes: Sender,
    answer: oneshot::Sender<Result<Answer, Failure>>,
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
enum OwnError {
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
    ticket: Ticket,
}

/// A request that its child is about to be handed.
pub struct Asking {
    line: Vec<u8>,
    running: Running,
}

impl Asking {
    /// Hands it on, as soon as there is room for it.
    pub async fn hand_on(self) -> Result<Running, Failure> {
        let multiplexer = Arc::clone(self.running.ticket.lease.multiplexer());
        multiplexer.send(self.line).await?;
        Ok(self.running)
    }
}

impl Running {
    /// The answer alone; nothing once the client has cancelled it in another way.
    pub async fn finished(mut self) -> Option<Result<Answer, Failure>> {
        (&mut self.answer).await.ok()
    }
}

struct Ticket {
    id: u64,
    cancels: bool,
    lease: Lease,
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
    multiplexer: Arc<Multiplexer>,
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

impl Connector {
    /// Makes multiplexers that live by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, eras: Arc::default(), audiences: Arc::default() }
    }

    /// What is known of the eras of servers.
    pub(super) fn eras(&self) -> &Arc<Eras> {
        &self.eras
    }

    /// Who listens to which child.
    pub(super) fn audiences(&self) -> &Arc<Audiences> {
        &self.audiences
    }

    /// Begins the conversation with a child that was just started: finds out which era of the protocol it speaks, and
    /// initializes it. The pipes are closed when this fails, and when the multiplexer ends.
    pub async fn connect(
        &self,
        key: ChildKey,
        limits: Limits,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stdin: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Arc<Multiplexer>, NotConnected> {
        // Children come and go, and so do those who listened to them.
        self.audiences.sweep();
        let (to_child, queue) = queue::bounded(LONGEST_QUEUE, limits.largest_message);
        let multiplexer = Arc::new(Multiplexer {
            audience: self.audiences.of(&key),
            limits,
            clock: Arc::clone(&self.clock),
            introduction: OnceLock::new(),
            state: Mutex::new(State {
                last_id: 0,
                pending: HashMap::new(),
                dropped: HashSet::new(),
                retired: false,
                last_used: self.clock.now(),
                level: None,
                watched: BTreeSet::new(),
                listening: None,
                malformed: 0,
                malformed_in_a_row: 0,
            }),
            leases: watch::Sender::new(0),
            ending: watch::Sender::new(None),
            to_child,
            told: (Semaphore::new(MOST_TOLD), Room::new(limits.largest_message)),
            key,
        });
        // Ends the child when the one who waits for it goes away, too.
        let guard = CloseUnlessConnected(Some(Arc::clone(&multiplexer)));
        tokio::spawn(write(Arc::clone(&multiplexer), queue, stdin));
        tokio::spawn(read(Arc::clone(&multiplexer), BufReader::new(stdout)));
        let in_time = self.clock.sleep(limits.handshake);
        tokio::select! {
            shaken = handshake::shake(&multiplexer, &self.eras) => shaken?,
            () = in_time => return Err(NotConnected::TimedOut),
        }
        guard.disarm();
        multiplexer.audience.set_child(&multiplexer);
        multiplexer.take_up_audience();
        Ok(multiplexer)
    }
}

struct CloseUnlessConnected(Option<Arc<Multiplexer>>);

impl CloseUnlessConnected {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseUnlessConnected {
    fn drop(&mut self) {
        if let Some(multiplexer) = self.0.take() {
            multiplexer.close();
        }
    }
}

/// Writes until the conversation is over; then the child's input is closed.
async fn write(multiplexer: Arc<Multiplexer>, mut queue: Receiver, mut stdin: impl AsyncWrite + Unpin) {
    let written = async {
        while let Some(mut line) = queue.recv().await {
            line.push(b'\n');
            stdin.write_all(&line).await?;
            stdin.flush().await?;
        }
        Ok::<(), std::io::Error>(())
    };
    tokio::select! {
        result = written => if let Err(error) = result {
            debug!(operation = "bridge_write", server = %multiplexer.key.server, %error, "the child does not read");
            multiplexer.end(Ending::HungUp);
        },
        _ = multiplexer.over() => {}
    }
}

/// Reads until the conversation is over; then the child's output is closed.
async fn read(multiplexer: Arc<Multiplexer>, mut stdout: impl tokio::io::AsyncBufRead + Unpin) {
    let longest = multiplexer.limits.largest_message;
    let read = async {
        while let Ok(Some(line)) = super::lines::next(&mut stdout, longest).await {
            if matches!(&line, Line::Whole(text) if text.len() > LONG_LINE) {
                let hearing = Arc::clone(&multiplexer);
                // It fails only where all stops.
                if tokio::task::spawn_blocking(move || hearing.hear(&line)).await.is_err() {
                    return;
                }
            } else {
                multiplexer.hear(&line);
            }
        }
    };
    tokio::select! {
        () = read => multiplexer.end(Ending::HungUp),
        _ = multiplexer.over() => {}
    }
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

    /// Has the log messages sent that a client wants. What was wanted once goes on being sent by the child, and is left
    /// out on the way to clients who want less.
    pub fn want_level(&self, level: Level) {
        let has_logging = self.introduction.get().is_some_and(|introduction| introduction.can("logging"));
        if self.era() == Era::Modern || !has_logging {
            return;
        }
        let is_news = {
            let mut state = self.state();
            let is_news = state.level.is_none_or(|told| level < told);
            state.level = state.level.min(Some(level)).or(Some(level));
            is_news
        };
        if is_news {
            self.ask_ourselves("logging/setLevel", &json!({ "level": level.name() }));
        }
    }

    /// What the child is to be told when a session asks for a level: the lowest that anybody asked for.
    pub fn note_level(&self, level: Level) -> Level {
        let lowest = self.audience.lowest_level().map_or(level, |lowest| lowest.min(level));
        self.state().level = Some(lowest);
        lowest
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

    /// Has the child watch the resources that somebody listens for, and no others. `done` are those that clients asked it
    /// to watch themselves.
    pub fn watch(&self, done: Option<(&str, bool)>) {
        let wanted = self.audience.resources();
        let (news, gone) = {
            let mut state = self.state();
            match done {
                Some((resource, true)) => drop(state.watched.insert(resource.to_owned())),
                Some((resource, false)) => drop(state.watched.remove(resource)),
                None => {}
            }
            let news: Vec<_> = wanted.difference(&state.watched).cloned().collect();
            let gone: Vec<_> = state.watched.difference(&wanted).cloned().collect();
            state.watched = wanted;
            (news, gone)
        };
        if self.era() == Era::Modern {
            if !news.is_empty() || !gone.is_empty() {
                self.listen();
            }
            return;
        }
        for resource in news {
            self.ask_ourselves("resources/subscribe", &json!({ "uri": resource }));
        }
        for resource in gone {
            self.ask_ourselves("resources/unsubscribe", &json!({ "uri": resource }));
        }
    }

    /// Subscribes at a child of the newer era, to all that it tells of itself; the subscription that there was ends.
    fn listen(&self) {
        let resources = self.state().watched.clone();
        let mut params = json!({ "_meta": era::own_meta(), "notifications": { "toolsListChanged": true,
            "promptsListChanged": true, "resourcesListChanged": true } });
        if !resources.is_empty() {
            params["notifications"]["resourceSubscriptions"] = json!(resources);
        }
        let id = self.ask_ourselves("subscriptions/listen", &params);
        let before = std::mem::replace(&mut self.state().listening, id);
        if let Some(before) = before.filter(|before| self.forget(*before)) {
            self.cancel(before, None);
        }
    }

    /// Tells a child that was just started what is wanted of it.
    fn take_up_audience(&self) {
        match self.era() {
            Era::Modern => {
                self.state().watched = self.audience.resources();
                self.listen();
            }
            Era::Handshake => {
                self.watch(None);
                if let Some(level) = self.audience.lowest_level() {
                    self.want_level(level);
                }
            }
        }
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

impl Asker {
    fn fail(self, failure: Failure) {
        // Whoever no longer waits does not need to know.
        match self {
            Self::Client(waiting) => drop(waiting.answer.send(Err(failure))),
            Self::Ourselves(sender) => drop(sender.send(Err(OwnError::Ended))),
        }
    }
}
