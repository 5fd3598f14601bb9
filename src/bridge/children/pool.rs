//! The children of one server: which there are, and who makes room for whom.
//!
//! Places are given out in the order in which they were asked for. While somebody waits, children that nobody uses make room,
//! the one that was unused for longest first; if all are in use, the one that has had its place for longest finishes what it
//! has and then goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::failures::Failures;
use super::{Child, Stop};
use crate::base::clock::{Clock, Timestamp};
use crate::bridge::{ChildKey, Lease, NoChild};
use crate::model::server::McpServer;
use crate::model::stdio_server::StdioServer;

/// One that is in use has its place for so long at least, however many wait.
const TURN: Duration = Duration::from_secs(5);

/// How a start ended. The lease keeps a new child from making room before those who waited for it have taken theirs.
pub type Outcome = Result<Arc<Lease>, NoChild>;

/// Where a child stands.
pub enum Slot {
    /// It is being started, or waits for room.
    Starting(watch::Receiver<Option<Outcome>>),
    /// It runs.
    Running(Arc<Child>),
}

/// The children of one server.
pub struct Pool {
    /// The server.
    pub server: Arc<McpServer>,
    /// How its children are started.
    pub stdio: Arc<StdioServer>,
    /// How many starts wait for room.
    pub waiting: watch::Sender<usize>,
    places: Arc<Places>,
    inner: Mutex<Inner>,
}

/// What changes.
#[derive(Default)]
pub struct Inner {
    /// Those that serve requests, or will.
    pub slots: HashMap<ChildKey, Slot>,
    /// Those that serve no further request, and are not gone yet.
    pub stopping: Vec<Arc<Child>>,
    /// What went wrong.
    pub failures: Failures<ChildKey>,
    /// How many places were asked back for those who wait.
    promised: usize,
}

impl Pool {
    /// Nobody is there yet.
    pub fn new(server: Arc<McpServer>, stdio: Arc<StdioServer>) -> Self {
        let places = Arc::new(Places::new(stdio.children.max));
        Self { server, stdio, waiting: watch::Sender::new(0), places, inner: Mutex::new(Inner::default()) }
    }

    /// The same server under other settings. Its children take the places of those that are still to go.
    pub fn after(former: &Self, server: Arc<McpServer>, stdio: Arc<StdioServer>) -> Self {
        let places = Arc::clone(&former.places);
        Self { server, stdio, waiting: watch::Sender::new(0), places, inner: Mutex::new(Inner::default()) }
    }

    /// Its settings are in force from now on.
    pub fn take_over(&self) {
        self.places.resize(self.stdio.children.max);
    }

    /// What changes, for as short a time as possible.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one child, as soon as there is one.
    pub async fn place(&self, clock: &dyn Clock) -> Result<OwnedSemaphorePermit, NoChild> {
        if let Ok(place) = Arc::clone(&self.places.free).try_acquire_owned() {
            return Ok(place);
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.make_room(clock.now());
        let timeout = self.stdio.children.queue_timeout;
        let place = tokio::select! {
            biased;
            place = Arc::clone(&self.places.free).acquire_owned() => place.map_err(|_| NoChild::Stopping),
            () = clock.sleep(timeout) => Err(NoChild::AllBusy { retry_after: retry_after(timeout) }),
        };
        let mut inner = self.lock();
        self.waiting.send_modify(|waiting| *waiting -= 1);
        inner.promised = match place {
            Ok(_) => inner.promised.saturating_sub(1),
            Err(_) => inner.promised.min(*self.waiting.borrow()),
        };
        place
    }

    /// No places are given out anymore.
    pub fn close(&self) {
        self.places.free.close();
    }

    /// Whether enough children are on their way out for those who wait.
    pub fn is_making_room(&self) -> bool {
        self.lock().promised >= *self.waiting.borrow()
    }

    /// Has children that nobody uses make room for those who wait.
    pub fn make_room(&self, now: Timestamp) {
        let mut inner = self.lock();
        while inner.promised < *self.waiting.borrow() {
            let unused = inner.running().filter(|child| child.multiplexer.usage().leases == 0);
            let Some(child) = unused.min_by_key(|child| child.multiplexer.usage().last_used).cloned() else { return };
            if !child.multiplexer.retire_if_unused_since(now) {
                return;
            }
            inner.retire(&child, Stop::WhenUnused("evicted"));
            inner.promised += 1;
        }
    }

    /// Has children that are always in use make room for those who wait, once they have had their turn.
    pub fn end_turns(&self, now: Timestamp) {
        self.make_room(now);
        let mut inner = self.lock();
        while inner.promised < *self.waiting.borrow() {
            let had_turn = inner.running().filter(|child| child.started_at.plus(TURN) <= now);
            let Some(child) = had_turn.min_by_key(|child| child.started_at).cloned() else { return };
            child.multiplexer.retire();
            inner.retire(&child, Stop::WhenUnused("evicted"));
            inner.promised += 1;
        }
    }
}

/// The places that the children of a server have together, whatever its settings were when each was started.
struct Places {
    free: Arc<Semaphore>,
    size: Mutex<usize>,
}

impl Places {
    fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), size: Mutex::new(size) }
    }

    fn resize(&self, wanted: usize) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let (more, fewer) = (wanted.saturating_sub(*size), size.saturating_sub(wanted));
        *size = wanted;
        drop(size);
        self.free.add_permits(more);
        let taken = fewer - self.free.forget_permits(fewer);
        if let Ok(taken @ 1..) = u32::try_from(taken) {
            // Those that become free next, before anybody else is given one.
            let free = Arc::clone(&self.free);
            tokio::spawn(async move { free.acquire_many_owned(taken).await.map(OwnedSemaphorePermit::forget) });
        }
    }
}

impl Inner {
    /// Those that run and serve requests.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Child>> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Running(child) => Some(child),
            Slot::Starting(_) => None,
        })
    }

    /// All that are there, also those that serve no further request.
    pub fn all(&self) -> Vec<Arc<Child>> {
        self.running().chain(&self.stopping).cloned().collect()
    }

    /// Takes a child out of service. It is asked to stop, and holds its place until it is gone.
    pub fn retire(&mut self, child: &Arc<Child>, stop: Stop) {
        let is_this = |slot: &Slot| matches!(slot, Slot::Running(running) if Arc::ptr_eq(running, child));
        if self.slots.get(&child.key).is_some_and(is_this) {
            self.slots.remove(&child.key);
            self.stopping.push(Arc::clone(child));
        }
        child.ask_to_stop(stop);
    }

    /// A child is gone.
    pub fn gone(&mut self, child: &Arc<Child>) {
        self.stopping.retain(|stopping| !Arc::ptr_eq(stopping, child));
    }
}

/// When whoever was turned away may have better luck.
fn retry_after(timeout: Duration) -> Duration {
    timeout.clamp(Duration::from_secs(1), Duration::from_secs(30))
}
