//! What a run says: to people while it goes on and when it has failed, and to programs in its last line.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use sidekey_simulator::Grant;

use crate::Plan;
use crate::judge::Evidence;
use crate::models::Model;
use crate::run::Outcome;

/// So many findings are told; the first ones say the most.
const TOLD: usize = 20;
/// So many of the newest tokens of a grant are told.
const TOKENS: usize = 3;

/// Prints how it ended. The exit code is the verdict.
#[expect(clippy::print_stdout, reason = "people and programs read it there")]
pub fn verdict(plan: &Plan, outcome: &Outcome) -> ExitCode {
    let mut reasons = Vec::new();
    for (model, counts) in &outcome.counts {
        reasons.extend(
            counts.accusations(model.keeps_every_grant()).into_iter().map(|name| format!("{}: {name}", model.name())),
        );
        if !counts.is_worth_something(LEAST_AT_EACH) {
            reasons.push(format!("{}: too few kills in a refresh, or no load", model.name()));
        }
    }
    if !outcome.total.is_worth_something(LEAST_IN_REFRESH) {
        reasons.push("too few kills in a refresh".to_owned());
    }
    if !reasons.is_empty() {
        outcome.findings.iter().take(TOLD).for_each(|finding| println!("{finding}\n"));
        println!("failed: {}", reasons.join(", "));
        println!("repeat with {}", repetition(plan));
        if let Some(kept) = &outcome.kept {
            println!("store and log: {}", kept.display());
        }
    }
    println!("{}", result(plan, outcome));
    if reasons.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The share of kills that must hit a refresh somewhere, in percent.
const LEAST_IN_REFRESH: u64 = 30;
/// The share that must hit one at each provider: where a lost reply has to be waited for, there are fewer of them, and a short
/// run has its luck.
const LEAST_AT_EACH: u64 = 10;

/// Prints why there is no verdict.
#[expect(clippy::print_stderr, reason = "people read it there")]
pub fn failed(error: &str) -> ExitCode {
    eprintln!("chaos: {error}");
    ExitCode::FAILURE
}

/// Prints that it goes on.
#[expect(clippy::print_stderr, reason = "people read it there")]
pub fn progress(kills: u64, elapsed: Duration) {
    eprintln!("chaos: {kills} kills in {} s", elapsed.as_secs());
}

/// The command that tries the same again.
pub fn repetition(plan: &Plan) -> String {
    let profile = match plan.models.as_slice() {
        [model] => format!(" PROFILE={}", model.name()),
        _ => String::new(),
    };
    format!("make chaos KILLS={} SEED={}{profile}", plan.kills, plan.seed)
}

/// One accusation: what, and what ledger and store say about the connection.
pub fn finding(model: Model, evidence: &Evidence<'_>, subject: &str, what: &str) -> String {
    let mut text = format!("{}/{subject}, {}: {what}", model.name(), evidence.process);
    let grants = evidence.ledger.grants.iter().filter(|grant| grant.user == subject);
    // Writing to a string cannot fail.
    for grant in grants.rev().take(1) {
        let _ = write!(text, "\n  ledger: {}", told(grant, evidence));
    }
    let _ = match evidence.stored.get(subject) {
        Some(stored) => write!(text, "\n  store: generation {}, {:?}", stored.generation, stored.held),
        None => write!(text, "\n  store: nothing"),
    };
    text
}

fn told(grant: &Grant, evidence: &Evidence<'_>) -> String {
    let since = |at_ms: u64| i128::from(at_ms) - i128::from(evidence.spawned_at_ms);
    let mut text = format!("{}, times in ms since the process was started", grant.id);
    if let Some(revoked) = grant.revoked_at_ms {
        let _ = write!(text, ", revoked at {}", since(revoked));
    }
    for token in grant.refresh_tokens.iter().rev().take(TOKENS) {
        let _ = write!(
            text,
            "\n    {} {}: issued {}, replied {}, first used {:?}, superseded {:?}, dead {:?}, reused {}",
            token.id,
            token.value_sha256,
            since(token.issued_at_ms),
            token.replied,
            token.first_used_at_ms.map(since),
            token.superseded_at_ms.map(since),
            token.dead_at_ms.map(since),
            token.reused_count,
        );
    }
    for token in grant.access_tokens.iter().rev().take(TOKENS) {
        let _ = write!(
            text,
            "\n    {} {}: issued {}, expires {:?}, dead {:?}, first used {:?}, used {}",
            token.id,
            token.value_sha256,
            since(token.issued_at_ms),
            token.expires_at_ms.map(since),
            token.dead_at_ms.map(since),
            token.first_used_at_ms.map(since),
            token.used_count,
        );
    }
    text
}

fn result(plan: &Plan, outcome: &Outcome) -> Value {
    let mut result = json!(outcome.total);
    result["seed"] = json!(plan.seed);
    result["seconds"] = json!((outcome.seconds * 10.0).round() / 10.0);
    result["profiles"] =
        outcome.counts.iter().map(|(model, counts)| (model.name().to_owned(), json!(counts))).collect();
    result
}
