//! The demo keeps its promises, and would notice if it did not.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Cargo builds the examples before it runs tests.
fn demo() -> Command {
    let directory = PathBuf::from(env!("CARGO_BIN_EXE_sidekey")).parent().expect("a directory").join("examples/demo");
    let mut command = Command::new(directory);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn once(arguments: &[&str]) -> (bool, Value) {
    let output = demo().args(["--once", "--json"]).args(arguments).output().await.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), serde_json::from_str(last).expect("JSON"))
}

#[tokio::test]
async fn the_journey_ends_well() {
    let (success, result) = once(&[]).await;
    assert!(success, "{result}");
    assert_eq!((&result["connected"], &result["realm_id_rewritten"]), (&true.into(), &true.into()));
    assert_eq!(result["api_calls"], result["api_calls_ok"]);
    assert!(result["refreshes"].as_u64() >= Some(2), "{result}");
    assert_eq!((&result["users"], &result["each_user_saw_own_company"]), (&2.into(), &true.into()));
    for place in PLACES {
        assert_eq!(result[place], false, "{place}: {result}");
    }
}

/// Where tokens are looked for.
const PLACES: [&str; 3] = ["token_seen_by_mcp_server", "plaintext_on_disk", "mcp_token_seen_by_mcp_server"];

#[tokio::test]
async fn a_planted_token_is_found() {
    for (planted, found) in ["mcp-server", "disk", "mcp-token"].into_iter().zip(PLACES) {
        let (success, result) = once(&["--plant", planted]).await;
        assert!(!success, "{planted}: {result}");
        for place in PLACES {
            assert_eq!(result[place], place == found, "{planted}, {place}: {result}");
        }
        assert_eq!((&result["users"], &result["each_user_saw_own_company"]), (&2.into(), &true.into()));
    }
}

#[tokio::test]
async fn other_programs_can_start_the_whole_world() {
    let mut child = demo().arg("--json").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("in time");
    let ready: Value = serde_json::from_str(&line.expect("read").expect("a line")).expect("JSON");
    let ready = &ready["ready"];
    for key in ["public", "egress", "metrics", "simulator", "admin", "config", "subject", "mcp"] {
        assert!(ready[key].is_string(), "{key}: {ready}");
    }
    let metrics = format!("{}/readyz", ready["metrics"].as_str().expect("a URL"));
    assert_eq!(crate::client::send(crate::client::http().get(metrics)).await.status, 200);
    let mcp = ready["mcp"].as_str().expect("a URL");
    let refused = crate::client::send(crate::client::http().post(mcp)).await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").contains("resource_metadata="), "{mcp}");
    let status =
        crate::world::admin(std::path::Path::new(ready["admin"].as_str().expect("a path")), "GET", "/v1/status", "")
            .await;
    assert_eq!(status.json()["connections"][0]["subject"], ready["subject"]);
    let pid =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw).expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("in time").expect("it ends");
    assert!(status.success(), "{status}");
    assert!(!std::path::Path::new(ready["config"].as_str().expect("a path")).exists(), "it has cleaned up");
}
