//! One refresh, and nothing else: opens a store, settles what a process before left open, refreshes the one connection
//! that is named, and ends. Tests kill it at every system call; so it has one thread beside those of store and audit
//! trail.
//!
//! `one_refresh CONFIG SUBJECT PROVIDER`; without a subject it opens the store, and that is all; with `replace` at the end
//! it puts a new connection in the place of that one.

use std::path::Path;

use sidekey::config::{self, Settings};
use sidekey::model::connection::ConnectionKey;
use sidekey::model::names::Label;
use sidekey::server::{Environment, World};
use sidekey::store::Store;
use sidekey::store::record::ConnectionRecord;
use sidekey::store::sqlite::SqliteStore;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(config) = arguments.first() else { panic!("one_refresh CONFIG [SUBJECT PROVIDER [replace]]") };
    let settings = config::load(Path::new(config), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let key = |subject: &str, provider: &str| {
        let (subject, provider) = (subject.parse().expect("a subject"), provider.parse().expect("a provider"));
        ConnectionKey::new(subject, provider, Label::default())
    };
    match &arguments[1..] {
        [] => drop(SqliteStore::open(&settings.store_directory).expect("a store that opens")),
        [subject, provider] => refresh(&settings, &key(subject, provider)).await,
        [_] => panic!("which provider?"),
        [subject, provider, ..] => replace(&settings, key(subject, provider)).await,
    }
}

async fn refresh(settings: &Settings, key: &ConnectionKey) {
    let environment = Environment::system(settings).expect("an environment");
    let world = World::compose(settings, environment).await.expect("a store that opens");
    world.vault.recover().await.expect("a store that can be read");
    let token = world.vault.token_for(key).await;
    world.vault.settled().await;
    token.expect("a token");
    world.audit.close();
}

/// What it stores is never opened: the tokens of one connection do not open in another.
async fn replace(settings: &Settings, key: ConnectionKey) {
    let store = SqliteStore::open(&settings.store_directory).expect("a store that opens");
    let old = store.connection(key).await.expect("it can be read").expect("it is there");
    let new = ConnectionRecord { id: "c_new".to_owned(), ..old };
    let now = new.connected_at;
    store.connect(vec![new], now).await.expect("stored");
}
