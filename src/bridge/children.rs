//! The child processes of MCP servers that speak stdio: one for each user, started when it is needed and stopped when it is
//! not.
//!
//! A request asks for its child by [`Children::child`]. If there is none, one is started as soon as there is room ([`pool`])
//! and unless it has failed too often ([`failures`]): [`launcher`] gives it what `sidekey run` gives a program and starts it
//! ([`process`]), what it writes to standard error goes to the log ([`stderr`]), and the bridge's
//! [`Connector`] begins the conversation. From then on one task looks after it until it is gone ([`life`]).

mod child;
mod failures;
mod launcher;
mod life;
mod pool;
mod process;
mod stderr;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ChildKey, Children, Connector, Lease, NoChild};
use crate::authority::Authority;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::catalogue::Provider;
use crate::config::Outline;
use crate::issuer::{Issuer, LiveGrant};
use crate::model::child_status::ChildStatus;
use crate::model::names::{ProviderName, ServerName};
use crate::model::server::{McpServer, Upstream};
use crate::store::Store;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use child::{Child, Stop};
use launcher::Launcher;
use pool::{Outcome, Pool, Slot};
use process::Spawner;

/// What is looked after so often: who was idle for too long, whose time is over.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// And so often, since it costs more: whose connections have changed.
const CONNECTIONS_EVERY: u32 = 5;
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

impl Processes {
    /// Nothing runs yet.
    pub fn new(parts: Parts) -> std::io::Result<Arc<Self>> {
        let lasting = Lasting {
            former: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            spawner: Spawner::begin()?,
        };
        Ok(Self::of(parts, Arc::new(lasting), |_| Known::Nothing))
    }

    /// The same under other settings. Children of servers about which nothing has changed go on as they are; the others finish
    /// what they were asked once [`Processes::give_way`] is called.
    pub fn under(&self, parts: Parts) -> Arc<Self> {
        let same_surroundings = *parts.outline == *self.launcher.outline;
        Self::of(parts, Arc::clone(&self.lasting), |server| match self.pools.get(&server.name) {
            Some(pool) if same_surroundings && *pool.server == *server => Known::Same(Arc::clone(pool)),
            Some(pool) => Known::Other(Arc::clone(pool)),
            None => {
                let former = self.lasting.former();
                let former = former.iter().rev().find(|pool| pool.server.name == server.name);
                former.cloned().map_or(Known::Nothing, Known::Other)
            }
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
        next.pools.values().for_each(|pool| pool.take_over());
        next.end_streams_of_removed();
        self.stop_former();
    }

    /// Nobody is left to say anything on the streams of servers that are no more.
    fn end_streams_of_removed(&self) {
        self.parts.connector.audiences().keep_streams(|server| self.pools.contains_key(server));
    }

    fn of(parts: Parts, lasting: Arc<Lasting>, known: impl Fn(&McpServer) -> Known) -> Arc<Self> {
        let mut pools = BTreeMap::new();
        for (name, server) in &parts.issuer.settings().servers {
            if let Upstream::Stdio(stdio) = &server.upstream {
                let (server, stdio) = (Arc::clone(server), Arc::clone(stdio));
                let pool = match known(&server) {
                    Known::Same(pool) => pool,
                    Known::Other(former) => Arc::new(Pool::after(&former, server, stdio)),
                    Known::Nothing => Arc::new(Pool::new(server, stdio)),
                };
                parts.metrics.watch_children(name);
                pools.insert(name.clone(), pool);
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
                // It is over, and whoever looks after it will find out. Who asks at once must not be faster than that.
                inner.slots.remove(key);
                if child.given_up().is_some() {
                    self.note_crash(&mut inner, &child, self.parts.clock.now().since(child.started_at));
                }
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

/// What there is of a server before its settings are read again.
enum Known {
    /// Its children, who go on.
    Same(Arc<Pool>),
    /// Those that were started under other settings.
    Other(Arc<Pool>),
    /// None.
    Nothing,
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
