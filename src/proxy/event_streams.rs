//! Event streams of MCP servers that are open just now. When Sidekey stops they are ended as HTTP ends a body, so that a client
//! asks for the stream again, and not cut off, which it may take for an error.
//!
//! A stream is ended at its source: nothing more is read from the MCP server, Pingora gives up, and
//! [`fail_to_proxy`](pingora::proxy::ProxyHttp::fail_to_proxy) writes the end of the body.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{Shutdown, shutdown};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// For whatever the server has to say, without an end (a GET).
    Listening,
    /// For the answer to a request, after which it ends by itself.
    Answering,
}

/// All that are open.
#[derive(Default)]
pub struct EventStreams(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    open: HashMap<u64, (Purpose, Arc<Source>)>,
    begun: u64,
    /// Streams up to this purpose are ended, also those that begin later.
    ended: Option<Purpose>,
}

struct Source {
    connection: OwnedFd,
    is_ended: AtomicBool,
}

/// One that is open, for as long as the value lives.
pub struct EventStream {
    all: Arc<EventStreams>,
    number: u64,
    source: Arc<Source>,
}

impl EventStreams {
    /// Takes note of one. `connection` is that to the MCP server.
    pub fn begin(self: &Arc<Self>, purpose: Purpose, connection: OwnedFd) -> EventStream {
        let source = Arc::new(Source { connection, is_ended: AtomicBool::new(false) });
        let mut inner = self.lock();
        inner.begun += 1;
        let number = inner.begun;
        inner.open.insert(number, (purpose, Arc::clone(&source)));
        if inner.ended.is_some_and(|ended| purpose <= ended) {
            source.end();
        }
        EventStream { all: Arc::clone(self), number, source }
    }

    /// Ends those that are for listening, or all: now, and whenever another one begins.
    pub fn end(&self, up_to: Purpose) {
        let mut inner = self.lock();
        inner.ended = inner.ended.max(Some(up_to));
        for (_, source) in inner.open.values().filter(|(purpose, _)| *purpose <= up_to) {
            source.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        // An error means that it is over already.
        let _ = shutdown(&self.connection, Shutdown::Read);
    }
}

impl EventStream {
    /// Whether we have ended it.
    pub fn is_ended(&self) -> bool {
        self.source.is_ended.load(Ordering::Acquire)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.all.lock().open.remove(&self.number);
    }
}

/// A descriptor of our own for a connection of Pingora's, which tells its number alone.
///
/// Only for a connection that an exchange under way holds.
pub fn own_descriptor(connection: RawFd) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "Pingora has no other way to its connections")]
    // SAFETY: the exchange that asks holds the connection, so the number is open and stays the connection's during this call.
    let connection = unsafe { BorrowedFd::borrow_raw(connection) };
    connection.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn stream(all: &Arc<EventStreams>, purpose: Purpose) -> (EventStream, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (all.begin(purpose, ours.try_clone().expect("cloned").into()), ours, theirs)
    }

    #[test]
    fn those_for_listening_end_first_and_later_ones_at_once() {
        let all = Arc::new(EventStreams::default());
        let (listening, mut source, _server) = stream(&all, Purpose::Listening);
        let (answering, ..) = stream(&all, Purpose::Answering);
        all.end(Purpose::Listening);
        assert!(listening.is_ended() && !answering.is_ended());
        assert_eq!(source.read(&mut [0; 1]).expect("an end"), 0);
        let (late, ..) = stream(&all, Purpose::Listening);
        assert!(late.is_ended());
        all.end(Purpose::Answering);
        assert!(answering.is_ended());
        all.end(Purpose::Listening);
        let (late, ..) = stream(&all, Purpose::Answering);
        assert!(late.is_ended(), "what was ended stays so");
    }

    #[test]
    fn nothing_is_kept_of_those_that_are_over() {
        let all = Arc::new(EventStreams::default());
        let (stream, ..) = stream(&all, Purpose::Listening);
        assert_eq!(all.lock().open.len(), 1);
        drop(stream);
        assert!(all.lock().open.is_empty());
    }
}
