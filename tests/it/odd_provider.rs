//! A provider that nobody has heard of, with habits of its own: an operator drops in one file, and everything works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json};
use sidekey::base::clock::ManualClock;
use sidekey::base::digest::SigningKey;
use sidekey::base::secret::Secret;
use sidekey_simulator::{Profile, Settings};

use crate::world::{Setup, World, free_listener, now, serve_at};

/// All that is written for it. `COMPANY` stands for its URL.
const FILE: &str = r#"
display_name = "Oddbook"
checked_on = "2026-11-21"
default_api = "bills"
realm = ["firm"]

[authorize]
url = "COMPANY/sign-in"
pkce = "supported"
scopes = ["read", "write"]
scope_separator = "+"
expected = { region = "north" }
callback_signature = { parameter = "seal" }

[token]
url = "COMPANY/keys"
client_authentication = ["body"]
request_format = "json"

# The status is always 200, and what is wrong is a number.
[token.response]
error = "/trouble"
error_with_status_200 = true
access_token = "/result/key"
refresh_token = "/result/renew"
expires_in = "/result/ttl"
scope = "/result/may"

[rotation]
model = "single_use"
kills_access = true

[errors]
permanent = ["17"]

[[post_connect]]
url = "COMPANY/firms"
items = "/firms"
item_name = "/called"
capture = { firm = "/no" }

[revoke]
url = "COMPANY/keys/end"
client_authentication = "none"
request_format = "json"
body = { key = "{access_token}", firm = "{firm}" }
ok_status = [202]

[api]
credential = { header = "x-oddbook-key", scheme = "raw" }
expired = [{ status = 419 }]

[apis.bills]
origin = "COMPANY"
paths = ["/v2/firms/{firm}/"]
"#;

/// The company: how many keys it has made, which one it takes, and what it has seen.
#[derive(Default)]
struct Books {
    made: u32,
    valid: Option<u32>,
    is_stale: bool,
    asked: Vec<Value>,
    called: Vec<(String, String)>,
    ended: Vec<Value>,
}

type Company = Arc<Mutex<Books>>;

fn books(company: &Company) -> std::sync::MutexGuard<'_, Books> {
    company.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keys(State(company): State<Company>, body: String) -> axum::Json<Value> {
    let asked: Value = serde_json::from_str(&body).expect("JSON");
    let mut books = books(&company);
    books.asked.push(asked.clone());
    let is_good = match asked["grant_type"].as_str() {
        Some("authorization_code") => asked["code"] == "the code",
        _ => books.valid.is_some_and(|valid| asked["refresh_token"] == format!("renew-{valid}")),
    };
    if !is_good {
        return axum::Json(json!({ "trouble": 17, "result": null }));
    }
    books.made += 1;
    books.valid = Some(books.made);
    books.is_stale = false;
    let made = books.made;
    let may = ["read", "write"];
    let result = json!({ "key": format!("key-{made}"), "renew": format!("renew-{made}"), "ttl": "3600", "may": may });
    axum::Json(json!({ "trouble": 0, "result": result }))
}

async fn firms(State(company): State<Company>, headers: HeaderMap) -> Result<axum::Json<Value>, StatusCode> {
    let valid = books(&company).valid.unwrap_or_default();
    if headers.get("authorization").is_none_or(|value| value != format!("Bearer key-{valid}").as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(axum::Json(json!({ "firms": [{ "no": 7, "called": "Acme" }] })))
}

async fn bills(State(company): State<Company>, Path(path): Path<String>, headers: HeaderMap) -> StatusCode {
    let key = headers.get("x-oddbook-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let mut books = books(&company);
    let is_valid = !books.is_stale && books.valid.is_some_and(|valid| key == format!("key-{valid}"));
    books.called.push((path, key));
    if is_valid { StatusCode::OK } else { StatusCode::from_u16(419).expect("a status") }
}

async fn end(State(company): State<Company>, body: String) -> StatusCode {
    books(&company).ended.push(serde_json::from_str(&body).expect("JSON"));
    StatusCode::ACCEPTED
}

async fn world(clock: &ManualClock) -> (World, Company) {
    let company = Company::default();
    let listener = free_listener();
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Router::new()
        .route("/keys", post(keys))
        .route("/keys/end", post(end))
        .route("/firms", get(firms))
        .route("/v2/firms/{*path}", get(bills))
        .with_state(Arc::clone(&company));
    serve_at(listener, router);
    let entry: &'static str = FILE.replace("COMPANY", &url).leak();
    let setup = Setup { providers: vec![("oddbook", entry, "")], ..Setup::default() };
    (World::with(setup, Arc::new(clock.clone())).await, company)
}

/// What the company sends the browser back with.
fn callback(authorize_url: &str, region: &str) -> String {
    let asked = url::Url::parse(authorize_url).expect("a URL");
    let of = |name: &str| asked.query_pairs().find(|(key, _)| key == name).expect(name).1.into_owned();
    assert_eq!(of("scope"), "read+write");
    let mut answer = url::Url::parse(&of("redirect_uri")).expect("a URL");
    let pairs = [("code", "the code"), ("region", region), ("state", &of("state"))];
    answer.query_pairs_mut().extend_pairs(pairs);
    let secret = Secret::new(Settings::of(Profile::Generic).client_secret);
    let seal = SigningKey::shared(&secret).sign(answer.query().expect("a query").as_bytes());
    answer.query_pairs_mut().append_pair("seal", &data_encoding::HEXLOWER.encode(&seal));
    answer.into()
}

async fn connect(world: &World) {
    let (authorize_url, cookie) = world.begin("oddbook", "alice").await;
    let done = world.callback(&callback(&authorize_url, "north"), &cookie).await;
    assert_eq!((done.status, done.header("location")), (303, "/connected/oddbook"), "{}", done.text());
}

#[tokio::test]
async fn a_provider_with_habits_of_its_own_is_made_by_one_file() {
    let clock = ManualClock::at(now());
    let (world, company) = world(&clock).await;
    let (authorize_url, cookie) = world.begin("oddbook", "alice").await;
    let elsewhere = world.callback(&callback(&authorize_url, "south"), &cookie).await;
    assert!(elsewhere.status == 400 && elsewhere.text().contains("The parameter region in Oddbook's answer is not"));
    assert!(books(&company).asked.is_empty(), "no code was used");

    connect(&world).await;
    let connection = world.connections("alice").await.remove(0);
    assert_eq!((&connection["state"], &connection["captured"]["firm"]), (&"active".into(), &"7".into()));
    assert_eq!(connection["scopes"], json!(["read", "write"]));
    let (_, handle) = world.handle("alice").await;
    assert_eq!(world.call(&handle, "/oddbook/v2/firms/0/bills").await.status, 200);
    assert_eq!(books(&company).called, [("7/bills".to_owned(), "key-1".to_owned())]);
    for (path, kind) in [("/oddbook/v2/firms/8/bills", "other-tenant"), ("/oddbook/admin", "path-not-allowed")] {
        let refused = world.call(&handle, path).await;
        assert_eq!(
            (refused.status, refused.json()["type"].as_str()),
            (403, Some(&*format!("urn:sidekey:error:{kind}")))
        );
    }

    books(&company).is_stale = true;
    assert_eq!(world.call(&handle, "/oddbook/v2/firms/7/bills").await.status, 200);
    assert_eq!(books(&company).asked.last().expect("asked")["refresh_token"], "renew-1");
    let called: Vec<String> = books(&company).called.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(called, ["key-1", "key-1", "key-2"], "told once that it has expired, and sent again");

    books(&company).valid = None;
    clock.advance(Duration::from_secs(61));
    let refused = world.call(&handle, "/oddbook/v2/firms/7/bills").await;
    assert_eq!(refused.status, 419, "what the company says goes to the caller");
    assert_eq!(world.connections("alice").await[0]["state"], "needs_reauth");
    connect(&world).await;
    assert_eq!(world.call(&handle, "/oddbook/v2/firms/7/bills").await.status, 200);

    let body = json!({ "provider": "oddbook", "subject": "alice" }).to_string();
    assert_eq!(world.admin("POST", "/v1/disconnect", &body).await.json()["revocation"], "done");
    assert_eq!(books(&company).ended, [json!({ "key": "key-3", "firm": "7" })]);
    assert!(world.connections("alice").await.is_empty());
    world.stop().await;
}
