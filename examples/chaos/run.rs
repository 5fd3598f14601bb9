//! The rounds of a run: start, load, kill, look, judge.

use std::time::Duration;

use serde_json::Value;
use sidekey::telemetry::stopwatch::Stopwatch;
use sidekey_simulator::oracle::Counts;
use tokio_util::sync::CancellationToken;

use crate::Plan;
use crate::afterwards::{self, Economy};
use crate::arena::{Arena, SUBJECTS, Target};
use crate::dice::Dice;
use crate::files::PROFILE;
use crate::http::ask;
use crate::image;
use crate::judge::Evidence;
use crate::load::{Caller, Session, session};
use crate::models::Model;
use crate::process::{Sidekey, now_ms, pause, until};
use crate::report;
use crate::weather;

/// The shortest and the longest life of a process, in milliseconds. Some die before they are ready.
const LIFE: (u64, u64) = (50, 1500);
/// How long refreshes may take to settle when all is quiet: the longest are those that wait for their repetitions.
const QUIET: Duration = Duration::from_secs(60);
/// How long the provider may take to finish what was sent to it.
const LATE: Duration = Duration::from_secs(10);

/// What a run came to.
pub struct Outcome {
    /// Each provider's counts.
    pub counts: Vec<(Model, Counts)>,
    /// All of them together.
    pub total: Counts,
    /// What speaks against Sidekey.
    pub findings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Where everything still is, if something speaks against Sidekey.
    pub kept: Option<std::path::PathBuf>,
}

/// All rounds, and the quiet at the end.
pub async fn run(plan: &Plan) -> Result<Outcome, String> {
    let stopwatch = Stopwatch::start();
    let mut arena = Arena::build(plan).await?;
    let dice = Dice::new(plan.seed, 0);
    let mut total = Counts::default();
    for number in 1..=plan.kills {
        let in_refresh = round(plan, &mut arena, number, &dice).await?;
        total.kills += 1;
        total.kills_in_refresh += u64::from(in_refresh);
        if number % 50 == 0 {
            report::progress(number, stopwatch.elapsed());
        }
    }
    quiet(plan, &mut arena).await?;
    let counts: Vec<_> = arena.contenders.iter().map(|one| (one.model, one.case.counts.clone())).collect();
    counts.iter().for_each(|(_, counts)| total.add(counts));
    let findings: Vec<String> = arena.contenders.iter().flat_map(|one| one.case.findings.clone()).collect();
    let kept = (!findings.is_empty()).then(|| arena.files.keep());
    Ok(Outcome { counts, total, findings, seconds: stopwatch.elapsed().as_secs_f64(), kept })
}

/// One life and death. Returns whether a refresh died with it.
async fn round(plan: &Plan, arena: &mut Arena, number: u64, dice: &Dice) -> Result<bool, String> {
    arena.contenders.iter().for_each(|contender| weather::change(contender, dice));
    let life = Duration::from_millis(dice.between(LIFE.0, LIFE.1));
    let process = Sidekey::start(&plan.program, &arena.files)?;
    let spawned_at_ms = process.spawned_at_ms;
    let stop = CancellationToken::new();
    let target = Target::new(&arena.files)?;
    let busy = session(target, callers(arena), unconnected(arena), plan.seed ^ number, stop.clone());
    let busy = tokio::spawn(busy);
    pause(life).await;
    let killed_at_ms = process.kill().await?;
    stop.cancel();
    let session = busy.await.map_err(|error| error.to_string())?;
    confirm(arena, &session, Some(killed_at_ms))?;
    let name = format!("process {number}");
    judge(arena, name, spawned_at_ms, Some(killed_at_ms), session).await
}

/// A last process lives until nothing is in doubt anymore, and is asked to end.
async fn quiet(plan: &Plan, arena: &mut Arena) -> Result<(), String> {
    arena.contenders.iter().for_each(weather::clear_up);
    let process = Sidekey::start(&plan.program, &arena.files)?;
    let spawned_at_ms = process.spawned_at_ms;
    let target = Target::new(&arena.files)?;
    arena.ready(&target).await?;
    // Whatever does not settle is found in the store.
    until(QUIET, async || is_settled(&target).await).await;
    let economy = Economy::begin(arena, &target).await?;
    process.terminate().await?;
    economy.judge(arena).await?;
    judge(arena, "the last process".to_owned(), spawned_at_ms, None, Session::default()).await?;
    afterwards::end_one(arena, &plan.program).await
}

/// Looks at what is left and at the ledgers, and judges.
async fn judge(
    arena: &mut Arena,
    process: String,
    spawned_at_ms: u64,
    killed_at_ms: Option<u64>,
    session: Session,
) -> Result<bool, String> {
    let image = image::take(&arena.files).await?;
    let image = arena.saboteur.image(image);
    // What the dead process has sent may still take effect. It is over before the next one begins, as it is where a
    // supervisor takes a moment to start it: that a single-use token arrives twice is then nobody's fault but ours.
    let contenders = &arena.contenders;
    let all_decided = async || contenders.iter().all(|one| one.simulator.undecided_token_requests() == 0);
    if !until(LATE, all_decided).await {
        return Err("a simulator does not finish what was sent to it".to_owned());
    }
    let mut exchanges = session.exchanges;
    let mut any_in_refresh = false;
    for contender in &mut arena.contenders {
        let provider = contender.model.provider();
        let (ledger, at_ms) = (contender.simulator.profile_ledger(PROFILE), now_ms());
        let calls = contender.simulator.take_api_calls();
        let of_provider = image.iter().filter(|((name, _), _)| *name == provider);
        let stored = of_provider.map(|((_, subject), stored)| (subject.clone(), stored.clone())).collect();
        let own = exchanges.extract_if(.., |exchange| exchange.provider == provider).collect();
        let evidence = Evidence {
            process: process.clone(),
            spawned_at_ms,
            killed_at_ms,
            ledger: &ledger,
            at_ms,
            calls: &calls,
            stored,
            exchanges: own,
        };
        if killed_at_ms.is_none() {
            contender.case.judge_quiet(&evidence);
        }
        any_in_refresh |= contender.case.judge(evidence);
    }
    Ok(any_in_refresh)
}

fn callers(arena: &Arena) -> Vec<Caller> {
    let of = |model: Model| {
        arena.handles.iter().map(move |(subject, handle)| Caller {
            provider: model.provider(),
            subject: arena.saboteur.caller(subject),
            handle: handle.clone(),
        })
    };
    arena.contenders.iter().flat_map(|contender| of(contender.model)).collect()
}

fn unconnected(arena: &Arena) -> Vec<(String, &'static str)> {
    let of = |contender: &crate::arena::Contender| {
        let provider = contender.model.provider();
        contender.case.given_up().into_iter().map(move |subject| (provider.clone(), subject)).collect::<Vec<_>>()
    };
    arena.contenders.iter().flat_map(of).collect()
}

/// Notes who was told to be connected. A dance that failed while the process was alive ends the run.
fn confirm(arena: &mut Arena, session: &Session, killed_at_ms: Option<u64>) -> Result<(), String> {
    for (provider, subject, ended_at_ms, result) in &session.dances {
        let contender = arena.contenders.iter_mut().find(|contender| contender.model.provider() == *provider);
        let Some(contender) = contender else { continue };
        match result {
            Ok(()) => {
                contender.confirm(subject);
                contender.case.counts.reconnected += 1;
            }
            Err(_) if killed_at_ms.is_some_and(|killed| *ended_at_ms >= killed) => {}
            Err(why) => return Err(format!("{subject} cannot connect to {provider}: {why}")),
        }
    }
    Ok(())
}

/// Whether every connection is either well or given up.
async fn is_settled(target: &Target) -> bool {
    let Ok(status) = ask(&target.admin, "GET", "/v1/status", &Value::Null).await else { return false };
    let connections = status["connections"].as_array().cloned().unwrap_or_default();
    let is_well = |connection: &Value| connection["state"] != "active" || connection["trouble"].is_null();
    connections.len() >= SUBJECTS.len() && connections.iter().all(is_well)
}
