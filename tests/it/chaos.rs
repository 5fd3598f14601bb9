//! What kills Sidekey again and again (docs/chaos.md) would notice if something were lost. That nothing is, is a run of its
//! own: `make chaos`.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

/// A short run in which something is made wrong. Cargo builds the examples before it runs tests.
async fn run(plant: &str, profile: &str, kills: &str) -> (bool, String, Value) {
    let sidekey = PathBuf::from(env!("CARGO_BIN_EXE_sidekey"));
    let program = sidekey.parent().expect("a directory").join("examples/chaos");
    let mut command = Command::new(program);
    command.args(["--kills", kills, "--seed", "8", "--profile", profile, "--plant", plant]).kill_on_drop(true);
    let output = command.output().await.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let result = serde_json::from_str(last).expect("JSON");
    if let Some(kept) = text.lines().find_map(|line| line.strip_prefix("store and log: ")) {
        std::fs::remove_dir_all(kept).expect("removed");
    }
    (output.status.success(), text, result)
}

#[tokio::test]
async fn what_is_lost_is_found() {
    for (plant, profile, kills, found) in [
        // Not every kill comes just when something has been refreshed, on a machine that has much else to do.
        ("old-store", "static", "20", "used_before_durable"),
        ("no-intents", "single_use", "8", "lost_grants"),
        ("other-handle", "overlap", "8", "crossed_tokens"),
    ] {
        let (success, text, result) = run(plant, profile, kills).await;
        assert!(!success, "{plant}: {text}");
        assert!(result[found].as_u64() > Some(0), "{plant}: {text}");
        assert!(text.contains(&format!("{profile}: {found}")) && text.contains("SEED=8"), "{plant}: {text}");
        assert!(text.contains("  ledger: grant-") && text.contains("  store: generation "), "{plant}: {text}");
    }
}
