//! Looking in and steering over HTTP, and the program itself.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sidekey_simulator::{LedgerSnapshot, Options, Profile, Settings, start};

use crate::client::{Answer, request};
use crate::flow::refused;
use crate::user::{User, tokens};

async fn control(user: &User, method: &str, path: &str, body: Value) -> Answer {
    let target = format!("/control/{path}");
    request(user.simulator.address(), method, &target, &[], body.to_string()).await
}

#[tokio::test]
async fn the_ledger_tells_everything_but_values() {
    let user = User::of("generic").await;
    let held = user.connect().await;
    let next = tokens(&user.refresh(&held.refresh).await);
    user.accepts(&next.access).await;
    let answer = control(&user, "GET", "ledger", Value::Null).await;
    for value in [&held.access, &held.refresh, &next.access, &next.refresh] {
        assert!(!answer.text().contains(value.as_str()));
    }
    let ledger: LedgerSnapshot = serde_json::from_value(answer.json()).unwrap();
    assert_eq!(ledger.profiles.len(), Profile::all().count());
    let grant = ledger.profile("generic").last_grant().unwrap();
    assert_eq!((grant.refresh_tokens.len(), grant.access_tokens.len()), (2, 2));
    assert_eq!(grant.live_refresh_tokens(ledger.at_ms).count(), 1);
    assert_eq!(grant.live_access_tokens(ledger.at_ms).count(), 2);
    assert_eq!(grant.access_tokens[1].issued_by.as_ref(), Some(&grant.refresh_tokens[0].id));
    assert_eq!(grant.access_tokens[1].used_count, 1);
    assert!(grant.refresh_tokens.iter().all(|token| token.replied && !token.reply_failed));
    let kinds: Vec<&str> = ledger.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["code_issued", "code_exchanged", "replied", "refresh_ok", "replied", "api_ok"]);
    let values = control(&user, "GET", "tokens", Value::Null).await.json();
    assert_eq!(values["access_tokens"], json!([held.access, next.access]));
    assert_eq!(values["refresh_tokens"], json!([held.refresh, next.refresh]));
    assert_eq!(values["codes"].as_array().unwrap().len(), 1);
    assert_eq!(values["client_secrets"].as_array().unwrap().len(), Profile::all().count());
}

#[tokio::test]
async fn settings_can_be_read_and_merged() {
    let user = User::of("generic").await;
    let before = control(&user, "GET", "settings/generic", Value::Null).await.json();
    assert_eq!(before["rotation"], "single_use");
    let changes = json!({"rotation": "leeway", "access_lifetime_s": 3, "client_secret": "new"});
    let after = control(&user, "PUT", "settings/generic", changes).await;
    assert_eq!(after.status, Some(200));
    assert_eq!(after.json()["rotation"], "leeway");
    assert_eq!(after.json()["client_id"], before["client_id"]);
    assert_eq!(tokens(&user.exchange(&user.code().await, &[]).await).refresh.len(), 43);
    assert_eq!(user.simulator.issued_values().client_secrets.len(), Profile::all().count() + 1);
    for wrong in [json!({"unknown": 1}), json!({"rotation": "sideways"}), json!([])] {
        assert_eq!(control(&user, "PUT", "settings/generic", wrong).await.status, Some(400));
    }
    assert_eq!(control(&user, "GET", "settings/nobody", Value::Null).await.status, Some(404));
}

#[tokio::test]
async fn faults_can_be_added_and_removed() {
    let user = User::of("generic").await;
    let held = user.connect().await;
    let flat = json!({"profile": "generic", "endpoint": "refresh", "kind": "status", "status": 503});
    assert_eq!(control(&user, "POST", "faults", flat).await.status, Some(201));
    assert_eq!(user.refresh(&held.refresh).await.status, Some(503));
    assert_eq!(control(&user, "DELETE", "faults", Value::Null).await.status, Some(200));
    let nested = json!({"profile": "generic", "endpoint": "refresh", "nth": 1,
                        "kind": {"kind": "error", "error": "slow_down", "status": 429}});
    assert_eq!(control(&user, "POST", "faults", nested).await.status, Some(201));
    refused(&user.refresh(&held.refresh).await, 429, "slow_down");
    tokens(&user.refresh(&held.refresh).await);
    for wrong in [
        json!({"profile": "nobody", "endpoint": "refresh", "kind": "reset_not_committed"}),
        json!({"profile": "generic", "endpoint": "kitchen", "kind": "reset_not_committed"}),
        json!({"profile": "generic", "endpoint": "api", "kind": "explode"}),
        json!({"profile": "generic", "endpoint": "api", "kind": "status", "status": 100}),
    ] {
        assert_eq!(control(&user, "POST", "faults", wrong).await.status, Some(400));
    }
}

#[tokio::test]
async fn every_fault_kind_is_known_over_http() {
    let user = User::of("generic").await;
    for kind in [
        json!({"kind": "reset_before_reading"}),
        json!({"kind": "reset_not_committed"}),
        json!({"kind": "commit_then_reset"}),
        json!({"kind": "commit_then_reset_after_headers"}),
        json!({"kind": "commit_half_body"}),
        json!({"kind": "commit_then_status", "status": 500}),
        json!({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}),
        json!({"kind": "delay_ms", "ms": 1}),
        json!({"kind": "delay_before_commit", "ms": 1}),
        json!({"kind": "drip", "bytes_per_second": 1}),
        json!({"kind": "wrong_content_length"}),
        json!({"kind": "huge_body", "bytes": 10}),
        json!({"kind": "redirect", "to": "http://x.test/"}),
        json!({"kind": "body_patch", "set": {"expires_in": 1e12}, "remove": ["refresh_token"]}),
        json!({"kind": "error", "error": "invalid_grant"}),
    ] {
        let mut fault = json!({"profile": "*", "endpoint": "token", "nth": 1, "times": 2});
        fault.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        let answer = control(&user, "POST", "faults", fault).await;
        assert_eq!(answer.status, Some(201), "{kind}: {answer:?}");
    }
}

#[tokio::test]
async fn expire_revoke_reset_and_health() {
    let user = User::of("generic").await;
    let held = user.connect().await;
    assert_eq!(control(&user, "GET", "health", Value::Null).await.status, Some(200));
    let answer = control(&user, "POST", "expire/generic", Value::Null).await;
    assert_eq!(answer.json()["expired"], 1);
    assert!(!user.accepts(&held.access).await);
    let next = tokens(&user.refresh(&held.refresh).await);
    assert!(user.accepts(&next.access).await);
    let answer = control(&user, "POST", "revoke/generic", Value::Null).await;
    assert_eq!(answer.json()["revoked"], 1);
    assert!(!user.accepts(&next.access).await);
    refused(&user.refresh(&next.refresh).await, 400, "invalid_grant");
    user.simulator.set("generic", |settings| settings.access_lifetime_s = 1.0);
    assert_eq!(control(&user, "POST", "reset", Value::Null).await.status, Some(200));
    assert!(user.simulator.ledger().profile("generic").grants.is_empty());
    assert!(user.simulator.ledger().events.is_empty());
    assert_eq!(user.simulator.settings("generic").access_lifetime_s, 3600.0);
    assert_eq!(user.simulator.issued_values().access_tokens.len(), 2);
    refused(&user.refresh(&next.refresh).await, 400, "invalid_grant");
    assert_eq!(control(&user, "GET", "nothing", Value::Null).await.status, Some(404));
    assert_eq!(user.get("/nobody/authorize").await.status, Some(404));
}

#[tokio::test]
async fn options_override_settings_and_stop_refuses_connections() {
    let generic = sidekey_simulator::Profile::Generic;
    let short = Settings { access_lifetime_s: 5.0, ..Settings::of(generic) };
    let options = Options { settings: vec![("generic".to_owned(), short.clone())], ..Options::default() };
    let simulator = start(options).await.unwrap();
    assert_eq!(simulator.settings("generic"), short);
    simulator.reset();
    assert_eq!(simulator.settings("generic"), short);
    let address = simulator.address();
    assert_eq!(simulator.url(), format!("http://{address}"));
    simulator.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let unknown = Options { settings: vec![("nobody".to_owned(), short)], ..Options::default() };
    assert!(start(unknown).await.is_err());
}

#[test]
fn the_program_prints_its_url_and_stops_on_sigterm() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidekey-simulator"))
        .args(["--set", "quickbooks.access_lifetime_s=3", "--set", "quickbooks.realm_id=123"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let printed: Value = serde_json::from_str(&line).unwrap();
    let url = url::Url::parse(printed["url"].as_str().unwrap()).unwrap();
    let address = url.socket_addrs(|| None).unwrap()[0];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settings = runtime.block_on(request(address, "GET", "/control/settings/quickbooks", &[], ""));
    assert_eq!(settings.json()["access_lifetime_s"], 3.0);
    assert_eq!(settings.json()["realm_id"], "123");
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
}
