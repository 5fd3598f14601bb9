//! One exchange with the token endpoint: the intent first, then the request, and repetitions where they can do no harm.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::Vault;
use super::outcome::{Asked, Failure, Step, judge};
use crate::base::backoff::RETRY_WAITS;
use crate::base::clock::Timestamp;
use crate::base::digest::sha256;
use crate::base::http::{HttpError, Response};
use crate::base::random;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::Repetition;
use crate::oauth::token_request;
use crate::oauth::token_response::{self, Exchange, TokenReply};
use crate::store::StoreError;
use crate::store::record::{ConnectionRecord, Intent};

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
    /// The connection was refreshed, replaced or ended meanwhile; nobody was asked.
    Overtaken,
    /// The intent could not be stored; nobody was asked.
    Store(StoreError),
}

impl Vault {
    /// Asks with one refresh token of the connection: the current one or another.
    pub(super) async fn exchange(
        &self,
        provider: &Provider,
        record: &ConnectionRecord,
        refresh_token: &Secret,
        is_current: bool,
    ) -> Exchanged {
        let intent = Intent {
            attempt: random::identifier(self.parts.random.as_ref(), "r_"),
            started_at: self.parts.clock.now(),
            refresh_token_digest: sha256(refresh_token.expose().as_bytes()),
        };
        let begun = self.parts.store.begin_refresh(record.id.clone(), record.generation, intent).await;
        let count = begun.map_err(Stopped::Store)?.ok_or(Stopped::Overtaken)?;
        if let Err(mistrust) = self.note_in_sentinel(count).await {
            return Err(Stopped::Failed { failure: Failure::Operator(mistrust), in_doubt_since: None });
        }
        // Only the current token may be in doubt, and have a known age.
        let trouble = record.trouble.as_ref().filter(|_| is_current);
        let in_doubt_since = trouble.and_then(|trouble| trouble.in_doubt_since);
        let token_since = record.refresh_token_since.filter(|_| is_current);
        let reply = self.ask(provider, record, refresh_token, in_doubt_since, token_since).await?;
        Ok((reply, refresh_token.clone()))
    }

    /// One try, and up to three repetitions where they can do no harm.
    async fn ask(
        &self,
        provider: &Provider,
        record: &ConnectionRecord,
        refresh_token: &Secret,
        mut in_doubt_since: Option<Timestamp>,
        token_since: Option<Timestamp>,
    ) -> Result<Box<TokenReply>, Stopped> {
        let rotation = &provider.entry.rotation;
        let mut waits = RETRY_WAITS.iter();
        for attempt in 1.. {
            self.parts.metrics.refresh_attempted(&record.key.provider);
            let (sent_at, reply) = self.send(provider, record, refresh_token).await;
            let may_have_acted = !matches!(reply, Err(HttpError::NotSent(_)));
            let exchange = Exchange::Refresh(record.key.token.as_ref());
            let exchanged = reply.map(|reply| token_response::read(&provider.entry, exchange, &reply, sent_at));
            let wait = waits.next().copied().filter(|_| !self.stopping.load(Ordering::Relaxed));
            let repeat_at = wait.map(|wait| self.parts.clock.now().plus(wait));
            let asked = Asked { sent_at, in_doubt_since, token_since, repeat_at };
            let (wait, error) = match judge(exchanged, rotation, asked) {
                Step::Store(reply) => return Ok(reply),
                Step::Fail(failure) => {
                    log_attempt(record, attempt, None, &failure);
                    return Err(Stopped::Failed { failure, in_doubt_since });
                }
                Step::AskAgain(why) => (wait.unwrap_or_default(), Failure::Transient(why, None)),
            };
            if may_have_acted && rotation.repetition(sent_at, token_since) != Repetition::Harmless {
                // A grace counts from the first time that the provider may have acted.
                in_doubt_since.get_or_insert(sent_at);
            }
            log_attempt(record, attempt, Some(wait), &error);
            self.parts.clock.sleep(wait).await;
        }
        unreachable!("the last wait ends the repetitions")
    }

    async fn send(
        &self,
        provider: &Provider,
        record: &ConnectionRecord,
        refresh_token: &Secret,
    ) -> (Timestamp, Result<Response, HttpError>) {
        // Held for the exchange alone. A semaphore is never closed, and a provider that has none is not limited.
        let _permit = match self.permits.get(&provider.name) {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        let sent_at = self.parts.clock.now();
        let request = token_request::refresh(provider, refresh_token, record.key.token.as_ref());
        (sent_at, self.parts.http.send(request).await)
    }
}

fn log_attempt(record: &ConnectionRecord, attempt: u32, wait: Option<Duration>, failure: &Failure) {
    let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    warn!(
        operation = "refresh_attempt", provider = %record.key.provider, subject = %record.key.subject,
        label = %record.key.label, attempt, outcome = failure.word(), error = failure.summary(), wait_ms,
    );
}
