//! Settings are read again: on SIGHUP, on `sidekey reload`, and when one of the files changes that they were read from.
//!
//! One task does it, one attempt after the other. All is read and checked, and everything is made that is to serve next;
//! only then is it put in the place of what served before, which cannot fail. Whatever is wrong, what was in force stays in
//! force, and the attempt is made again as soon as a file changes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::file_work::FileWork;
use super::stage::Stage;
use super::{StartError, Variables, World};
use crate::base::clock::{Clock, Timestamp};
use crate::base::file_mark::FileMark;
use crate::base::sources::Sources;
use crate::base::toml_document::Problem;
use crate::config::diff::{Change, changes};
use crate::config::{self, Loaded, Settings};
use crate::portal::admin::{ConfigurationStatus, Outcome, ReloadAnswer, Reloads};
use crate::store::keyring::KeyRing;
use crate::telemetry::audit::Record;
use crate::telemetry::{access, logging};

/// So often the files are looked at. A change is taken over once it has lasted until the next look, so that a file which is
/// being written, or several that belong together, are read when they are complete.
const LOOK: Duration = Duration::from_millis(200);

/// Asks the task that reads settings.
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Arc<ConfigurationStatus>>,
}

enum Ask {
    Reload(oneshot::Sender<ReloadAnswer>),
    Compare(oneshot::Sender<ReloadAnswer>),
}

/// What the task hears, and where it says how it went.
pub struct Inbox {
    asks: mpsc::Receiver<Ask>,
    status: watch::Sender<Arc<ConfigurationStatus>>,
}

/// The two ends: for those who ask, and for the task.
pub fn channel(settings: &Settings, clock: &dyn Clock) -> (Arc<Handle>, Inbox) {
    let first = ConfigurationStatus {
        file: settings.origin.file.clone(),
        in_force_since: clock.now().to_string(),
        is_current: true,
        refused_at: None,
        problems: Vec::new(),
        needs_restart: Vec::new(),
    };
    let (asks, asked) = mpsc::channel(16);
    let (sender, status) = watch::channel(Arc::new(first));
    (Arc::new(Handle { asks, status }), Inbox { asks: asked, status: sender })
}

#[async_trait]
impl Reloads for Handle {
    async fn reload(&self) -> ReloadAnswer {
        self.ask(Ask::Reload).await
    }

    async fn compare(&self) -> ReloadAnswer {
        self.ask(Ask::Compare).await
    }

    fn status(&self) -> Arc<ConfigurationStatus> {
        Arc::clone(&self.status.borrow())
    }
}

impl Handle {
    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<ReloadAnswer>) -> Ask) -> ReloadAnswer {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(ask(answer)).await;
        answered.await.unwrap_or_else(|_| {
            let problem = Problem::of_file(&self.status().file, "the server is stopping");
            ReloadAnswer {
                outcome: Outcome::Refused,
                changes: Vec::new(),
                needs_restart: Vec::new(),
                problems: vec![problem],
            }
        })
    }
}

/// Reads settings, and puts what is made of them in the place of what served before.
pub struct Reloader {
    /// What is in force.
    pub settings: Settings,
    /// Where variables are found.
    pub variables: Variables,
    /// What is made of the settings.
    pub worlds: watch::Sender<Arc<World>>,
    /// What is served with.
    pub stage: Arc<Stage>,
    /// Who asks.
    pub inbox: Inbox,
    /// How files are read.
    pub files: FileWork,
    /// Tells commands that a server goes by this file, wherever that now says that it listens. Without it nobody is told.
    pub mark: Option<FileMark>,
}

impl Reloader {
    /// Reads again whenever there is a reason to, until the future is dropped.
    pub async fn work(mut self) {
        let clock = self.world().clock();
        let mut watched = Arc::clone(&self.settings.origin.sources);
        let mut is_unsettled = false;
        loop {
            tokio::select! {
                ask = self.inbox.asks.recv() => match ask {
                    Some(Ask::Reload(answer)) => {
                        let _ = answer.send(self.reload("asked", &mut watched).await);
                        is_unsettled = self.files.is_late();
                    }
                    Some(Ask::Compare(answer)) => drop(answer.send(self.compare().await)),
                    None => return,
                },
                () = clock.sleep(LOOK), if self.settings.watch => {
                    is_unsettled = self.look(clock.now(), is_unsettled, &mut watched).await;
                }
            }
        }
    }

    /// Looks whether a file has changed, and reads all once that has lasted: whether there is something yet to be read.
    async fn look(&mut self, now: Timestamp, is_unsettled: bool, watched: &mut Arc<Sources>) -> bool {
        if self.files.is_hanging() {
            return true;
        }
        let sources = Arc::clone(watched);
        match self.files.done(move || sources.have_changed(now)).await {
            Ok(false) if is_unsettled => {
                self.reload("file changed", watched).await;
                self.files.is_late()
            }
            Ok(has_changed) => has_changed,
            Err(why) => {
                self.tell("file changed", &refused(vec![Problem::of_file(&self.settings.origin.file, why)]));
                true
            }
        }
    }

    fn world(&self) -> Arc<World> {
        Arc::clone(&self.worlds.borrow())
    }

    async fn read(&mut self) -> Loaded {
        let (origin, variables) = (self.settings.origin.clone(), Arc::clone(&self.variables));
        let read = move || {
            let variable = |name: &str| variables(name);
            (config::load_beside(&origin.file, &variable, Some(&origin)), FileMark::set(&origin.file).ok())
        };
        match self.files.done(read).await {
            Ok((loaded, mark)) => {
                // What cannot be read just now may come back as it was.
                self.mark = mark.or(self.mark.take());
                loaded
            }
            Err(why) => Loaded {
                settings: Err(vec![Problem::of_file(&self.settings.origin.file, why)]),
                sources: Arc::clone(&self.settings.origin.sources),
            },
        }
    }

    async fn compare(&mut self) -> ReloadAnswer {
        match self.read().await.settings {
            Ok(settings) => {
                let changes = changes(&self.settings.origin, &settings.origin);
                let outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Differs };
                ReloadAnswer { outcome, changes, needs_restart: settings.origin.needs_restart, problems: Vec::new() }
            }
            Err(problems) => refused(problems),
        }
    }

    /// One attempt. `watched` is then what its success or failure depended on.
    async fn reload(&mut self, why: &str, watched: &mut Arc<Sources>) -> ReloadAnswer {
        let Loaded { settings, sources } = self.read().await;
        *watched = sources;
        let answer = match settings {
            Ok(settings) => self.take_over(settings).await,
            Err(problems) => refused(problems),
        };
        self.tell(why, &answer);
        answer
    }

    async fn take_over(&mut self, settings: Settings) -> ReloadAnswer {
        let changes = changes(&self.settings.origin, &settings.origin);
        let needs_restart = settings.origin.needs_restart.clone();
        let answer = |outcome| ReloadAnswer { outcome, changes, needs_restart, problems: Vec::new() };
        if is_the_same(&self.settings, &settings) {
            return answer(Outcome::Unchanged);
        }
        match self.replace(&settings).await {
            Ok(()) => {
                self.settings = settings;
                answer(Outcome::Applied)
            }
            Err(problem) => refused(vec![problem]),
        }
    }

    /// All or nothing.
    async fn replace(&self, settings: &Settings) -> Result<(), Problem> {
        let before = self.world();
        let sealer = before.sealer();
        let former = sealer.ring();
        // Until all is made, what any of them has sealed can be opened, and what is sealed meanwhile too.
        sealer.use_keys(settings.keys.with(&former));
        let made = self.make(&before, settings).await;
        let (world, next) = made.inspect_err(|_| sealer.use_keys(former.with(&settings.keys)))?;
        sealer.use_keys(settings.keys.clone());
        self.stage.show(next);
        logging::set_level(settings.log_level.word());
        access::want(settings.access_log);
        let world = Arc::new(world);
        self.worlds.send_replace(Arc::clone(&world));
        before.retire(&world);
        // What the operator has mended is tried at once.
        if let Err(error) = world.vault.forgive_operator().await {
            warn!(operation = "reload", %error, "what waits for the operator is tried again later");
        }
        Ok(())
    }

    async fn make(&self, before: &World, settings: &Settings) -> Result<(World, super::stage::Next), Problem> {
        let problem = |error: StartError| Problem::of_file(&settings.origin.file, error.0);
        keys_are_enough(before, &settings.keys, settings).await?;
        let world = before.under(settings).map_err(problem)?;
        world.check_isolation().await.map_err(problem)?;
        let next = self.stage.prepare(settings, &world).map_err(problem)?;
        Ok((world, next))
    }

    fn tell(&self, why: &str, answer: &ReloadAnswer) {
        let world = self.world();
        let (now, before) = (world.clock().now().to_string(), Arc::clone(&self.inbox.status.borrow()));
        let mut status =
            ConfigurationStatus { problems: answer.problems.clone(), ..ConfigurationStatus::clone(&before) };
        status.is_current = answer.outcome != Outcome::Refused;
        status.refused_at = match answer.outcome {
            Outcome::Refused => before.refused_at.clone().or(Some(now.clone())),
            _ => None,
        };
        if answer.outcome != Outcome::Refused {
            status.needs_restart.clone_from(&answer.needs_restart);
        }
        if answer.outcome == Outcome::Applied {
            status.in_force_since = now;
        }
        self.inbox.status.send_replace(Arc::new(status));
        world.metrics.reloaded(answer.outcome.word(), answer.outcome != Outcome::Refused);
        let outcome = answer.outcome.word();
        let what: Vec<&str> = answer.changes.iter().map(|change: &Change| change.what.as_str()).collect();
        let problems: Vec<String> = answer.problems.iter().map(Problem::to_string).collect();
        match answer.outcome {
            Outcome::Refused => {
                for problem in &problems {
                    error!(operation = "reload", outcome, why, %problem, "what was in force before still is");
                }
            }
            _ => info!(operation = "reload", outcome, why, changes = what.join(", ")),
        }
        if answer.outcome == Outcome::Unchanged {
            return;
        }
        if !answer.needs_restart.is_empty() {
            warn!(operation = "reload", keys = answer.needs_restart.join(", "), "needs a restart");
        }
        let reason = if problems.is_empty() { what.join(", ") } else { problems.join("; ") };
        world.audit.record(Record { reason: Some(reason), ..Record::new("reload", outcome) });
    }
}

fn is_the_same(before: &Settings, after: &Settings) -> bool {
    let without_itself = |settings: &Settings| {
        let mut digests = settings.origin.sources.digests();
        digests.remove(&settings.origin.file);
        digests
    };
    before.origin.value == after.origin.value
        && before.origin.needs_restart == after.origin.needs_restart
        && without_itself(before) == without_itself(after)
}

/// A key that something is sealed with and that is taken away would make it unreadable.
async fn keys_are_enough(world: &World, keys: &KeyRing, settings: &Settings) -> Result<(), Problem> {
    let file = &settings.origin.file;
    let missing = world.keys_missing_from(keys, &settings.lost_keys).await;
    match missing.map_err(|error| Problem::of_file(file, error.0))? {
        None => Ok(()),
        Some(why) => Err(Problem { key: "store.keys".to_owned(), ..Problem::of_file(file, why) }),
    }
}

fn refused(problems: Vec<Problem>) -> ReloadAnswer {
    ReloadAnswer { outcome: Outcome::Refused, changes: Vec::new(), needs_restart: Vec::new(), problems }
}
