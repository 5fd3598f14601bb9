//! What is looked at when the killing is over: how often Sidekey asks when nothing fails, what it uses of a connection that was
//! ended, and what it has written down.

use std::time::Duration;

use serde_json::{Value, json};
use sidekey_simulator::IssuedValues;
use sidekey_simulator::oracle::{excess_refreshes, leaks, used_after_end};

use crate::arena::{Arena, SUBJECTS, Target};
use crate::files::{PROFILE, text};
use crate::http::ask;
use crate::image;
use crate::process::{Sidekey, now_ms, pause};

/// Long enough for every access token to be refreshed at least once.
const A_WHILE: Duration = Duration::from_secs(4);
/// How many tokens of each provider are searched for.
const NEWEST: usize = 10;
/// Who is disconnected.
const ENDED: &str = SUBJECTS[0];

/// How often each provider was asked, and how often tokens were stored.
pub struct Economy(Vec<(u64, u64)>);

impl Economy {
    /// Begins to count. All is quiet and nothing fails.
    pub async fn begin(arena: &Arena, target: &Target) -> Result<Self, String> {
        let status = ask(&target.admin, "GET", "/v1/status", &Value::Null).await?;
        let connections = status["connections"].as_array().cloned().unwrap_or_default();
        let stored = |provider: &str| {
            let of_provider = connections.iter().filter(|connection| connection["provider"] == provider);
            of_provider.filter_map(|connection| connection["generation"].as_u64()).sum()
        };
        let asked = |one: &crate::arena::Contender| one.simulator.profile_counters(PROFILE).refresh_attempts;
        let counted = arena.contenders.iter().map(|one| (asked(one), stored(&one.model.provider())));
        let economy = Self(counted.collect());
        pause(A_WHILE).await;
        Ok(economy)
    }

    /// Compares, once the process has ended and all it began is stored.
    pub async fn judge(self, arena: &mut Arena) -> Result<(), String> {
        let image = image::take(&arena.files).await?;
        for (contender, (asked_before, stored_before)) in arena.contenders.iter_mut().zip(self.0) {
            let name = contender.model.provider();
            let of_provider = image.iter().filter(|((provider, _), _)| *provider == name);
            let stored: u64 = of_provider.map(|(_, stored)| stored.generation).sum();
            let asked = contender.simulator.profile_counters(PROFILE).refresh_attempts - asked_before;
            let excess = excess_refreshes(asked, stored.saturating_sub(stored_before));
            contender.case.counts.excess_refreshes += excess;
            if excess > 0 {
                let what =
                    format!("excess_refreshes: {name} was asked {asked} times, {excess} of them brought nothing");
                contender.case.findings.push(what);
            }
        }
        Ok(())
    }
}

/// Disconnects one subject everywhere, and goes on calling for it.
pub async fn end_one(arena: &mut Arena, program: &std::path::Path) -> Result<(), String> {
    let process = Sidekey::start(program, &arena.files)?;
    let target = Target::new(&arena.files)?;
    arena.ready(&target).await?;
    let handle = arena.handles.get(ENDED).cloned().unwrap_or_default();
    let mut ended = Vec::new();
    for contender in &arena.contenders {
        let provider = contender.model.provider();
        let body = json!({ "provider": provider, "subject": ENDED });
        ask(&target.admin, "POST", "/v1/disconnect", &body).await?;
        ended.push((provider, now_ms()));
    }
    for _ in 0..20 {
        for (provider, _) in &ended {
            let url = target.api(provider, "things");
            let answer = target.client.get(url).bearer_auth(&handle).send().await.map_err(text)?;
            if answer.status().is_success() {
                return Err(format!("{provider} still answers for {ENDED}"));
            }
        }
        pause(Duration::from_millis(50)).await;
    }
    let metrics = target.metrics().await?;
    process.terminate().await?;
    for (contender, (_, ended_at_ms)) in arena.contenders.iter_mut().zip(ended) {
        let ledger = contender.simulator.profile_ledger(PROFILE);
        for token in used_after_end(&ledger, ENDED, ended_at_ms) {
            contender.case.counts.used_after_end += 1;
            contender.case.findings.push(format!("used_after_end: {} of {ENDED} was used", token.id));
        }
    }
    search(arena, metrics)
}

/// Looks for secrets in everything that was written.
fn search(arena: &mut Arena, metrics: String) -> Result<(), String> {
    let mut texts = vec![("metrics".to_owned(), metrics.into_bytes())];
    texts.push(("log".to_owned(), std::fs::read(arena.files.log()).map_err(text)?));
    for entry in std::fs::read_dir(arena.files.store()).map_err(text)? {
        let entry = entry.map_err(text)?;
        if entry.file_type().map_err(text)?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            texts.push((name, std::fs::read(entry.path()).map_err(text)?));
        }
    }
    for contender in &mut arena.contenders {
        let values: IssuedValues = contender.simulator.issued_values();
        for name in leaks(&values, NEWEST, &texts) {
            contender.case.counts.secrets_found += 1;
            contender
                .case
                .findings
                .push(format!("secrets_found: a secret of {} is in {name}", contender.model.provider()));
        }
    }
    Ok(())
}
