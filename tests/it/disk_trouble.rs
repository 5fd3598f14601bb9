//! What an operator sees of a disk that fails for a while, and of files that are taken away.

use crate::process::sidekey;
use crate::small_disk::{call, counters, readiness, simulator, small_disk};
use crate::world::{admin, eventually};

/// Both for a disk that fails to sync and for one that has become read-only.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_for_a_while_is_named_by_the_probe_and_needs_no_restart() {
    for inject in ["fsync:error=EIO:when=25+", "pwrite64:error=EROFS:when=90+"] {
        let simulator = simulator(3600.0).await;
        let mut disk = small_disk(&simulator).await;
        disk.program.connect("github", "alice").await;
        let handle = disk.program.handle("alice").await;
        assert_eq!(disk.stop("TERM").await, 0);
        disk.serve_under(&format!("strace -f -qq -o trace -e trace=fsync,pwrite64 -e inject={inject}")).await;
        let socket = disk.program.files.home.path().join("admin.sock");
        let mut issued = 0;
        eventually("nothing can be written", async || {
            let answer = admin(&socket, "POST", "/v1/handles", "{\"subject\":\"alice\"}").await;
            issued += usize::from(answer.status == 200);
            answer.status >= 500
        })
        .await;
        eventually("it is not ready", async || readiness(&disk.program).await.status == 503).await;
        let why = readiness(&disk.program).await.json();
        assert!(why["store"].as_str().is_some_and(|why| why.contains("I/O error")), "{why}");
        assert_eq!(call(&disk.program, &handle).await, 200, "what is in memory is used");
        // Without strace the program goes on as if nothing had been.
        disk.stop("KILL").await;
        eventually("it is ready", async || readiness(&disk.program).await.status == 200).await;
        assert!(disk.log().contains("opened again, written anew and checked"), "{}", disk.log());
        assert_eq!(call(&disk.program, &handle).await, 200);
        let listed = admin(&socket, "GET", "/v1/handles", "").await.text();
        assert!(listed.matches("\"h_").count() > issued, "what was acknowledged is there: {listed}");
        simulator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_taken_away_are_missed_and_nothing_more_is_refreshed() {
    let simulator = simulator(9.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("github", "alice").await;
    let handle = disk.program.handle("alice").await;
    disk.run("mkdir data/aside; mv data/sidekey.* data/aside").await;
    eventually("it is not ready", async || {
        assert_eq!(call(&disk.program, &handle).await, 200, "the current token is used");
        readiness(&disk.program).await.status == 503
    })
    .await;
    let why = readiness(&disk.program).await.json();
    assert!(why["store"].as_str().is_some_and(|why| why.contains("was removed or replaced")), "{why}");
    let socket = disk.program.files.home.path().join("admin.sock");
    for (path, body) in [
        ("/v1/handles", "{\"subject\":\"alice\"}"),
        ("/v1/connect-links", "{\"subject\":\"alice\",\"provider\":\"github\"}"),
        ("/v1/disconnect", "{\"subject\":\"alice\",\"provider\":\"github\"}"),
    ] {
        let refused = admin(&socket, "POST", path, body).await;
        let said = refused.text();
        assert!(refused.status == 503 && said.contains("was removed or replaced"), "{path}: {said}");
    }
    assert_eq!(counters(&simulator).revokes, 0, "what would not be remembered is not done");
    let checks = sidekey(&["doctor", "--json", "--config", disk.program.config()]).await;
    assert_eq!((checks.status.code(), checks.stderr.len()), (Some(1), 0));
    let checks: serde_json::Value = serde_json::from_slice(&checks.stdout).expect("JSON");
    let store = checks["checks"].as_array().into_iter().flatten().find(|check| check["check"] == "store");
    let (outcome, detail) = store.map(|store| (&store["outcome"], &store["detail"])).expect("it is looked at");
    assert_eq!(outcome, "fail", "{checks}");
    assert!(detail.as_str().is_some_and(|detail| detail.contains("was removed or replaced")), "{checks}");
    eventually("the token has expired", async || call(&disk.program, &handle).await == 503).await;
    assert_eq!(counters(&simulator).refresh_attempts, 0, "what would be stored nowhere is not asked for");
    disk.run("mv data/aside/* data").await;
    eventually("they are back", async || call(&disk.program, &handle).await == 200).await;
    eventually("it is ready", async || readiness(&disk.program).await.status == 200).await;
    simulator.stop().await;
}
