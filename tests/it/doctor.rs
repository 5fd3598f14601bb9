//! `sidekey doctor`: what an operator is told about everything that Sidekey needs.

use std::process::Output;

use sidekey::base::files;
use sidekey::base::random::SystemRandom;
use sidekey::store::keyring::generate_key;

use crate::process::{command, sidekey};
use crate::upstream_support::{Reach, connected, world};
use crate::world::{Files, Setup, World};

async fn doctor(world: &World, more: &[&str]) -> Output {
    let config = world.files.config.to_str().expect("text");
    sidekey(&[&["doctor", "--config", config], more].concat()).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn all_is_well_where_all_is_there() {
    let (world, _) = world(Reach::default()).await;
    connected(&world, "github", "alice").await;
    let answer = doctor(&world, &[]).await;
    let said = said(&answer);
    assert!(answer.status.success(), "{said}");
    for line in [
        "ok    reach   github: https://api.github.com",
        "ok    reach   quickbooks: https://quickbooks.api.intuit.com",
        "ok    reach   slack: https://slack.com",
        "ok    keys    1 in use or ready; every stored value can be opened",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}\n{said}");
    }
    assert!(said.contains(": 1 connection; a server runs\n"), "{said}");
    assert!(said.contains("ok    clock   within a minute of "), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&doctor(&world, &["--json"]).await.stdout).expect("JSON");
    assert_eq!((&json["well"], &json["checks"][0]["outcome"]), (&true.into(), &"ok".into()), "{json}");
    world.stop().await;
}

#[tokio::test]
async fn a_host_that_proves_nothing_is_named() {
    let (world, _) = world(Reach { trusts_simulator: false, ..Reach::default() }).await;
    let answer = doctor(&world, &[]).await;
    assert_eq!(answer.status.code(), Some(1));
    let said = said(&answer);
    let line = said.lines().find(|line| line.contains("https://api.github.com")).expect("it is named");
    assert!(line.starts_with("FAIL  reach   github: https://api.github.com: could not connect: TLS: "), "{line}");
    assert!(
        said.contains("\n              -> if something on the way ends TLS, name its root in egress.extra_ca"),
        "{said}"
    );
    assert!(said.contains("note  clock   no host said what time it is"), "{said}");
    world.stop().await;
}

#[tokio::test]
async fn a_key_that_is_gone_is_missed_though_no_server_runs() {
    let (world, _) = world(Reach::default()).await;
    connected(&world, "github", "alice").await;
    let World { simulator, files, sidekey: running, .. } = world;
    running.stop().await;
    std::fs::write(files.home.path().join("sidekey.key"), generate_key(&SystemRandom).expose()).expect("written");
    let answer = sidekey(&["doctor", "--config", files.config.to_str().expect("text")]).await;
    assert_eq!(answer.status.code(), Some(1));
    let said = said(&answer);
    assert!(said.contains("FAIL  ") && said.contains("not in store.keys"), "{said}");
    simulator.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let tables = "[issuer]\nidentity = \"notion\"\n[servers.hub]\ncommand = [\"no-such-program\", \"--now\"]\n\
                  [servers.other]\ncommand = [\"/bin/sh\"]\n";
    let files = Files::write("http://127.0.0.1:1", &Setup { tables: tables.to_owned(), ..Setup::default() });
    let answer = sidekey(&["doctor", "--config", files.config.to_str().expect("text")]).await;
    assert_eq!(answer.status.code(), Some(1));
    let said = said(&answer);
    assert!(said.contains("FAIL  servers hub: there is no command no-such-program\n"), "{said}");
    assert!(said.contains("ok    servers other: starts /bin/sh\n"), "{said}");
}

/// Who looks is often root, and whoever begins the store owns it.
#[tokio::test]
async fn before_the_first_start_nothing_is_made() {
    let files = Files::write("http://127.0.0.1:1", &Setup::default());
    let (directory, config) = (files.home.path().join("data"), files.config.to_str().expect("text"));
    let expected = [
        format!("ok    store   {}: nothing is there yet; the server begins it when it starts", directory.display()),
        "ok    keys    1 in use or ready; nothing is stored yet".to_owned(),
    ];
    let answer = sidekey(&["doctor", "--config", config]).await;
    for line in &expected {
        assert!(said(&answer).lines().any(|said| said == line), "{line}\n{}", said(&answer));
    }
    assert!(!directory.exists());
    files::private_directory(&directory).expect("made");
    let again = sidekey(&["doctor", "--config", config]).await;
    assert!(said(&again).lines().any(|said| said == expected[0]), "{}", said(&again));
    assert_eq!(std::fs::read_dir(&directory).expect("there").count(), 0);
    let nowhere = command(&["doctor", "--config", config]).env("TMPDIR", "/nowhere").output().await.expect("it runs");
    let line = "note  keys    there is no temporary directory in which to try out what a server needs";
    assert!(said(&nowhere).lines().any(|said| said == line), "{}", said(&nowhere));
}

#[tokio::test]
async fn a_place_where_no_store_can_be_made_is_named() {
    let files = Files::write("http://127.0.0.1:1", &Setup::default());
    std::fs::write(files.home.path().join("data"), "").expect("written");
    let answer = sidekey(&["doctor", "--config", files.config.to_str().expect("text")]).await;
    assert_eq!(answer.status.code(), Some(1));
    let line = format!("FAIL  store   {}: ", files.home.path().join("data").display());
    assert!(said(&answer).contains(&line) && said(&answer).contains("is not a directory"), "{}", said(&answer));
}

#[tokio::test]
async fn a_database_that_is_gone_is_missed() {
    let (world, _) = world(Reach::default()).await;
    connected(&world, "github", "alice").await;
    let World { simulator, files, sidekey: running, .. } = world;
    running.stop().await;
    let (directory, config) = (files.home.path().join("data"), files.config.to_str().expect("text"));
    let database = directory.join("sidekey.db");
    let content = std::fs::read(&database).expect("there");
    let expected = format!(
        "error: {} is missing or empty, though its directory was in use (audit.jsonl is there): put it back, or run `sidekey \
         restore FILE` with a backup; to begin without any connection, name another directory in store.directory\n",
        database.display()
    );
    std::fs::remove_file(&database).expect("removed");
    for command in [["status"], ["serve"]] {
        let answer = sidekey(&[&command[..], &["--config", config]].concat()).await;
        assert_eq!((answer.status.code(), String::from_utf8_lossy(&answer.stderr).as_ref()), (Some(1), &*expected));
        assert!(!database.exists(), "nothing is made in its place");
    }
    files::create_private(&database, b"").expect("written");
    let answer = sidekey(&["status", "--config", config]).await;
    assert_eq!((answer.status.code(), String::from_utf8_lossy(&answer.stderr).as_ref()), (Some(1), &*expected));
    std::fs::write(&database, content).expect("written");
    let answer = sidekey(&["status", "--config", config]).await;
    assert!(answer.status.success() && said(&answer).contains("alice"), "{}", said(&answer));
    simulator.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_where_it_ends() {
    let home = tempfile::tempdir().expect("a directory");
    let config = home.path().join("sidekey.toml");
    std::fs::write(&config, "[egres]\n").expect("written");
    let answer = sidekey(&["doctor", "--json", "--config", config.to_str().expect("text")]).await;
    assert_eq!(answer.status.code(), Some(2));
    let said: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!(said["well"], false, "{said}");
    let details: Vec<&str> =
        said["checks"].as_array().expect("a list").iter().filter_map(|check| check["detail"].as_str()).collect();
    assert!(
        details.iter().any(|detail| detail.contains("egres: is not a known key (did you mean `egress`?)")),
        "{said}"
    );
    assert!(said["checks"].as_array().expect("a list").iter().all(|check| check["check"] == "config"), "{said}");
}
