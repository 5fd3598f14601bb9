//! What a process does in its short life: it answers API calls of every user without pause, and connects again those whose
//! grant was lost.

use std::time::Duration;

use sidekey_simulator::oracle::{RequestOutcome, RequestRecord};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arena::Target;
use crate::connect::connect;
use crate::dice::Dice;
use crate::files::text;
use crate::process::{now_ms, pause};

/// A user's calls to one provider.
#[derive(Clone)]
pub struct Caller {
    /// To whom.
    pub provider: String,
    /// For whom.
    pub subject: &'static str,
    /// By what.
    pub handle: String,
}

/// One call, as the caller saw it.
pub struct Exchange {
    /// To whom.
    pub provider: String,
    /// When, and with what outcome.
    pub record: RequestRecord,
    /// Whose answer it was.
    pub answered_for: Option<String>,
}

/// Everything that was tried while one process lived.
#[derive(Default)]
pub struct Session {
    /// All calls, those included that its end cut off.
    pub exchanges: Vec<Exchange>,
    /// Provider and subject of every dance, when it ended, and how.
    pub dances: Vec<(String, &'static str, u64, Result<(), String>)>,
}

/// Milliseconds between two calls of one caller.
const PAUSE: (u64, u64) = (60, 160);

/// Waits until the process is ready, and keeps it busy until `stop`.
pub async fn session(
    target: Target,
    callers: Vec<Caller>,
    unconnected: Vec<(String, &'static str)>,
    seed: u64,
    stop: CancellationToken,
) -> Session {
    let mut session = Session::default();
    while !target.is_ready().await {
        if stop.is_cancelled() {
            return session;
        }
        pause(Duration::from_millis(5)).await;
    }
    let mut calls = JoinSet::new();
    for (number, caller) in (0..).zip(callers) {
        let dice = Dice::new(seed, number);
        calls.spawn(call_again_and_again(target.clone(), caller, dice, stop.clone()));
    }
    let mut dances = JoinSet::new();
    for (provider, subject) in unconnected {
        let target = target.clone();
        dances.spawn(async move {
            let result = connect(&target, &provider, subject).await;
            (provider, subject, now_ms(), result)
        });
    }
    session.dances = dances.join_all().await;
    session.exchanges = calls.join_all().await.into_iter().flatten().collect();
    session
}

async fn call_again_and_again(target: Target, caller: Caller, dice: Dice, stop: CancellationToken) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    for number in 1.. {
        if stop.is_cancelled() {
            break;
        }
        exchanges.push(call(&target, &caller, number).await);
        tokio::select! {
            () = pause(Duration::from_millis(dice.between(PAUSE.0, PAUSE.1))) => {}
            () = stop.cancelled() => {}
        }
    }
    exchanges
}

/// One call. Its mark tells the simulator who made it.
async fn call(target: &Target, caller: &Caller, number: u64) -> Exchange {
    let url = target.api(&caller.provider, &format!("things?mark=call-{}-{number}", caller.subject));
    let started_at_ms = now_ms();
    let answer = answer(target.client.get(url).bearer_auth(&caller.handle)).await;
    let (outcome, answered_for) = match answer {
        Ok(user) => (RequestOutcome::Answered, Some(user)),
        Err(why) => (RequestOutcome::Failed(why), None),
    };
    let record = RequestRecord { user: caller.subject.to_owned(), started_at_ms, ended_at_ms: now_ms(), outcome };
    Exchange { provider: caller.provider.clone(), record, answered_for }
}

/// Whose answer it is.
async fn answer(request: reqwest::RequestBuilder) -> Result<String, String> {
    let answer = request.send().await.map_err(text)?;
    let (status, body) = (answer.status(), answer.bytes().await.map_err(text)?);
    let body: serde_json::Value = serde_json::from_slice(&body).map_err(|_| format!("{status} without JSON"))?;
    match (status.as_u16(), body["user"].as_str()) {
        (200, Some(user)) => Ok(user.to_owned()),
        _ => Err(format!("{status}: {body}")),
    }
}
