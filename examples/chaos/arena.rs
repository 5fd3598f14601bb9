//! What takes part in a run: the providers, the users, and the files of the Sidekey between them.

use std::collections::BTreeMap;

use sidekey_simulator::{Options, Profile, Settings, Simulator};

use crate::Plan;
use crate::connect::{connect, handle};
use crate::files::{Files, PROFILE, text};
use crate::http;
use crate::judge::Case;
use crate::models::Model;
use crate::plant::Saboteur;
use crate::process::Sidekey;
use crate::weather;

/// The subjects; each has one connection to every provider, and at each provider a simulated user of the same name.
pub const SUBJECTS: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

/// One provider, and what is known about how Sidekey treats it.
pub struct Contender {
    /// Its rule of rotation.
    pub model: Model,
    /// The provider itself.
    pub simulator: Simulator,
    /// What the oracle has seen.
    pub case: Case,
}

/// Everything but the process.
pub struct Arena {
    /// The providers.
    pub contenders: Vec<Contender>,
    /// The directory.
    pub files: Files,
    /// Handles by subject.
    pub handles: BTreeMap<&'static str, String>,
    /// Makes something wrong, if that is wanted.
    pub saboteur: Saboteur,
}

/// How a running process is reached.
#[derive(Clone)]
pub struct Target {
    /// For callers and browsers.
    pub client: reqwest::Client,
    /// For the admin socket.
    pub admin: reqwest::Client,
    egress: String,
    metrics: String,
}

impl Target {
    /// A process on these files that was started just now: no connection to an earlier one is used.
    pub fn new(files: &Files) -> Result<Self, String> {
        let (egress, metrics) = (format!("http://{}", files.egress), format!("http://{}", files.metrics));
        Ok(Self { client: http::client()?, admin: http::admin_client(&files.admin_socket())?, egress, metrics })
    }

    /// An API call's address.
    pub fn api(&self, provider: &str, path: &str) -> String {
        format!("{}/{provider}/{path}", self.egress)
    }

    /// What scrapers read.
    pub async fn metrics(&self) -> Result<String, String> {
        let answer = self.client.get(format!("{}/metrics", self.metrics)).send().await.map_err(text)?;
        answer.text().await.map_err(text)
    }

    /// Whether it answers and is well.
    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.metrics)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

impl Arena {
    /// Starts the providers, and connects every subject to each of them.
    pub async fn build(plan: &Plan) -> Result<Self, String> {
        let mut contenders = Vec::new();
        for model in &plan.models {
            let mut settings = Settings::of(Profile::Generic);
            model.apply(&mut settings);
            let options = Options { settings: vec![(PROFILE.to_owned(), settings)], ..Options::default() };
            let simulator = sidekey_simulator::start(options).await.map_err(text)?;
            let contender = Contender { model: *model, simulator, case: Case::new(*model) };
            weather::clear_up(&contender);
            contenders.push(contender);
        }
        let urls: Vec<_> = contenders.iter().map(|contender| (contender.model, contender.simulator.url())).collect();
        let files = Files::write(&urls)?;
        let mut arena = Self { contenders, files, handles: BTreeMap::new(), saboteur: Saboteur::new(plan.plant) };
        arena.connect_everybody(plan).await?;
        Ok(arena)
    }

    async fn connect_everybody(&mut self, plan: &Plan) -> Result<(), String> {
        let process = Sidekey::start(&plan.program, &self.files)?;
        let target = Target::new(&self.files)?;
        self.ready(&target).await?;
        for subject in SUBJECTS {
            for contender in &mut self.contenders {
                connect(&target, &contender.model.provider(), subject).await?;
                contender.confirm(subject);
            }
            self.handles.insert(subject, handle(&target, subject).await?);
        }
        process.terminate().await
    }

    /// Waits until a process answers.
    pub async fn ready(&self, target: &Target) -> Result<(), String> {
        let longest = std::time::Duration::from_secs(30);
        if crate::process::until(longest, async || target.is_ready().await).await {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.files.log()).unwrap_or_default();
        Err(format!("sidekey did not become ready; the end of its log:\n{}", last_lines(&log, 20)))
    }
}

impl Contender {
    /// A user was told that they are connected: from here on that grant, or a newer one, is in the store.
    pub fn confirm(&mut self, subject: &str) {
        let ledger = self.simulator.profile_ledger(PROFILE);
        if let Some(grant) = ledger.last_grant_of(subject) {
            self.case.confirm(subject, &grant.id);
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
