//! The child processes of MCP servers that speak stdio: one for each user, started when it is needed and stopped when it is
//! not.
//!
//! A request asks for its child by [`Children::child`]. If there is none, one is started as soon as there is room ([`pool`])
//! and unless it has failed too often ([`failures`]): [`launcher`] gives it what `sidekey run` gives a program and starts it
//! ([`process`]), what it writes to standard error goes to the log ([`stderr`]), and the bridge's
//! [`Connector`] begins the conversation. From then on one task looks after it until it is gone.

mod failures;
mod launcher;
mod pool;
mod process;
mod stderr;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{ChildKey, Children, Connector, Lease, Limits, Multiplexer, NoChild, NotConnected};
use crate::authority::Authority;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::config::Outline;
use crate::issuer::child_handles::{ChildHandle, ChildScope};
use crate::issuer::{Issuer, LiveGrant};
use crate::model::child_status::ChildStatus;
use crate::model::connection::{Captured, ConnectionKey};
use crate::model::names::{ProviderName, ServerName};
use crate::model::server::{McpServer, Upstream};
use crate::store::Store;
use crate::telemetry::audit::{Audit, Record};
use crate::telemetry::metrics::Metrics;
use launcher::{Launcher, Order};
use pool::{Outcome, Pool, Slot};
use process::{Process, Spawner, ending};

/// What is looked after so often: who was idle for too long, whose time is over.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// And so often, since it costs more: whose connections have changed.
const CONNECTIONS_EVERY: u32 = 5;
/// How long a child that is to go may take for what it was asked. Whatever it never answers would otherwise keep it, with
/// rights that it should no longer have and in a place that others wait for, for as long as somebody likes.
const LONGEST_FINISH: Duration = Duration::from_secs(60);

/// What it is made of.
pub struct Parts {
    /// What the configuration says of secrets, providers and recipes.
    pub outline: Arc<Outline>,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// The MCP servers, and whose grants are in force.
    pub issuer: Arc<Issuer>,
    /// What was captured when subjects connected.
    pub store: Arc<dyn Store>,
    /// Certificates for the hosts of providers.
    pub authority: Arc<Authority>,
    /// The program that children are started through: Sidekey itself.
    pub sidekey: PathBuf,
    /// Where children reach the egress listener, once that is known. Before that none is started.
    pub egress: Arc<OnceLock<SocketAddr>>,
    /// Begins conversations with children.
    pub connector: Connector,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What was done.
    pub audit: Arc<Audit>,
}

/// All child processes of this Sidekey.
pub struct Processes {
    parts: Shared,
    pools: BTreeMap<ServerName, Arc<Pool>>,
    launcher: Arc<Launcher>,
    lasting: Arc<Lasting>,
}

/// What there is one of, whatever the settings are.
struct Lasting {
    /// Those whose servers are gone or were changed, until their children have finished what they were asked.
    former: Mutex<Vec<Arc<Pool>>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    spawner: Spawner,
}

impl Lasting {
    fn former(&self) -> MutexGuard<'_, Vec<Arc<Pool>>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Shared {
    issuer: Arc<Issuer>,
    store: Arc<dyn Store>,
    connector: Connector,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
}

/// A child that runs.
pub struct Child {
    key: ChildKey,
    handle: Arc<ChildHandle>,
    multiplexer: Arc<Multiplexer>,
    pid: u32,
    started_at: Timestamp,
    connection: Option<(ConnectionKey, Captured)>,
    stop: watch::Sender<Option<Stop>>,
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
    /// Has it stopped. What is more urgent goes before what is less.
    fn ask_to_stop(&self, stop: Stop) {
        self.stop.send_if_modified(|asked| {
            let is_news = matches!((&asked, stop), (None, _) | (Some(Stop::WhenUnused(_)), Stop::Now(_)));
            if is_news {
                *asked = Some(stop);
            }
            is_news
        });
    }

    /// Completes once it is to be stopped, with the reason.
    async fn is_to_stop(&self, clock: &dyn Clock) -> &'static str {
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

    fn status(&self, state: &'static str) -> ChildStatus {
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

impl Processes {
    /// Nothing runs yet.
    pub fn new(parts: Parts) -> std::io::Result<Arc<Self>> {
        let lasting = Lasting {
            former: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            spawner: Spawner::begin()?,
        };
        Ok(Self::of(parts, Arc::new(lasting), |_| None))
    }

    /// The same under other settings. Children of servers about which nothing has changed go on as they are; the others finish
    /// what they were asked once [`Processes::give_way`] is called.
    pub fn under(&self, parts: Parts) -> Arc<Self> {
        let same_surroundings = *parts.outline == *self.launcher.outline;
        Self::of(parts, Arc::clone(&self.lasting), |server| {
            let pool = self.pools.get(&server.name)?;
            (same_surroundings && *pool.server == *server).then(|| Arc::clone(pool))
        })
    }

    /// The same under settings that name no server with children.
    pub fn without_servers(&self) -> Arc<Self> {
        Arc::new(Self {
            parts: self.parts.clone(),
            pools: BTreeMap::new(),
            launcher: Arc::clone(&self.launcher),
            lasting: Arc::clone(&self.lasting),
        })
    }

    /// Leaves children to those that come after these, and has those that do not fit in there finish.
    pub fn give_way(&self, next: &Self) {
        let is_kept = |pool: &Arc<Pool>| next.pools.values().any(|kept| Arc::ptr_eq(kept, pool));
        let over = self.pools.values().filter(|pool| !is_kept(pool)).cloned();
        self.lasting.former().extend(over);
        next.end_streams_of_removed();
        self.stop_former();
    }

    /// Nobody is left to say anything on the streams of servers that are no more.
    fn end_streams_of_removed(&self) {
        self.parts.connector.audiences().keep_streams(|server| self.pools.contains_key(server));
    }

    fn of(parts: Parts, lasting: Arc<Lasting>, known: impl Fn(&McpServer) -> Option<Arc<Pool>>) -> Arc<Self> {
        let mut pools = BTreeMap::new();
        for (name, server) in &parts.issuer.settings().servers {
            if let Upstream::Stdio(stdio) = &server.upstream {
                let new = || {
                    parts.metrics.watch_children(name);
                    Arc::new(Pool::new(Arc::clone(server), Arc::clone(stdio)))
                };
                pools.insert(name.clone(), known(server).unwrap_or_else(new));
            }
        }
        let launcher = Launcher {
            outline: parts.outline,
            providers: parts.providers,
            authority: parts.authority,
            sidekey: parts.sidekey,
            egress: parts.egress,
        };
        Arc::new(Self {
            parts: Shared {
                issuer: parts.issuer,
                store: parts.store,
                connector: parts.connector,
                clock: parts.clock,
                random: parts.random,
                metrics: parts.metrics,
                audit: parts.audit,
            },
            pools,
            launcher: Arc::new(launcher),
            lasting,
        })
    }

    fn all_pools(&self) -> Vec<Arc<Pool>> {
        self.pools.values().chain(self.lasting.former().iter()).cloned().collect()
    }

    /// Has the children of servers that are no more, or no more the same, finish what they were asked and go.
    fn stop_former(&self) {
        let metrics = &self.parts.metrics;
        self.lasting.former().retain(|pool| {
            let mut inner = pool.lock();
            let running: Vec<_> = inner.running().cloned().collect();
            for child in &running {
                child.multiplexer.retire();
                inner.retire(child, Stop::WhenUnused("reconfigured"));
            }
            let is_over = inner.slots.is_empty() && inner.stopping.is_empty();
            if is_over {
                metrics.set_children(&pool.server.name, 0, Duration::ZERO);
            }
            !is_over
        });
    }

    /// Why children cannot be kept apart on this system, though they are to be.
    pub async fn cannot_isolate(&self) -> Option<String> {
        let server = self.pools.values().find(|pool| pool.stdio.children.isolation)?;
        let why = self.launcher.cannot_isolate(&self.lasting.spawner).await?;
        Some(format!("servers.{}: its child processes cannot be kept apart: {why}", server.server.name))
    }

    /// How all children stand, by server and subject.
    pub fn status(&self) -> Vec<ChildStatus> {
        let mut all = Vec::new();
        for pool in self.all_pools() {
            let inner = pool.lock();
            all.extend(inner.running().map(|child| child.status("running")));
            all.extend(inner.stopping.iter().map(|child| child.status("stopping")));
        }
        all.sort_by(|left, right| {
            (&left.server, &left.subject, &left.started_at).cmp(&(&right.server, &right.subject, &right.started_at))
        });
        all
    }

    /// Looks after all of them until the future is dropped.
    pub async fn look_after(self: Arc<Self>) {
        let mut ends = self.parts.issuer.grant_ends();
        for turn in 0_u32.. {
            tokio::select! {
                () = self.parts.clock.sleep(LOOKED_AFTER) => {}
                _ = ends.changed() => {}
            }
            let now = self.parts.clock.now();
            self.all_pools().iter().for_each(|pool| self.stop_what_is_over(pool, now));
            self.pools.values().for_each(|pool| pool.end_turns(now));
            self.stop_former();
            // One that was let in before its server was removed may have been opened only now.
            self.end_streams_of_removed();
            self.count(now);
            if turn.is_multiple_of(CONNECTIONS_EVERY) {
                self.look_at_connections().await;
            }
        }
    }

    /// Stops all, and starts none from here on. Returns when they are gone.
    pub async fn stop(&self) {
        self.lasting.stopping.cancel();
        for pool in self.all_pools() {
            pool.close();
            let mut inner = pool.lock();
            inner.all().iter().for_each(|child| inner.retire(child, Stop::Now("shutdown")));
        }
        self.lasting.tasks.close();
        self.lasting.tasks.wait().await;
    }

    fn stop_what_is_over(&self, pool: &Pool, now: Timestamp) {
        let mut inner = pool.lock();
        let all = inner.all();
        let unused_since = now.minus(pool.stdio.children.idle_stop);
        for child in &all {
            if !child.handle.is_live(now) {
                child.multiplexer.retire();
                inner.retire(child, Stop::Now("grant_ended"));
            } else if child.multiplexer.retire_if_unused_since(unused_since) {
                inner.retire(child, Stop::WhenUnused("idle"));
            }
        }
        inner.failures.sweep(now);
    }

    /// Says how many children each server has, those of its former settings included.
    fn count(&self, now: Timestamp) {
        let mut all: BTreeMap<ServerName, Vec<Timestamp>> = BTreeMap::new();
        for pool in self.all_pools() {
            let begun = pool.lock().all().into_iter().map(|child| child.started_at);
            all.entry(pool.server.name.clone()).or_default().extend(begun);
        }
        for (server, begun) in all {
            let oldest = begun.iter().min().map(|oldest| now.since(*oldest)).unwrap_or_default();
            self.parts.metrics.set_children(&server, begun.len(), oldest);
        }
    }

    /// A child whose grant has lost what it needs is of no use, and one that was told of another account than is connected now
    /// would do the wrong thing.
    async fn look_at_connections(&self) {
        for pool in self.all_pools() {
            let children = pool.lock().all();
            for child in children {
                for grant in child.handle.grants() {
                    if !grant.has_ended() {
                        self.parts.issuer.end_if_gone(&grant).await;
                    }
                }
                let Some((key, captured)) = &child.connection else { continue };
                let now = self.parts.store.connection(key.clone()).await;
                if now.is_ok_and(|record| record.is_some_and(|record| record.captured != *captured)) {
                    child.multiplexer.retire();
                    pool.lock().retire(&child, Stop::WhenUnused("reconnected"));
                }
            }
        }
    }

    /// Starts a child and tells all who wait for it.
    async fn start(
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
                    self.failed(&pool, &key, Duration::ZERO, &why);
                    pool.lock().slots.remove(&key);
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
        pool.lock().retire(&child, Stop::Now(reason));
        if reason == "crashed" {
            // What it has said last is still to be read; then nothing more comes.
            tokio::select! {
                _ = child.multiplexer.over() => {}
                () = clock.sleep(LOOKED_AFTER) => {}
            }
        }
        child.multiplexer.close();
        let status = process.end(clock, pool.stdio.children.stop_grace).await;
        drop(revoked);
        let ran = clock.now().since(child.started_at);
        let how = ending(&status);
        if reason == "crashed" {
            self.failed(&pool, &child.key, ran, &how);
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

    fn failed(&self, pool: &Pool, key: &ChildKey, ran: Duration, why: &str) {
        let (now, random) = (self.parts.clock.now(), self.parts.random.as_ref());
        let mut inner = pool.lock();
        let failure = inner.failures.note(key.clone(), ran, why.to_owned(), now, random);
        let wait = failure.until.since(now);
        if !wait.is_zero() {
            let (server, subject) = (&key.server, &key.subject);
            warn!(operation = "child", outcome = "backing_off", %server, %subject, wait_ms = wait.as_millis(), why);
        }
    }

    /// The child, or how its start is going, or why there is none.
    fn look_up(self: &Arc<Self>, pool: &Arc<Pool>, key: &ChildKey, grant: &Arc<LiveGrant>) -> Found {
        if self.lasting.stopping.is_cancelled() {
            return Found::None(NoChild::Stopping);
        }
        let mut inner = pool.lock();
        match inner.slots.get(key) {
            Some(Slot::Starting(outcome)) => return Found::Starting(outcome.clone()),
            Some(Slot::Running(child)) => {
                let child = Arc::clone(child);
                if let Some(lease) = child.multiplexer.lease() {
                    child.handle.join(grant);
                    return Found::Running(lease);
                }
                // It is over, and whoever looks after it will find out.
                inner.slots.remove(key);
                inner.stopping.push(child);
            }
            None => {}
        }
        let now = self.parts.clock.now();
        if let Some(failure) = inner.failures.in_the_way(key, now) {
            let (retry_after, why) = (failure.until.since(now), failure.why.clone());
            return Found::None(NoChild::BackingOff { retry_after, why });
        }
        let (told, outcome) = watch::channel(None);
        inner.slots.insert(key.clone(), Slot::Starting(outcome.clone()));
        drop(inner);
        self.lasting.tasks.spawn(Arc::clone(self).start(Arc::clone(pool), key.clone(), Arc::clone(grant), told));
        Found::Starting(outcome)
    }
}

/// What there is of a child.
enum Found {
    /// It runs, and is in use now.
    Running(Lease),
    /// It is being started.
    Starting(watch::Receiver<Option<Outcome>>),
    /// There is none.
    None(NoChild),
}

#[async_trait]
impl Children for Arc<Processes> {
    async fn child(&self, key: &ChildKey, grant: &Arc<LiveGrant>) -> Result<Lease, NoChild> {
        let Some(pool) = self.pools.get(&key.server) else {
            return Err(NoChild::CannotStart { why: format!("{} is not a server of this kind", key.server) });
        };
        let mut held = None;
        loop {
            let mut outcome = match self.look_up(pool, key, grant) {
                Found::Running(lease) => {
                    // Only now, so that it was in use all the time.
                    drop(held);
                    return Ok(lease);
                }
                Found::None(no_child) => return Err(no_child),
                Found::Starting(outcome) => outcome,
            };
            let started = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
            held = match started {
                Ok(Some(Ok(lease))) => Some(lease),
                Ok(Some(Err(no_child))) => return Err(no_child),
                Ok(None) | Err(_) => return Err(NoChild::Stopping),
            };
        }
    }
}

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
