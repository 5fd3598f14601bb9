//! Makes a multiplexer of the pipes of a child that was just started.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, watch};
use tracing::debug;

use super::{Ending, Limits, Multiplexer, State, handshake};
use crate::base::clock::Clock;
use crate::bridge::ChildKey;
use crate::bridge::audience::Audiences;
use crate::bridge::era::Eras;
use crate::bridge::lines::{self, Line};
use crate::bridge::queue::{self, Receiver, Room};

/// Messages that wait for a child to read them, and no more than one largest message of bytes. More wait where they come
/// from.
const LONGEST_QUEUE: usize = 64;
/// Notifications of clients that wait for a place among those, and no more than one largest message of bytes.
const MOST_TOLD: usize = 64;
/// Longer lines are understood where they keep no worker from other clients.
const LONG_LINE: usize = 256 * 1024;

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

impl Connector {
    /// Makes multiplexers that live by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, eras: Arc::default(), audiences: Arc::default() }
    }

    /// What is known of the eras of servers.
    pub(in crate::bridge) fn eras(&self) -> &Arc<Eras> {
        &self.eras
    }

    /// Who listens to which child.
    pub(in crate::bridge) fn audiences(&self) -> &Arc<Audiences> {
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
async fn read(multiplexer: Arc<Multiplexer>, mut stdout: impl AsyncBufRead + Unpin) {
    let longest = multiplexer.limits.largest_message;
    let read = async {
        while let Ok(Some(line)) = lines::next(&mut stdout, longest).await {
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
