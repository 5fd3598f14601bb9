//! The life of one child: its start, what it is watched for, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::{info, warn};

use super::launcher::Order;
use super::pool::{Inner, Outcome, Pool, Slot};
use super::process::{Process, ending};
use super::{Child, LOOKED_AFTER, Processes, Stop, stderr};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::bridge::{ChildKey, Lease, Limits, NoChild, NotConnected};
use crate::issuer::child_handles::{ChildHandle, ChildScope};
use crate::issuer::{Issuer, LiveGrant};
use crate::model::connection::{Captured, ConnectionKey};
use crate::telemetry::audit::Record;

impl Processes {
    /// Starts a child and tells all who wait for it.
    pub(super) async fn start(
        self: Arc<Self>,
        pool: Arc<Pool>,
        key: ChildKey,
        grant: Arc<LiveGrant>,
        told: watch::Sender<Option<Outcome>>,
    ) {
        let begun = self.parts.clock.now();
        let outcome = match pool.place(self.parts.clock.as_ref()).await {
            Err(no_child) => {
                pool.lock().slots.remove(&key);
                Err(no_child)
            }
            Ok(place) => match self.start_at(&pool, &key, &grant, place).await {
                Ok(lease) => Ok(lease),
                Err(why) => {
                    let mut inner = pool.lock();
                    self.failed(&mut inner, &key, Duration::ZERO, &why);
                    inner.slots.remove(&key);
                    drop(inner);
                    Err(NoChild::CannotStart { why })
                }
            },
        };
        let word = match &outcome {
            Ok(_) => "ok",
            Err(NoChild::CannotStart { .. }) => "failed",
            Err(NoChild::AllBusy { .. }) => "no_room",
            Err(NoChild::BackingOff { .. } | NoChild::Stopping) => "stopping",
        };
        self.parts.metrics.child_started(&pool.server.name, word, self.parts.clock.now().since(begun));
        told.send_replace(Some(outcome));
    }

    /// The error is for users, and names nothing of the system; the log has the rest.
    async fn start_at(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        key: &ChildKey,
        grant: &Arc<LiveGrant>,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Lease>, String> {
        let connection = self.connection(pool, key).await?;
        let scope = ChildScope {
            server: key.server.clone(),
            subject: key.subject.clone(),
            providers: key.providers.clone(),
            labels: key.labels.clone(),
            tunnels: !pool.stdio.children.strict,
        };
        let (secret, handle) = self.parts.issuer.issue_child_handle(scope, grant);
        let revoked = Revoked { issuer: Arc::clone(&self.parts.issuer), handle: Arc::clone(&handle) };
        let order = Order {
            server: Arc::clone(&pool.server),
            stdio: Arc::clone(&pool.stdio),
            subject: key.subject.clone(),
            handle: secret.clone(),
            captured: connection.as_ref().map(|(_, captured)| captured.clone()).unwrap_or_default(),
        };
        let (process, pipes) = self.launcher.launch(&self.lasting.spawner, order).await.map_err(|why| {
            warn!(operation = "child", outcome = "not_started", server = %key.server, subject = %key.subject, why);
            "it could not be started; Sidekey's log says why".to_owned()
        })?;
        self.log_complaints(key, &handle, pipes.stderr, secret);
        let settings = &pool.stdio.children;
        let limits = Limits { handshake: settings.start_timeout, largest_message: pool.stdio.largest_message };
        let connect = self.parts.connector.connect(key.clone(), limits, pipes.stdout, pipes.stdin);
        let connected = tokio::select! {
            connected = connect => connected,
            () = self.lasting.stopping.cancelled() => Err(NotConnected::Refused("Sidekey stops".to_owned())),
        };
        let multiplexer = match connected {
            Ok(multiplexer) => multiplexer,
            Err(not_connected) => {
                let status = process.end(self.parts.clock.as_ref(), settings.stop_grace).await;
                return Err(match not_connected {
                    NotConnected::HungUp => format!("{} before it had answered anything", ending(&status)),
                    NotConnected::TimedOut => format!("it did not answer within {}s", settings.start_timeout.as_secs()),
                    NotConnected::Refused(why) => why,
                });
            }
        };
        let child = Arc::new(Child {
            key: key.clone(),
            handle,
            pid: process.id(),
            started_at: self.parts.clock.now(),
            connection,
            stop: watch::Sender::new(None),
            is_noted: AtomicBool::new(false),
            multiplexer,
        });
        let lease = child.multiplexer.lease();
        let lease = {
            let mut inner = pool.lock();
            if lease.is_some() && !self.lasting.stopping.is_cancelled() {
                inner.slots.insert(key.clone(), Slot::Running(Arc::clone(&child)));
            }
            lease
        };
        info!(
            operation = "child", outcome = "started", server = %key.server, subject = %key.subject,
            child = child.handle.id, pid = child.pid,
        );
        self.parts.audit.record(record("start_child", "ok", &child, None));
        if self.lasting.stopping.is_cancelled() {
            child.ask_to_stop(Stop::Now("shutdown"));
        }
        self.lasting.tasks.spawn(Arc::clone(self).keep(Arc::clone(pool), child, process, place, revoked));
        lease.map(Arc::new).ok_or_else(|| "it ended at once".to_owned())
    }

    /// What the recipe's provider captured of the connection that is used.
    async fn connection(&self, pool: &Pool, key: &ChildKey) -> Result<Option<(ConnectionKey, Captured)>, String> {
        let Some((provider, _)) = self.launcher.recipes_provider(&pool.server, &pool.stdio) else { return Ok(None) };
        let label = key.labels.get(&provider).cloned().unwrap_or_default();
        let connection = ConnectionKey::new(key.subject.clone(), provider.clone(), label);
        match self.parts.store.connection(connection.clone()).await {
            Ok(Some(record)) => Ok(Some((connection, record.captured))),
            Ok(None) => Err(format!("the user is not connected to {provider}")),
            Err(error) => {
                warn!(operation = "child", outcome = "not_started", server = %pool.server.name, %error);
                Err("the connection cannot be read just now".to_owned())
            }
        }
    }

    fn log_complaints(
        &self,
        key: &ChildKey,
        handle: &Arc<ChildHandle>,
        stderr: tokio::net::unix::pipe::Receiver,
        secret: Secret,
    ) {
        let (server, subject, id) = (key.server.clone(), key.subject.clone(), handle.id.clone());
        let clock = Arc::clone(&self.parts.clock);
        tokio::spawn(async move {
            let log = |line: &str| info!(operation = "child_stderr", %server, %subject, child = id, line);
            stderr::read_lines(stderr, &[secret], clock.as_ref(), log).await;
        });
    }

    /// Looks after one child until it is gone.
    async fn keep(
        self: Arc<Self>,
        pool: Arc<Pool>,
        child: Arc<Child>,
        process: Process,
        place: OwnedSemaphorePermit,
        revoked: Revoked,
    ) {
        let clock = self.parts.clock.as_ref();
        let reason = tokio::select! {
            biased;
            reason = child.is_to_stop(clock) => reason,
            _ = child.multiplexer.over() => "crashed",
            () = process.ended() => "crashed",
            () = make_room_when_unused(&pool, &child, clock) => "evicted",
        };
        child.multiplexer.retire();
        let ran = clock.now().since(child.started_at);
        {
            let mut inner = pool.lock();
            inner.retire(&child, Stop::Now(reason));
            if reason == "crashed" {
                // Now, and not once it is gone: whoever asks again meanwhile would start another one.
                self.note_crash(&mut inner, &child, ran);
            }
        }
        let mut has_ended = true;
        if reason == "crashed" {
            // What it has said last is still to be read; then nothing more comes. And it may be about to end.
            has_ended = tokio::select! {
                ((), _) = async { tokio::join!(process.ended(), child.multiplexer.over()) } => true,
                () = clock.sleep(LOOKED_AFTER) => false,
            };
        }
        let given_up = child.given_up().filter(|_| !has_ended);
        child.multiplexer.close();
        let status = process.end(clock, pool.stdio.children.stop_grace).await;
        drop(revoked);
        let how = given_up.unwrap_or_else(|| ending(&status));
        if reason == "crashed" {
            pool.lock().failures.explain(&child.key, how.clone());
            warn!(
                operation = "child", outcome = "crashed", server = %child.key.server,
                subject = %child.key.subject, child = child.handle.id, how, ran_ms = ran.as_millis(),
            );
        } else {
            info!(
                operation = "child", outcome = "stopped", reason, server = %child.key.server,
                subject = %child.key.subject, child = child.handle.id, how, ran_ms = ran.as_millis(),
            );
        }
        self.parts.metrics.child_ended(&pool.server.name, reason);
        self.parts.audit.record(record("end_child", reason, &child, Some(how)));
        pool.lock().gone(&child);
        drop(place);
    }

    /// It ended by itself: once, whoever finds out first.
    pub(super) fn note_crash(&self, inner: &mut Inner, child: &Child, ran: Duration) {
        if !child.is_noted.swap(true, Ordering::AcqRel) {
            let why = child.given_up().unwrap_or_else(|| UNKNOWN_YET.to_owned());
            self.failed(inner, &child.key, ran, &why);
        }
    }

    fn failed(&self, inner: &mut Inner, key: &ChildKey, ran: Duration, why: &str) {
        let (now, random) = (self.parts.clock.now(), self.parts.random.as_ref());
        let failure = inner.failures.note(key.clone(), ran, why.to_owned(), now, random);
        let wait = failure.until.since(now);
        if !wait.is_zero() {
            let (server, subject) = (&key.server, &key.subject);
            warn!(operation = "child", outcome = "backing_off", %server, %subject, wait_ms = wait.as_millis(), why);
        }
    }
}

/// How a child ended that is not gone yet.
const UNKNOWN_YET: &str = "it ended";

/// Revokes a handle when it is dropped.
struct Revoked {
    issuer: Arc<Issuer>,
    handle: Arc<ChildHandle>,
}

impl Drop for Revoked {
    fn drop(&mut self) {
        self.issuer.forget_child_handle(&self.handle);
    }
}

/// While others wait for room, a child that nobody uses anymore makes it.
async fn make_room_when_unused(pool: &Pool, child: &Child, clock: &dyn Clock) {
    let mut waiting = pool.waiting.subscribe();
    loop {
        if waiting.wait_for(|waiting| *waiting > 0).await.is_err() {
            return std::future::pending().await;
        }
        child.multiplexer.unused().await;
        pool.make_room(clock.now());
        if pool.is_making_room() && waiting.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn record(operation: &str, outcome: &str, child: &Child, reason: Option<String>) -> Record {
    Record {
        subject: Some(child.key.subject.clone()),
        server: Some(child.key.server.clone()),
        reason: reason.or_else(|| Some(child.handle.id.clone())),
        ..Record::new(operation, outcome)
    }
}
