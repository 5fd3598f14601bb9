//! One refresh, and nothing else: opens a store, settles what a process before left open, refreshes the one connection
//! that is named, and ends. Tests kill it at every system call; so it has one thread beside those of store and audit
//! trail.
//!
//! `one_refresh CONFIG SUBJECT PROVIDER`; without a provider it opens the store and settles, and that is all.

use std::path::Path;

use sidekey::config;
use sidekey::model::connection::ConnectionKey;
use sidekey::model::names::Label;
use sidekey::server::{Environment, World};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, names @ ..] = arguments.as_slice() else { panic!("one_refresh CONFIG [SUBJECT PROVIDER]") };
    let settings = config::load(Path::new(config), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let environment = Environment::system(&settings).expect("an environment");
    let world = World::compose(&settings, environment).await.expect("a store that opens");
    world.vault.recover().await.expect("a store that can be read");
    if let [subject, provider] = names {
        let (subject, provider) = (subject.parse().expect("a subject"), provider.parse().expect("a provider"));
        let key = ConnectionKey { subject, provider, label: Label::default() };
        let token = world.vault.token_for(&key).await;
        world.vault.settled().await;
        token.expect("a token");
    }
    world.audit.close();
}
