//! Kills a real `sidekey serve` at random instants while it refreshes tokens and serves requests, starts it again on what
//! it left on disk, and has an oracle judge the store that each dead process left behind.
//!
//! One process serves one provider for each rule by which refresh tokens live and die, each played by a simulator of its
//! own, so that every kill tries all rules at once. `docs/chaos.md` says what is measured and how to read it.
//!
//! Reading order: `run` (the rounds), `arena` (what takes part), `judge` (the oracle's rules, applied to one provider),
//! `afterwards` (what is looked at in the end), `report` (the verdict, told); `models`, `image`, `load`, `connect`, `weather`, `process`, `files`, `http` are the
//! pieces. `plant` makes something wrong on purpose.

mod afterwards;
mod arena;
mod connect;
mod dice;
mod files;
mod http;
mod image;
mod judge;
mod load;
mod models;
mod plant;
mod process;
mod report;
mod run;
mod weather;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sidekey::base::random::{self, SystemRandom};

use crate::models::Model;
use crate::plant::Plant;

#[derive(Parser)]
#[command(name = "chaos", about = "Kill Sidekey again and again, and see whether it loses anything")]
struct Arguments {
    /// How often.
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Repeats a run: the same instants, the same misfortunes [default: a new one].
    #[arg(long)]
    seed: Option<u64>,
    /// Only this rule of rotation [default: all].
    #[arg(long)]
    profile: Option<Model>,
    /// The program [default: `sidekey` beside this one's directory].
    #[arg(long, value_name = "PATH")]
    sidekey: Option<PathBuf>,
    /// Make something wrong on purpose, to see that it is found.
    #[arg(long, hide = true)]
    plant: Option<Plant>,
}

/// What a run is made of.
pub struct Plan {
    /// How many kills.
    pub kills: u64,
    /// What all chance follows from.
    pub seed: u64,
    /// The rules that are tried.
    pub models: Vec<Model>,
    /// The program that is killed.
    pub program: PathBuf,
    /// What is made wrong on purpose.
    pub plant: Option<Plant>,
}

impl Arguments {
    fn plan(self) -> Result<Plan, String> {
        let seed = self.seed.unwrap_or_else(|| u64::from(u32::from_le_bytes(random::bytes(&SystemRandom))));
        let program = match self.sidekey {
            Some(program) => program,
            None => {
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                let directory =
                    own.parent().and_then(|examples| examples.parent()).ok_or("no directory of programs")?;
                directory.join("sidekey")
            }
        };
        if !program.is_file() {
            return Err(format!("there is no {}: build it with `cargo build --bin sidekey`", program.display()));
        }
        let models = self.profile.map_or_else(|| Model::ALL.to_vec(), |model| vec![model]);
        Ok(Plan { kills: self.kills, seed, models, program, plant: self.plant })
    }
}

fn main() -> ExitCode {
    let plan = match Arguments::parse().plan() {
        Ok(plan) => plan,
        Err(error) => return report::failed(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failed(&error.to_string()),
    };
    match runtime.block_on(run::run(&plan)) {
        Ok(outcome) => report::verdict(&plan, &outcome),
        Err(error) => report::failed(&format!("{error}\nrepeat with {}", report::repetition(&plan))),
    }
}
