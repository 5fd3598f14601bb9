//! A hostile program under `sidekey run` gets neither Sidekey's secrets nor its siblings'.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::run_support::{Caller, Place, callers, is_root, keep_in_keyring, running, server_processes};

/// What the hostile program found.
async fn hostile(place: &Place, options: &[&str], needles: &serde_json::Value, sibling: &str) -> Vec<String> {
    let home = place.files.home.path();
    let path = |name: &str| home.join(name).display().to_string();
    let asked = serde_json::json!({
        "needles": needles,
        "files": [path("sidekey.key"), path("quickbooks.secret"), path("data/sidekey.db"), path("data/sidekey.db-wal"),
                  format!("{sibling}/files/credentials.json")],
        "directories": [path("data"), path("data/authority")],
        "socket": place.socket(),
        "key": "of-the-operator",
        "kept": [path("sidekey.toml"), path("companies.pem"), path("data/sidekey.db"), format!("{sibling}/preload.cjs")],
    });
    let script = include_str!("hostile.py");
    let python = ["--", "/usr/bin/env", "python3", "-c", script];
    let arguments = [&["run", "--subject", "alice"], options, &python].concat();
    let mut command = place.sidekey(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    tokio::io::AsyncWriteExt::write_all(&mut input, asked.to_string().as_bytes()).await.expect("it listens");
    drop(input);
    let ended = child.wait_with_output().await.expect("it ends");
    let mut found: Vec<String> = String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect();
    assert_eq!(found.pop().as_deref(), Some("end"), "it has tried everything: {found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_program_gets_nothing_that_is_not_its_own() {
    let in_keyring = "content-of-the-operators-key-77b2";
    let has_keyrings = keep_in_keyring("of-the-operator", in_keyring);
    for caller in callers() {
        let place = Place::of(caller).await;
        // The server and the sibling have this in their environment; the sibling has a handle besides.
        let canary = "canary-4d1c0f";
        let script = "echo $HTTPS_PROXY; dirname $SSL_CERT_FILE; read line";
        let recipe = ["run", "--subject", "bob", "--recipe", "quickbooks-npm", "--", "sh", "-c", script];
        let mut command = place.sidekey(&recipe);
        command.env("CANARY", canary);
        let mut sibling = running(command);
        let handle = sibling.line().await;
        let directory = sibling.line().await;
        let credentials = std::fs::read_to_string(format!("{directory}/files/credentials.json")).expect("there");
        assert!(credentials.contains("sidekey_h_"), "{credentials}");
        assert_eq!(server_processes(&place.files.config).len(), 1);
        let key = std::fs::read_to_string(place.files.home.path().join("sidekey.key")).expect("there");
        let secret = std::fs::read_to_string(place.files.home.path().join("quickbooks.secret")).expect("there");
        let needles = serde_json::json!({
            "key": key.trim(), "kept key": in_keyring, "client secret": secret.trim(), "store": "SQLite format 3", "canary": canary,
            "sibling's handle": handle.trim_start_matches("http://").split(':').next(),
        });
        assert_eq!(hostile(&place, &[], &needles, &directory).await, Vec::<String>::new(), "{caller:?}");
        // The same program finds all that where nothing is in its way, so it does look.
        let found = hostile(&place, &["--no-isolation"], &needles, &directory).await.join("\n");
        for what in [
            "key in",
            "client secret in",
            "store in",
            "canary in",
            "sibling's handle in",
            "admin in",
            "can be written",
            "credentials.json",
        ] {
            assert!(found.contains(what), "{caller:?}: {what}: {found}");
        }
        assert_eq!(found.contains("kept key in the session keyring"), has_keyrings, "{caller:?}: {found}");
        sibling.go_on().await;
        assert_eq!(sibling.code().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_cannot_get_more_than_it_has() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let status = place.run(&[], "cat /proc/self/status; id -u; id -G; umask").await;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        for line in
            ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
        {
            assert!(status.contains(line), "{caller:?}: {line}: {status}");
        }
        if caller == Caller::Root {
            let user: u32 = status.lines().rev().nth(2).and_then(|line| line.parse().ok()).expect("a number");
            assert!((60_706..=61_183).contains(&user), "{status}");
            assert!(status.contains("Groups:\t \n"), "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_types_nothing_into_the_terminal() {
    const TYPE: &str = "import fcntl, os, termios\nassert os.isatty(0)\ntry:\n fcntl.ioctl(0, termios.TIOCSTI, b'x')\n print('typed')\n\
                        except OSError: print('refused')";
    for caller in callers() {
        let place = Place::of(caller).await;
        let arguments = ["run", "--subject", "alice", "--", "/usr/bin/env", "python3", "-c", TYPE];
        let answer = place.on_terminal(&arguments).output().await.expect("it runs");
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(said.contains("refused") && !said.contains("typed"), "{caller:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_programs_share_a_user_and_none_stays_behind() {
    if !is_root() {
        return; // others cannot change users
    }
    let place = Place::of(Caller::Root).await;
    let mut all: Vec<_> =
        (0..4).map(|_| place.start(&[], "id -u; echo $HOME; setsid sleep 1000 & read line")).collect();
    let (mut users, mut homes) = (Vec::new(), Vec::new());
    for sidekey in &mut all {
        users.push(sidekey.line().await);
        homes.push(sidekey.line().await);
    }
    let mut distinct = users.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{users:?}");
    assert!(homes.iter().all(|home| std::path::Path::new(home).is_dir()));
    for sidekey in &mut all {
        sidekey.go_on().await;
        assert_eq!(sidekey.code().await, Some(0));
    }
    assert!(homes.iter().all(|home| !std::path::Path::new(home).exists()), "homes are removed");
    crate::world::eventually("nothing of theirs runs", async || {
        let left = tokio::process::Command::new("ps").args(["-o", "pid=", "-u", &users.join(",")]).output().await;
        left.expect("it runs").stdout.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_user_cannot_reach_is_said() {
    if !is_root() {
        return; // others keep their user
    }
    let place = Place::of(Caller::Root).await;
    let closed = place.files.home.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("closed");
    let mut command = place.sidekey(&["run", "--subject", "alice", "--", "true"]);
    let answer = command.current_dir(&closed).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(126));
    assert!(said.contains("cannot enter") && said.contains("--no-isolation"), "{said}");
    let program = closed.join("program");
    std::fs::write(&program, "#!/bin/sh\n").expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("opened");
    let program = program.to_str().expect("text");
    let answer = place.sidekey(&["run", "--subject", "alice", "--", program]).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(126), "{said}");
    assert!(said.contains("closed to others"), "{said}");
}
