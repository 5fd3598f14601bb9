//! The audit trail says who did what, and survives restarts.

use crate::client::send;
use crate::front::Front;
use crate::process::{out, sidekey};

#[tokio::test]
async fn every_operation_leaves_one_record() {
    let front = Front::start().await;
    let config = front.world.files.config.to_str().expect("text").to_owned();
    let tokens = front.authorized("alice").await;
    front.refresh(&tokens.client_id, &tokens.refresh).await;
    front.world.connect("quickbooks", "org-42").await;
    front.world.handle("org-42").await;
    let body = serde_json::json!({ "provider": "quickbooks", "subject": "org-42" });
    front.world.admin("POST", "/v1/disconnect", &body.to_string()).await;
    let grants = front.grants().await;
    let (id, subject) = (grants[0]["id"].as_str().expect("an id"), grants[0]["subject"].as_str().expect("a subject"));
    front.world.admin("DELETE", &format!("/v1/grants/{id}"), "").await;
    send(front.world.client.get(front.world.public("/callback/quickbooks?state=x&code=y"))).await;
    let (id, subject) = (id.to_owned(), subject.to_owned());
    // Everything is written once it has stopped.
    let _files = front.stop_but_keep().await;

    let all = out(&sidekey(&["audit", "--json", "--config", &config]).await);
    let records: Vec<serde_json::Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let done: Vec<String> = records
        .iter()
        .map(|record| {
            format!("{} {}", record["operation"].as_str().expect("text"), record["outcome"].as_str().expect("text"))
        })
        .collect();
    assert_eq!(
        done,
        [
            "register ok",
            "sign_in ok",
            "authorize code",
            "grant ok",
            "refresh_grant rotated",
            "connect ok",
            "issue_handle ok",
            "revoke done",
            "disconnect done",
            "end_grant revoked_by_operator",
            "connect forged_state",
        ]
    );
    assert_eq!((records[3]["grant"].as_str(), records[3]["subject"].as_str()), (Some(&*id), Some(&*subject)));
    let of_alice = out(&sidekey(&["audit", "--user", &subject, "--config", &config]).await);
    assert_eq!(of_alice.lines().count(), 5, "{of_alice}");
    let grant = format!("grant ok subject={subject} server=notes client=dyn_");
    let spaced_once = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(of_alice.lines().any(|line| spaced_once(line).contains(&grant)), "{of_alice}");
    let later = out(&sidekey(&["audit", "--since", "2100-01-01", "--config", &config]).await);
    assert_eq!(later, "");
}
