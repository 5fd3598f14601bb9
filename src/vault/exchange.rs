//! One exchange with the token endpoint: the intent first, then the request, and repetitions where they can do no harm.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tracing::warn;

use super::Vault;
use super::attempts::Attempt;
use super::outcome::{Asked, Failure, Step, judge, left_alone_until, repetition};
use super::refresh::Occasion;
use crate::base::backoff::RETRY_WAITS;
use crate::base::clock::Timestamp;
use crate::base::digest::sha256;
use crate::base::http::HttpError;
use crate::base::random;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::Repetition;
use crate::oauth::token_request;
use crate::oauth::token_response::{self, Exchange, TokenReply};
use crate::store::StoreError;
use crate::store::record::{Beginning, ConnectionRecord, Intent};
use crate::telemetry::stopwatch::Stopwatch;

/// Which of a connection's refresh tokens is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The current one, and why.
    Current(Occasion),
    /// One before it, or one that lost a race: after the current one was refused.
    Other,
}

/// The reply and the refresh token that got it, or why there is none.
pub type Exchanged = Result<(Box<TokenReply>, Secret), Stopped>;

/// Why an exchange brought no tokens.
#[derive(Debug)]
pub enum Stopped {
    /// The provider was asked, or could not be.
    Failed {
        /// How it ended.
        failure: Failure,
        /// Since when the outcome is in doubt, if a request before the last left it so.
        in_doubt_since: Option<Timestamp>,
    },
    /// The connection was refreshed, replaced or ended meanwhile, or the process is to end; nobody was asked.
    Overtaken,
    /// There is a token that works, and asking before then could end it.
    LeftAlone(Timestamp),
    /// The intent could not be stored; nobody was asked.
    Store(StoreError),
}

/// How long nothing may be heard of a refresh until its connection comes up again: longer than all its repetitions take.
const UNHEARD_OF: Duration = Duration::from_secs(600);

impl Vault {
    /// Asks with one refresh token of the connection: the current one or another. The record takes note of the intent.
    pub(super) async fn exchange(
        &self,
        provider: &Provider,
        record: &mut ConnectionRecord,
        refresh_token: &Secret,
        which: Which,
    ) -> Exchanged {
        // Before the intent: what waits in a queue has not begun, and a grace counts from when it was sent.
        let (permit, has_waited) = match self.permits.get(&provider.name).map(|permits| permits.try_acquire()) {
            Some(Ok(permit)) => (Some(permit), false),
            Some(Err(_)) => (self.permit(provider).await, true),
            None => (None, false),
        };
        if has_waited && self.memory.stopping.load(Ordering::Relaxed) {
            return Err(Stopped::Overtaken);
        }
        let rotation = &provider.entry.rotation;
        let now = self.parts.clock.now();
        if let (Which::Current(Occasion::Due), Some(until)) = (which, left_alone_until(record, rotation, now)) {
            return Err(Stopped::LeftAlone(until));
        }
        let intent = Intent {
            attempt: random::identifier(self.parts.random.as_ref(), "r_"),
            started_at: now,
            refresh_token_digest: sha256(refresh_token.expose().as_bytes()),
        };
        let after = record.intent.as_ref().map(|intent| intent.attempt.clone());
        let begin = Beginning { intent: intent.clone(), after, unheard_of_at: now.plus(UNHEARD_OF) };
        let begun = self.parts.store.begin_refresh(record.id.clone(), record.generation, begin).await;
        let count = begun.map_err(Stopped::Store)?.ok_or(Stopped::Overtaken)?;
        record.intent = Some(intent);
        if let Err(mistrust) = self.note_in_sentinel(count).await {
            return Err(Stopped::Failed { failure: Failure::Operator(mistrust), in_doubt_since: None });
        }
        let reply = self.ask(provider, record, refresh_token, which, permit).await?;
        Ok((reply, refresh_token.clone()))
    }

    /// One try, and up to three repetitions where they can do no harm.
    async fn ask(
        &self,
        provider: &Provider,
        record: &ConnectionRecord,
        refresh_token: &Secret,
        which: Which,
        permit: Permit<'_>,
    ) -> Result<Box<TokenReply>, Stopped> {
        let rotation = &provider.entry.rotation;
        // Only the current token may be in doubt, and have a known age.
        let trouble = record.trouble.as_ref().filter(|_| which != Which::Other);
        let mut in_doubt_since = trouble.and_then(|trouble| trouble.in_doubt_since);
        let token_since = record.refresh_token_since.filter(|_| which != Which::Other);
        let (mut waits, mut permit) = (RETRY_WAITS.iter(), Some(permit));
        for attempt in 1.. {
            // Held for the exchange alone: others go on while this one waits.
            let held = match permit.take() {
                Some(permit) => permit,
                None => self.permit(provider).await,
            };
            let now = self.parts.clock.now();
            if let Some(since) = in_doubt_since.filter(|_| attempt > 1) {
                let repetition = repetition(rotation, since, token_since, now);
                if matches!(repetition, Repetition::HarmlessUntil(end) if now >= end) {
                    // It waited for its turn longer than the grace.
                    let why = "a reply was lost, and the grace is over".to_owned();
                    let failure = Failure::InDoubt { why, since, repetition, retry_after: None };
                    return Err(Stopped::Failed { failure, in_doubt_since });
                }
            }
            self.parts.metrics.refresh_attempted(&record.key.provider);
            let sent_at = now;
            let request = token_request::refresh(provider, refresh_token, record.key.token.as_ref());
            let stopwatch = Stopwatch::start();
            let reply = self.parts.http.send(request).await;
            let took = stopwatch.elapsed();
            drop(held);
            let may_have_acted = !matches!(reply, Err(HttpError::NotSent(_)));
            let exchange = Exchange::Refresh(record.key.token.as_ref());
            let exchanged = reply.map(|reply| token_response::read(&provider.entry, exchange, &reply, sent_at));
            let wait = waits.next().copied().filter(|_| !self.memory.stopping.load(Ordering::Relaxed));
            let repeat_at = wait.map(|wait| self.parts.clock.now().plus(wait));
            let asked = Asked { sent_at, in_doubt_since, token_since, repeat_at };
            let (wait, error) = match judge(exchanged, rotation, asked) {
                Step::Store(reply) => {
                    self.tell_watchers(record, attempt, took, None, None);
                    return Ok(reply);
                }
                Step::Fail(failure) => {
                    log_attempt(record, attempt, None, &failure);
                    self.tell_watchers(record, attempt, took, None, Some(&failure));
                    return Err(Stopped::Failed { failure, in_doubt_since });
                }
                Step::AskAgain(why) => (wait.unwrap_or_default(), Failure::Transient(why, None)),
            };
            if may_have_acted && rotation.repetition(sent_at, token_since) != Repetition::Harmless {
                // A grace counts from the first time that the provider may have acted.
                in_doubt_since.get_or_insert(sent_at);
            }
            log_attempt(record, attempt, Some(wait), &error);
            self.tell_watchers(record, attempt, took, Some(wait), Some(&error));
            self.parts.clock.sleep(wait).await;
        }
        unreachable!("the last wait ends the repetitions")
    }

    fn tell_watchers(
        &self,
        record: &ConnectionRecord,
        number: u32,
        took: Duration,
        wait: Option<Duration>,
        failure: Option<&Failure>,
    ) {
        let outcome = failure.map_or("ok", Failure::word);
        let said = failure.map(|failure| failure.summary().to_owned());
        // An error means that nobody watches.
        let _ = self.memory.attempts.send(Attempt { key: record.key.clone(), number, took, outcome, said, wait });
    }

    /// Leave to ask a provider. A semaphore is never closed, and a provider that has none is not limited.
    async fn permit(&self, provider: &Provider) -> Permit<'_> {
        match self.permits.get(&provider.name) {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        }
    }
}

type Permit<'v> = Option<SemaphorePermit<'v>>;

fn log_attempt(record: &ConnectionRecord, attempt: u32, wait: Option<Duration>, failure: &Failure) {
    let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    warn!(
        operation = "refresh_attempt", provider = %record.key.provider, subject = %record.key.subject,
        label = %record.key.label, attempt, outcome = failure.word(), error = failure.summary(), wait_ms,
    );
}
