//! A refresh that an operator asks for: the same one as any other, joined by whoever waits for it, and watched.

use std::sync::Arc;
use std::time::Duration;

use super::attempts::Attempt;
use super::refresh::{Occasion, RefreshResult};
use super::{TokenError, Vault};
use crate::base::clock::Timestamp;
use crate::model::connection::{ConnectionKey, ConnectionState};
use crate::telemetry::stopwatch::Stopwatch;

/// How a refresh went that was asked for.
#[derive(Clone, Debug)]
pub struct Forced {
    /// What it came to.
    pub result: RefreshResult,
    /// Why it failed, if it did.
    pub reason: Option<String>,
    /// Whether it was under way already.
    pub has_joined: bool,
    /// What was asked of the token endpoint meanwhile.
    pub attempts: Vec<Attempt>,
    /// From the question to the durable result.
    pub took: Duration,
}

impl Forced {
    /// The word for the result.
    pub fn word(&self) -> &'static str {
        match self.result {
            RefreshResult::Refreshed => "ok",
            RefreshResult::Overtaken => "overtaken",
            RefreshResult::Failed(word) => word,
        }
    }
}

impl Vault {
    /// Refreshes now, whatever the clock says, or joins the refresh under way. One whose outcome is in doubt is left alone as
    /// always: asking again could end the grant.
    pub async fn refresh_now(self: &Arc<Self>, key: &ConnectionKey) -> Result<Forced, TokenError> {
        let slot = match self.slot_in_memory(key) {
            Some(slot) => slot,
            None => self.load(key).await?,
        };
        let live = slot.live();
        if live.state != ConnectionState::Active || !live.has_refresh_token() {
            return Err(live.error(self.parts.clock.now()));
        }
        let (mut watched, stopwatch) = (self.memory.attempts.subscribe(), Stopwatch::start());
        let has_joined = slot.is_refreshing();
        let result = self.refresh(&slot, &live, Occasion::Due).await;
        let took = stopwatch.elapsed();
        let mut attempts = Vec::new();
        loop {
            match watched.try_recv() {
                Ok(attempt) if attempt.key == *key => attempts.push(attempt),
                Ok(_) | Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        let reason = slot.live().last_error().filter(|_| matches!(result, RefreshResult::Failed(_)));
        Ok(Forced { result, reason, has_joined, attempts, took })
    }

    /// What a caller is told once the current token has expired and nothing has changed.
    pub(super) fn error_once_expired(&self, key: &ConnectionKey, now: Timestamp) -> Option<TokenError> {
        Some(self.slot_in_memory(key)?.live().error(now))
    }
}
