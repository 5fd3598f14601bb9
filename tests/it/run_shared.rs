//! The server that `run`s share: one for all, and gone after the last.

use rustix::process::{Signal, kill_process};
use tokio::io::AsyncReadExt;

use crate::run_support::{Place, callers, running, server_processes};
use crate::world::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_runs_share_one_server_that_goes_with_the_last() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let mut all: Vec<_> = (0..6).map(|_| place.start(&[], "echo $HTTPS_PROXY; read line")).collect();
        let mut proxies = Vec::new();
        for sidekey in &mut all {
            proxies.push(sidekey.line().await);
        }
        assert!(proxies.iter().all(|proxy| proxy.ends_with(&place.files.egress.to_string())), "{proxies:?}");
        proxies.sort();
        proxies.dedup();
        assert_eq!(proxies.len(), 6, "each has a handle of its own");
        assert_eq!(server_processes(&place.files.config).len(), 1, "{caller:?}");
        let (mut last, others) = (all.pop().expect("one"), all);
        for mut sidekey in others {
            sidekey.go_on().await;
            assert_eq!(sidekey.code().await, Some(0));
        }
        // Another command asks it, and a further `run` finds it.
        assert_eq!(place.run(&[], "true").await.status.code(), Some(0));
        assert_eq!(server_processes(&place.files.config).len(), 1, "{caller:?}");
        last.go_on().await;
        assert_eq!(last.code().await, Some(0));
        place.server_is_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_come_and_go_always_find_a_server() {
    let place = Place::of(callers()[0]).await;
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let commands: Vec<_> =
                (0..5).map(|_| place.sidekey(&["run", "--subject", "alice", "--", "true"])).collect();
            tokio::spawn(async move {
                for mut command in commands {
                    let ended = command.output().await.expect("it runs");
                    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
                }
            })
        })
        .collect();
    for run in runs {
        run.await.expect("no panic");
    }
    place.server_is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_takes_its_program_and_the_server_with_it() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let mut sidekey = place.start(&[], "echo ready; exec sleep 1000");
        assert_eq!(sidekey.line().await, "ready");
        sidekey.signal(Signal::KILL);
        // The pipe is at its end when nobody holds it anymore.
        let mut rest = String::new();
        let end = sidekey.lines.get_mut().read_to_string(&mut rest);
        tokio::time::timeout(std::time::Duration::from_secs(20), end)
            .await
            .expect("the program has ended")
            .expect("read");
        place.server_is_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_is_told_and_nothing_hangs() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let script = "echo ready; read line; curl -sS -m 20 https://api.github.com/user; echo curl $?; exit 4";
        let mut command = place.sidekey(&["run", "--subject", "alice", "--", "sh", "-c", script]);
        command.stderr(std::process::Stdio::piped());
        let mut sidekey = running(command);
        assert_eq!(sidekey.line().await, "ready");
        let server = server_processes(&place.files.config);
        assert_eq!(server.len(), 1);
        kill_process(server[0], Signal::KILL).expect("killed");
        let mut said = sidekey.child.stderr.take().expect("piped");
        let mut beginning = [0; 40];
        said.read_exact(&mut beginning).await.expect("it says so");
        assert!(beginning.starts_with(b"sidekey: error: the Sidekey server has"), "{caller:?}");
        sidekey.go_on().await;
        let answer = sidekey.line().await;
        assert!(answer.starts_with("curl ") && answer != "curl 0", "{answer}");
        assert_eq!(sidekey.code().await, Some(4));
        // The next one has a server again.
        assert_eq!(place.run(&[], "true").await.status.code(), Some(0));
        place.server_is_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_already_is_used_and_left_alone() {
    let place = Place::of(callers()[0]).await;
    let mut server = place.sidekey(&["serve"]).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    eventually("it serves", async || place.socket().exists()).await;
    let answer = place.run(&[], "echo $HTTPS_PROXY").await;
    assert!(String::from_utf8_lossy(&answer.stdout).trim().ends_with(&place.files.egress.to_string()));
    assert!(server_processes(&place.files.config).is_empty());
    assert!(server.try_wait().expect("asked").is_none(), "it still runs");
    server.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_left_to_its_owner() {
    let place = Place::of(callers()[0]).await;
    let taken = std::net::TcpListener::bind(place.files.egress).expect("free");
    let answer = place
        .run(&[], "echo $HTTPS_PROXY; curl -sS -o /dev/null -w '%{http_code}\n' https://api.github.com/user")
        .await;
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(!said.contains(&place.files.egress.to_string()) && said.contains("@127.0.0.1:"), "{said}");
    assert!(said.ends_with("200\n"), "{said}");
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_says_why() {
    let place = Place::of(callers()[0]).await;
    std::fs::remove_file(place.files.home.path().join("sidekey.key")).expect("removed");
    let answer = place.run(&[], "true").await;
    assert_eq!(answer.status.code(), Some(1));
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(said.contains("none can be started") && said.contains("sidekey.key"), "{said}");
}
