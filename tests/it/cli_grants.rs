//! The command line for grants, clients and signing keys.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::front::Front;
use crate::process::{command, out, sidekey};

#[tokio::test]
async fn grants_are_listed_and_revoked() {
    let front = Front::start().await;
    let config = front.world.files.config.to_str().expect("text").to_owned();
    let alice = front.authorized("alice").await;
    let bob = front.authorized("bob").await;
    let list =
        async |arguments: &[&str]| out(&sidekey(&[&["grants", "list", "--config", &config], arguments].concat()).await);
    let listed = list(&[]).await;
    assert_eq!(listed.lines().count(), 3, "a heading and two grants: {listed}");
    for shown in ["alice", "bob", "A client", "notes", "notion", "live, ends in "] {
        assert!(listed.contains(shown), "{shown}: {listed}");
    }
    let json: serde_json::Value = serde_json::from_str(&list(&["--json"]).await).expect("JSON");
    let of_alice = json["grants"].as_array().and_then(|grants| grants.iter().find(|grant| grant["account"] == "alice"));
    let of_alice = of_alice.expect("there").clone();
    let (id, subject) = (of_alice["id"].as_str().expect("an id"), of_alice["subject"].as_str().expect("a subject"));
    assert_eq!(list(&["--user", subject]).await.lines().count(), 2);
    assert_eq!(out(&sidekey(&["grants", "revoke", id, "--config", &config]).await), format!("revoked {id}\n"));
    assert_eq!(front.whoami(&alice.access).await.status, 401);
    assert_eq!(front.whoami(&bob.access).await.status, 200);
    assert!(list(&["--subject", subject]).await.contains("(revoked_by_operator)"));
    for (id, code, message) in [
        (id, 3, "There is no live grant of this id (`sidekey grants list` shows the ids)"),
        ("../x", 2, "an id looks like g_abc123; `sidekey grants list` shows them"),
    ] {
        let again = sidekey(&["grants", "revoke", id, "--config", &config]).await;
        assert_eq!(again.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&again.stderr), format!("error: {message}\n"));
    }
    front.stop().await;
}

async fn hash(secret: &str) -> std::process::Output {
    let mut hashing = command(&["clients", "hash"]);
    let mut child =
        hashing.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(secret.as_bytes()).await.expect("written");
    drop(input);
    child.wait_with_output().await.expect("it ends")
}

#[tokio::test]
async fn a_client_secret_is_hashed_and_short_ones_are_refused() {
    let hashed = out(&hash("a-secret-of-some-length\n").await);
    assert!(hashed.starts_with("$argon2id$v=19$") && hashed.lines().count() == 1, "{hashed}");
    assert_ne!(hashed, out(&hash("a-secret-of-some-length\n").await), "salted");
    let short = hash("short").await;
    assert_eq!(short.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&short.stderr).contains("shorter than 16 characters"));
}

#[tokio::test]
async fn a_signing_key_is_one_that_the_issuer_takes() {
    let pem = out(&sidekey(&["keys", "generate", "--signing"]).await);
    let signer = sidekey::base::jws::Signer::from_pem(&sidekey::base::secret::Secret::new(pem));
    assert_eq!(signer.map(|signer| signer.algorithm()).ok(), Some(sidekey::base::jws::Algorithm::Es256));
}
