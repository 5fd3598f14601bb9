//! Several accounts of one subject at one provider: the URL, the handle or the MCP server picks, and nothing crosses.

use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::front::{Front, FrontSetup, Tokens};
use crate::process::{out, sidekey};
use crate::world::{Setup, World};

const MAIN: &str = "9341453172058817";
const BRANCH: &str = "9341453172058999";
const COMPANY: &str = "/v3/company/0/companyinfo/0";

impl World {
    /// Connects under a label, to this company or account.
    async fn connect_as(&self, provider: &str, label: &str, account: &str) {
        self.simulator.set(provider, |settings| match provider {
            "quickbooks" => account.clone_into(&mut settings.realm_id),
            _ => account.clone_into(&mut settings.user),
        });
        let body = json!({ "provider": provider, "subject": "alice", "label": label });
        let link = self.admin("POST", "/v1/connect-links", &body.to_string()).await;
        let link = link.json()["url"].as_str().unwrap_or_else(|| panic!("{}", link.text())).to_owned();
        let begun = send(self.client.post(&link)).await;
        let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let (url, cookie) = self.callback_url(&(begun.header("location").to_owned(), cookie)).await;
        assert_eq!(self.callback(&url, &cookie).await.status, 303);
    }

    async fn handle_for(&self, label: &str) -> String {
        let answer =
            self.admin("POST", "/v1/handles", &json!({ "subject": "alice", "label": label }).to_string()).await;
        answer.json()["handle"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    }
}

fn company(answer: &Answer) -> String {
    let body = answer.json();
    body["CompanyInfo"]["Id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, slug: &str, title: &str, detail: &str, next_step: &str) {
    let expected = json!({
        "type": format!("urn:sidekey:error:{slug}"), "title": title, "status": status, "detail": detail, "next_step": next_step,
    });
    assert_eq!((answer.status, answer.json()), (status, expected));
}

const OTHER_LABEL: &str = "leave the label out of the URL, or use a handle for it: `sidekey handle issue --subject S --label L`; \
    what an MCP server gets is for the labels in its [servers.NAME.labels]";

async fn two_companies() -> World {
    let world = World::start().await;
    world.connect_as("quickbooks", "default", MAIN).await;
    world.connect_as("quickbooks", "branch", BRANCH).await;
    world
}

#[tokio::test]
async fn the_url_picks_for_a_handle_without_a_label() {
    let world = two_companies().await;
    let (_, handle) = world.handle("alice").await;
    for (api, id) in [
        ("quickbooks", MAIN),
        ("quickbooks@default", MAIN),
        ("quickbooks@branch", BRANCH),
        ("quickbooks%40branch", BRANCH),
    ] {
        assert_eq!(company(&world.call(&handle, &format!("/{api}{COMPANY}")).await), id, "{api}");
        let in_url = send(world.client.get(world.egress(&format!("/~{handle}/{api}{COMPANY}")))).await;
        assert_eq!(company(&in_url), id, "{api}");
    }
    let crossed = world.call(&handle, &format!("/quickbooks@branch/v3/company/{MAIN}/companyinfo/{MAIN}")).await;
    assert_problem(
        &crossed,
        403,
        "other-tenant",
        "Another tenant",
        "The request names another realm_id than the one that subject alice (label branch) connected.",
        "send 0 or {realm_id} in its place and it is filled in, or disconnect and connect the other one",
    );
    assert_problem(
        &world.call(&handle, &format!("/quickbooks@nowhere{COMPANY}")).await,
        403,
        "not-connected",
        "Not connected",
        "There is no connection of subject alice (label nowhere) to quickbooks.",
        "connect it: `sidekey connect quickbooks --subject alice --label nowhere`",
    );
    for bad in ["quickbooks@", "quickbooks@a@b", "quickbooks@a%20b", "quickbooks@~x"] {
        let answer = world.call(&handle, &format!("/{bad}{COMPANY}")).await;
        assert_problem(
            &answer,
            400,
            "bad-label",
            "Bad label",
            "What stands behind the @ in the first path segment is not the label of a connection.",
            "write /NAME@LABEL behind this address; a label is 1 to 40 of the characters A-Z a-z 0-9 . _ -",
        );
    }
    assert_eq!(
        world.call(&handle, &format!("/books@branch{COMPANY}")).await.json()["type"],
        "urn:sidekey:error:unknown-api"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_handle_with_a_label_is_for_that_connection_only() {
    let world = two_companies().await;
    for (label, id, other) in [("branch", BRANCH, "default"), ("default", MAIN, "branch")] {
        let handle = world.handle_for(label).await;
        for api in ["quickbooks".to_owned(), format!("quickbooks@{label}")] {
            assert_eq!(company(&world.call(&handle, &format!("/{api}{COMPANY}")).await), id, "{api}");
        }
        assert_problem(
            &world.call(&handle, &format!("/quickbooks@{other}{COMPANY}")).await,
            403,
            "handle-for-other-label",
            "Handle for another label",
            "This handle does not reach the connection with this label at quickbooks.",
            OTHER_LABEL,
        );
    }
    let listed = world.admin("GET", "/v1/handles", "").await.json();
    let labels: Vec<&Value> =
        listed["handles"].as_array().expect("a list").iter().map(|handle| &handle["label"]).collect();
    assert_eq!(labels.len(), 2);
    assert!(labels.contains(&&json!("branch")) && labels.contains(&&json!("default")), "{labels:?}");
    let bad = world.admin("POST", "/v1/handles", &json!({ "subject": "alice", "label": "a/b" }).to_string()).await;
    assert!(bad.status == 422 || bad.status == 400, "{}", bad.text());
    world.stop().await;
}

#[tokio::test]
async fn the_url_picks_for_callers_without_a_handle_too() {
    let world = World::with(
        Setup { fixed_subject: Some("alice"), ..Setup::default() },
        std::sync::Arc::new(sidekey::base::clock::SystemClock),
    )
    .await;
    for (label, id) in [("default", MAIN), ("branch", BRANCH)] {
        world.connect_as("quickbooks", label, id).await;
    }
    for (api, id) in [("quickbooks", MAIN), ("quickbooks@branch", BRANCH)] {
        assert_eq!(company(&send(world.client.get(world.egress(&format!("/{api}{COMPANY}")))).await), id);
    }
    world.stop().await;
}

#[tokio::test]
async fn links_stay_with_the_account_that_they_came_from() {
    let world = World::start().await;
    for (label, account) in [("default", "ada"), ("work", "bert")] {
        world.connect_as("github", label, account).await;
    }
    let (_, handle) = world.handle("alice").await;
    let user = async |path: &str| world.call(&handle, path).await.json()["login"].as_str().map(str::to_owned);
    assert_eq!(user("/github/user").await.as_deref(), Some("ada"));
    assert_eq!(user("/github@work/user").await.as_deref(), Some("bert"));
    let answer = world.call(&handle, "/github@work/user/repos").await;
    let link = answer.header("link").to_owned();
    assert!(link.starts_with(&format!("<{}?", world.egress("/github@work/user/repos"))), "{link}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_intercepted_goes_by_the_handle() {
    let world = World::of_real_hosts(Setup::default()).await;
    for (label, account) in [("default", "ada"), ("work", "bert")] {
        world.connect_as("github", label, account).await;
    }
    let (_, any) = world.handle("alice").await;
    for (handle, login) in [(any, "ada"), (world.handle_for("work").await, "bert")] {
        let client = world.proxied(&format!("{handle}@")).await;
        let answer = send(client.get("https://api.github.com/user").bearer_auth("placeholder")).await;
        assert_eq!(answer.json()["login"], login, "{}", answer.text());
    }
    world.stop().await;
}

#[tokio::test]
async fn many_calls_at_once_never_cross() {
    let world = two_companies().await;
    let (_, any) = world.handle("alice").await;
    let of_branch = world.handle_for("branch").await;
    let calls = (0..60).map(|number| {
        let (handle, api, id) = match number % 3 {
            0 => (&any, "quickbooks", MAIN),
            1 => (&any, "quickbooks@branch", BRANCH),
            _ => (&of_branch, "quickbooks", BRANCH),
        };
        let (world, path) = (&world, format!("/{api}{COMPANY}"));
        async move { (company(&world.call(handle, &path).await), id) }
    });
    for (found, expected) in futures_util::future::join_all(calls).await {
        assert_eq!(found, expected);
    }
    world.stop().await;
}

#[tokio::test]
async fn status_audit_and_disconnect_tell_the_label() {
    let world = two_companies().await;
    let config = world.files.config.to_str().expect("text").to_owned();
    let status = out(&sidekey(&["status", "--label", "branch", "--config", &config]).await);
    let shown: Vec<&str> = status.lines().skip_while(|line| !line.starts_with("SUBJECT")).skip(1).collect();
    assert!(shown.len() == 1 && shown[0].starts_with("alice    quickbooks  branch  active"), "{status}");
    let disconnect = ["disconnect", "quickbooks", "--subject", "alice", "--label", "branch", "--config", &config];
    out(&sidekey(&disconnect).await);
    let left = world.connections("alice").await;
    assert_eq!((left.len(), &left[0]["label"], &left[0]["captured"]["realm_id"]), (1, &json!("default"), &json!(MAIN)));
    let audit = out(&sidekey(&["audit", "--config", &config]).await);
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("label=branch")).collect();
    for operation in ["connect", "disconnect"] {
        assert!(lines.iter().any(|line| line.contains(&format!("  {operation}  "))), "{audit}");
    }
    assert!(!audit.contains("label=default"), "{audit}");
    world.stop().await;
}

/// Calls the MCP server `name` with what has it ask for the company.
async fn company_of(front: &Front, name: &str, tokens: &Tokens, path: &str) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "api", "params": { "path": path } });
    let request = front.world.client.post(front.world.public(&format!("/{name}/mcp"))).bearer_auth(&tokens.access);
    let answer = send(request.header("content-type", "application/json").body(body.to_string())).await;
    answer.json()["body"].clone()
}

#[tokio::test]
async fn two_mcp_servers_use_two_companies_of_one_user() {
    let providers = "providers = [\"notion\", \"quickbooks\"]\nrequired = [\"quickbooks\"]\n";
    let tables = format!(
        "[servers.branch]\nupstream = \"UPSTREAM\"\n{providers}[servers.branch.labels]\nquickbooks = \"branch\"\n"
    );
    let setup = FrontSetup { server: providers, tables, ..FrontSetup::default() };
    let front = Front::with_one_upstream(setup).await;
    let mut tokens = Vec::new();
    for (name, company) in [("notes", MAIN), ("branch", BRANCH)] {
        front.world.simulator.set("quickbooks", |settings| company.clone_into(&mut settings.realm_id));
        let resource = front.world.public(&format!("/{name}/mcp"));
        tokens.push(front.authorized_with("alice", &[("resource", &resource)], &["notion", "quickbooks"]).await);
    }
    let path = format!("/quickbooks{COMPANY}");
    for _ in 0..3 {
        assert_eq!(company_of(&front, "notes", &tokens[0], &path).await["CompanyInfo"]["Id"], MAIN);
        assert_eq!(company_of(&front, "branch", &tokens[1], &path).await["CompanyInfo"]["Id"], BRANCH);
    }
    let named = format!("/quickbooks@branch{COMPANY}");
    assert_eq!(company_of(&front, "branch", &tokens[1], &named).await["CompanyInfo"]["Id"], BRANCH);
    let refused = company_of(&front, "notes", &tokens[0], &named).await;
    assert_eq!(
        refused,
        json!({
            "type": "urn:sidekey:error:handle-for-other-label", "title": "Handle for another label", "status": 403,
            "detail": "This handle does not reach the connection with this label at quickbooks.", "next_step": OTHER_LABEL,
        }),
        "what the user approved was another company"
    );
    let connections = front.connections().await;
    let mut companies: Vec<_> = connections
        .iter()
        .filter(|connection| connection["provider"] == "quickbooks")
        .map(|connection| (connection["label"].as_str(), connection["captured"]["realm_id"].as_str()))
        .collect();
    companies.sort_unstable();
    assert_eq!(companies, [(Some("branch"), Some(BRANCH)), (Some("default"), Some(MAIN))]);

    // One that ends takes the grant with it that needs it, and no other.
    let subject = front.newest_subject().await;
    let body = json!({ "provider": "quickbooks", "subject": subject, "label": "branch" });
    assert_eq!(front.world.admin("POST", "/v1/disconnect", &body.to_string()).await.status, 200);
    let ended = front.world.client.post(front.world.public("/branch/mcp")).bearer_auth(&tokens[1].access);
    let ended = send(ended.header("content-type", "application/json").body("{}")).await;
    assert_eq!(ended.status, 401, "{}", ended.text());
    assert_eq!(company_of(&front, "notes", &tokens[0], &path).await["CompanyInfo"]["Id"], MAIN);
    front.stop().await;
}

#[tokio::test]
async fn a_user_is_led_to_the_connection_with_the_label() {
    let providers = "providers = [\"notion\", \"quickbooks\"]\nrequired = [\"notion\"]\n[servers.notes.labels]\nquickbooks = \"branch\"\n";
    let front = Front::with(
        FrontSetup { server: providers, ..FrontSetup::default() },
        std::sync::Arc::new(sidekey::base::clock::SystemClock),
    )
    .await;
    let client_id = front.register("A client").await;
    let (_, consent) = front.browser("alice").open(&front.authorize_url(&client_id, &[])).await.page();
    assert!(consent.text().contains("<strong>QuickBooks Online</strong>: branch"), "{}", consent.text());
    let tokens = front.authorized_with("alice", &[], &["notion", "quickbooks"]).await;
    let subject = front.newest_subject().await;
    let body = json!({ "provider": "quickbooks", "subject": subject, "label": "branch" });
    assert_eq!(front.world.admin("POST", "/v1/disconnect", &body.to_string()).await.status, 200);
    let answer = company_of(&front, "notes", &tokens, &format!("/quickbooks{COMPANY}")).await;
    assert_eq!(answer["type"], "urn:sidekey:error:not-connected", "{answer}");
    assert_eq!(answer["connect_url"], front.world.public("/account/connect/quickbooks?label=branch"));
    front.stop().await;
}
