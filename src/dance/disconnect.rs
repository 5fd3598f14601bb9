//! Journey J6: a subject is disconnected. Here that is so at once; the provider is told as soon as it listens.
//!
//! The tokens move, sealed as they are, from the connection to a queue in the same step that ends it. From there the grant
//! is given back, again and again if need be, also after a restart.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tracing::{info, warn};

use super::Dance;
use crate::base::backoff::after_failure;
use crate::base::random;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::Cascade;
use crate::model::connection::ConnectionKey;
use crate::oauth::revoke::{self, Grant, Revoked};
use crate::store::StoreError;
use crate::store::record::{RevocationRecord, connection_context, field};
use crate::telemetry::audit::Record;

/// What became of the grant at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The provider has ended it.
    Done,
    /// The provider could not be told yet; it is tried again.
    Queued,
    /// The provider offers no way to end it, or only one that would end more.
    NotOffered,
}

impl Revocation {
    /// The word for it in JSON and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Queued => "queued",
            Self::NotOffered => "not_offered",
        }
    }
}

/// What came of ending a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// What became of the grant.
    pub revocation: Revocation,
    /// What the provider answered, one for each access token that the connection had; none where it was not asked.
    pub answers: Vec<String>,
}

/// So many are tried in one go.
const BATCH: usize = 64;
/// The queue is looked at so often.
const PAUSE: Duration = Duration::from_secs(5);
/// A provider that has not listened for so many tries (a month of them) will not.
const MOST_ATTEMPTS: u32 = 4_500;

impl Dance {
    /// Ends a connection; `None` if there is none.
    pub async fn disconnect(self: &Arc<Self>, key: &ConnectionKey) -> Result<Option<Disconnected>, StoreError> {
        // One that is not configured just now is told once it is again.
        let is_to_be_told = self.provider(&key.provider).is_none_or(|provider| revoke::offered(provider).is_some());
        let id = is_to_be_told.then(|| random::identifier(self.parts.random.as_ref(), "v_"));
        // In a task of its own: whoever asked may go away, and what is ended in the store must be ended in memory.
        let (dance, key_of_task, under_way) = (Arc::clone(self), key.clone(), self.parts.vault.work_under_way());
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            dance.end_connection(&key_of_task, id).await
        });
        let ended = task.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))?;
        let Some(disconnected) = ended else { return Ok(None) };
        let revocation = disconnected.revocation;
        info!(
            operation = "disconnect", provider = %key.provider, subject = %key.subject, label = %key.label,
            outcome = revocation.word(),
        );
        self.parts.audit.record(Record::of_connection("disconnect", revocation.word(), key));
        Ok(Some(disconnected))
    }

    async fn end_connection(
        &self,
        key: &ConnectionKey,
        id: Option<String>,
    ) -> Result<Option<Disconnected>, StoreError> {
        let ended = self.parts.store.disconnect(key.clone(), id, self.parts.clock.now()).await;
        // Also if it failed: it may be written all the same, and what is still there is read again.
        self.parts.vault.forget(key);
        let Some(queued) = ended? else { return Ok(None) };
        let mut revocation = if queued.is_empty() { Revocation::NotOffered } else { Revocation::Done };
        let mut answers = Vec::new();
        for record in &queued {
            let (outcome, answer) = self.give_back(record).await;
            if outcome == Revocation::Queued {
                revocation = Revocation::Queued;
            }
            answers.push(answer);
        }
        Ok(Some(Disconnected { revocation, answers }))
    }

    /// Gives back what is queued, until [`Self::retire`] is called or the future is dropped.
    pub async fn work_on_revocations(self: Arc<Self>) {
        loop {
            match self.parts.store.revocations_due(self.parts.clock.now(), BATCH).await {
                Ok(due) => {
                    for record in due {
                        let _under_way = self.parts.vault.work_under_way();
                        self.give_back(&record).await;
                    }
                }
                Err(error) => warn!(operation = "revoke", %error, "the queue cannot be read"),
            }
            tokio::select! {
                () = self.succeeded.cancelled() => return,
                () = self.parts.clock.sleep(PAUSE) => {}
            }
        }
    }

    /// What came of it, and in which words.
    async fn give_back(&self, record: &RevocationRecord) -> (Revocation, String) {
        let not_asked = |outcome| (outcome, None);
        let (outcome, status) = match self.provider(&record.key.provider) {
            Some(provider) if self.would_end_another(provider, record).await => not_asked(Revoked::Superseded),
            Some(provider) => self.ask(provider, record).await,
            None => not_asked(Revoked::NotYet("the provider is not configured".to_owned())),
        };
        let status = status.map_or_else(String::new, |status| format!("HTTP {}: ", status.as_u16()));
        let (done, why) = match outcome {
            Revoked::Done => (true, "done".to_owned()),
            Revoked::Superseded => (true, "connected again meanwhile, perhaps by the same grant".to_owned()),
            Revoked::Unknown => (true, "the provider does not know it anymore".to_owned()),
            Revoked::NotYet(why) => (record.attempts >= MOST_ATTEMPTS, why),
        };
        let kept = if done {
            self.parts.store.finish_revocation(record.id.clone()).await
        } else {
            let wait = after_failure(record.attempts.saturating_add(1), self.parts.random.as_ref());
            self.parts.store.postpone_revocation(record.id.clone(), self.parts.clock.now().plus(wait)).await
        };
        if let Err(error) = kept {
            warn!(operation = "revoke", %error, "the outcome is not kept; it is tried again");
        }
        let outcome = if done { "done" } else { "queued" };
        let reason = Some(why.clone());
        self.parts.audit.record(Record { reason, ..Record::of_connection("revoke", outcome, &record.key) });
        info!(operation = "revoke", connection = %record.key, attempt = record.attempts + 1, outcome = why.as_str());
        let answer = if why.starts_with("HTTP ") { why } else { format!("{status}{why}") };
        (if done { Revocation::Done } else { Revocation::Queued }, answer)
    }

    /// Whether the subject has connected again, and the provider may count both as one grant: what is given back would be the new
    /// one.
    async fn would_end_another(&self, provider: &Provider, record: &RevocationRecord) -> bool {
        let of_one_token = revoke::offered(provider).and_then(|call| call.cascades) == Some(Cascade::Token);
        let connected = self.parts.store.connection(record.key.with_token(None)).await;
        !of_one_token && matches!(connected, Ok(Some(_)))
    }

    /// What the answer means, and its status if there is one.
    async fn ask(&self, provider: &Provider, record: &RevocationRecord) -> (Revoked, Option<StatusCode>) {
        let not_asked = |why: String| (Revoked::NotYet(why), None);
        let Some(call) = revoke::offered(provider) else { return (Revoked::Unknown, None) };
        let open = |field, sealed| {
            let context = connection_context(&record.key, &record.connection_id, field, record.generation);
            self.parts.sealer.open(&context, sealed)
        };
        let access = open(field::ACCESS_TOKEN, &record.access_token);
        let refresh: Option<Result<Secret, _>> =
            record.refresh_token.as_ref().map(|sealed| open(field::REFRESH_TOKEN, sealed));
        let (Ok(access), Ok(refresh)) = (access, refresh.transpose()) else {
            return not_asked("its tokens cannot be opened".to_owned());
        };
        let grant = Grant { access: &access, refresh: refresh.as_ref(), captured: &record.captured };
        let request = match revoke::request(provider, call, &grant) {
            Ok(request) => request,
            Err(why) => return not_asked(why),
        };
        match self.parts.http.send(request).await {
            Ok(reply) => (revoke::read(call, &reply), Some(reply.status)),
            Err(error) => not_asked(error.to_string()),
        }
    }
}
