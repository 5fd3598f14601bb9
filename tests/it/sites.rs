//! Which of several sites a connection is for: looked up once connected, chosen by the user, and never silently another.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sidekey::base::clock::SystemClock;
use sidekey_simulator::Options;

use crate::client::{Answer, http, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup, World, eventually, free_listener, serve_at};

/// As at a company with several sites for one account; the second token shows that all tokens of a grant are for one site.
const TRACKER: &str = r#"
display_name = "Tracker"
checked_on = "2026-11-21"
default_api = "tracker"
realm = ["cloud_id"]
[authorize]
url = "SIMULATOR/generic/authorize"
pkce = "supported"
scopes = ["work"]
[token]
url = "SIMULATOR/generic/token"
client_authentication = ["basic"]
[[token.response.more_tokens]]
name = "user"
access_token = "/authed_user/access_token"
refresh_token = "/authed_user/refresh_token"
expires_in = "/authed_user/expires_in"
[rotation]
model = "single_use"
[[post_connect]]
url = "LOOKUP/sites"
items = "/values"
item_name = "/name"
only = { "/type" = ["ORGANISATION"] }
capture = { cloud_id = "/id", site_name = "/name" }
patterns = { cloud_id = '^[0-9a-z-]{1,40}$' }
[apis.tracker]
origin = "SIMULATOR"
base_path = "/generic/api"
paths = ["/ex/{cloud_id}/"]
[apis.people]
origin = "SIMULATOR"
base_path = "/generic/api"
token = "user"
paths = ["/ex/{cloud_id}/"]
[apis.self]
origin = "SIMULATOR"
base_path = "/generic/api"
paths = ["/me"]
[apis.books]
origin = "SIMULATOR"
base_path = "/generic/api"
paths = ["/books"]
headers = { always = { x-tenant = "{cloud_id}" } }
"#;

/// What the look-up answers, and what it was asked with.
#[derive(Clone, Default)]
struct Sites {
    answer: Arc<Mutex<(u16, String)>>,
    bearers: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
}

/// The status that stands for no answer.
const NEVER: u16 = 0;

impl Sites {
    fn say(&self, sites: &[(&str, &str)]) {
        let sites: Vec<Value> = sites.iter().map(|(id, name)| site(id, name)).collect();
        self.answer(200, &json!({ "values": sites }).to_string());
    }

    fn answer(&self, status: u16, body: &str) {
        *self.answer.lock().expect("whole") = (status, body.to_owned());
    }

    /// Answers at an address of its own until the test ends, and sets up a provider with this entry.
    fn serve(&self, entry: &str) -> Setup {
        let listener = free_listener();
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        serve_at(listener, self.router());
        let entry: &'static str = entry.replace("LOOKUP", &url).leak();
        let apis = "apis = [\"tracker\", \"people\", \"self\", \"books\"]";
        Setup { providers: vec![("tracker", entry, apis)], ..Setup::default() }
    }

    fn router(&self) -> axum::Router {
        let sites = self.clone();
        axum::Router::new().route(
            "/sites",
            axum::routing::get(async move |headers: http::HeaderMap| {
                sites.asked.fetch_add(1, Ordering::Relaxed);
                let bearer = headers["authorization"].to_str().expect("text").to_owned();
                sites.bearers.lock().expect("whole").push(bearer);
                let (status, body) = sites.answer.lock().expect("whole").clone();
                if status == NEVER {
                    std::future::pending::<()>().await;
                }
                let location = [("location", "/elsewhere"), ("content-type", "application/json")];
                (http::StatusCode::from_u16(status).expect("a status"), location, body)
            }),
        )
    }
}

fn site(id: &str, name: &str) -> Value {
    json!({ "id": id, "name": name, "type": "ORGANISATION" })
}

struct Bed {
    world: World,
    sites: Sites,
}

impl Bed {
    async fn new() -> Self {
        Self::of(TRACKER).await
    }

    async fn of(entry: &str) -> Self {
        let sites = Sites::default();
        let setup = sites.serve(entry);
        let world = World::with(setup, Arc::new(SystemClock)).await;
        world.simulator.set("generic", |settings| settings.user_token = true);
        Self { world, sites }
    }

    /// The captured values of all tokens.
    async fn captured(&self) -> Vec<Value> {
        self.world.connections("alice").await.iter().map(|connection| connection["captured"].clone()).collect()
    }

    async fn list(&self) -> Answer {
        self.world.admin("GET", "/v1/sites?subject=alice&provider=tracker", "").await
    }

    async fn choose(&self, site: &str) -> Answer {
        let body = json!({ "subject": "alice", "provider": "tracker", "site": site });
        self.world.admin("POST", "/v1/sites", &body.to_string()).await
    }

    /// The id of the site of this name.
    async fn id_of(&self, name: &str) -> String {
        let listed = self.list().await.json();
        let sites = listed["sites"].as_array().expect("a list");
        let found = sites.iter().find(|site| site["name"] == name).unwrap_or_else(|| panic!("{listed}"));
        found["id"].as_str().expect("text").to_owned()
    }

    /// Comes back from the provider once more.
    async fn reconnect(&self) -> Answer {
        let (url, cookie) = self.world.callback_url(&self.world.begin("tracker", "alice").await).await;
        self.world.callback(&url, &cookie).await
    }

    /// The paths of the calls that have reached the provider.
    fn paths(&self) -> Vec<String> {
        self.world.simulator.api_calls().into_iter().map(|call| call.path).collect()
    }
}

fn refusal(detail: &str, next_step: &str) -> Value {
    json!({
        "type": "urn:sidekey:error:choice-needed", "title": "Choice needed", "status": 403,
        "detail": detail, "next_step": next_step,
    })
}

fn not_chosen() -> Value {
    refusal(
        "subject alice has connected tracker, but not yet chosen for which cloud_id.",
        "choose one: `sidekey sites tracker --subject alice`",
    )
}

#[tokio::test]
async fn the_only_site_is_captured_for_every_token() {
    let bed = Bed::new().await;
    let values = json!([site("a-1", "Acme"), { "id": "p-1", "name": "Nobody's", "type": "PRACTICE" }, site("a-1", "Acme again")]);
    bed.sites.answer(200, &json!({ "values": values }).to_string());
    let handle = bed.world.connected("tracker", "alice").await;
    let captured = json!({ "cloud_id": "a-1", "site_name": "Acme" });
    assert_eq!(bed.captured().await, [captured.clone(), captured]);
    assert_eq!(bed.world.connections("alice").await[0]["choice_needed"], false);
    for path in ["/tracker/ex/0/x", "/people/ex/{cloud_id}/x", "/tracker/ex/a-1/x", "/books/books"] {
        assert_eq!(bed.world.call(&handle, path).await.status, 200, "{path}");
    }
    assert_eq!(bed.paths(), ["/ex/a-1/x", "/ex/a-1/x", "/ex/a-1/x", "/books"]);
    let other = bed.world.call(&handle, "/tracker/ex/b-2/x").await;
    assert_eq!(other.json()["type"], "urn:sidekey:error:other-tenant");
    assert_eq!(bed.sites.asked.load(Ordering::Relaxed), 1);
    let bearer = bed.sites.bearers.lock().expect("whole")[0].clone();
    let ledger = bed.world.simulator.ledger();
    let token = &ledger.profile("generic").grants[0].access_tokens[0];
    let digest = sidekey::base::digest::sha256(bearer.trim_start_matches("Bearer ").as_bytes());
    assert_eq!(token.value_sha256, crate::one_refresh::hex(&digest), "asked with the first token");
    bed.world.stop().await;
}

#[tokio::test]
async fn of_several_sites_one_is_chosen_and_later_another() {
    let bed = Bed::new().await;
    bed.sites.say(&[("a-1", "Acme"), ("b-2", "Bravo")]);
    let handle = bed.world.connected("tracker", "alice").await;
    assert_eq!(bed.captured().await, [json!({}), json!({})]);
    assert_eq!(bed.world.connections("alice").await[0]["choice_needed"], true);
    for path in ["/tracker/ex/0/x", "/people/ex/0/x", "/tracker/ex/a-1/x", "/books/books"] {
        let answer = bed.world.call(&handle, path).await;
        assert_eq!((answer.status, answer.json()), (403, not_chosen()), "{path}");
    }
    assert_eq!(bed.world.call(&handle, "/self/me").await.status, 200, "what needs no site works");

    let listed = bed.list().await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    let sites = listed.json()["sites"].clone();
    let shown: Vec<_> = sites.as_array().expect("a list").iter().map(|site| (&site["name"], &site["chosen"])).collect();
    assert_eq!(shown, [(&json!("Acme"), &json!(false)), (&json!("Bravo"), &json!(false))]);
    let unknown = bed.choose("nowhere").await;
    assert_eq!(
        (unknown.status, unknown.json()["detail"].as_str()),
        (404, Some("For alice/tracker/default, the provider does not offer this one."))
    );
    for (name, id) in [("Bravo", "b-2"), ("Acme", "a-1")] {
        let chosen = bed.choose(&bed.id_of(name).await).await;
        assert_eq!((chosen.status, &chosen.json()["chosen"]), (200, &json!(true)), "{}", chosen.text());
        let captured = json!({ "cloud_id": id, "site_name": name });
        assert_eq!(bed.captured().await, [captured.clone(), captured]);
        for api in ["tracker", "people"] {
            assert_eq!(bed.world.call(&handle, &format!("/{api}/ex/0/{name}")).await.status, 200);
        }
        assert_eq!(bed.paths().last().map(String::as_str), Some(format!("/ex/{id}/{name}").as_str()));
    }
    let of_other = bed.world.call(&handle, "/tracker/ex/b-2/x").await;
    assert_eq!(of_other.json()["type"], "urn:sidekey:error:other-tenant", "the one before is another one now");

    let config = bed.world.files.config.to_str().expect("text").to_owned();
    let said = out(&sidekey(&["sites", "tracker", "--subject", "alice", "--config", &config]).await);
    assert!(said.contains("  Acme  chosen\n") && said.contains("  Bravo\n"), "{said}");
    let id = bed.id_of("Bravo").await;
    let said = out(&sidekey(&["sites", "tracker", "--subject", "alice", "--choose", &id, "--config", &config]).await);
    assert_eq!(said, format!("{id}  Bravo  chosen\n"));
    let audit = out(&sidekey(&["audit", "--json", "--config", &config]).await);
    for reason in ["chosen: cloud_id=b-2", "chosen: cloud_id=a-1", "the provider does not offer this one"] {
        assert!(audit.contains(&format!("\"reason\":\"{reason}\"")), "{audit}");
    }
    bed.world.stop().await;
}

#[tokio::test]
async fn what_was_chosen_outlives_a_refresh() {
    let bed = Bed::new().await;
    bed.world.simulator.set("generic", |settings| settings.access_lifetime_s = 2.0);
    bed.sites.say(&[("a-1", "Acme"), ("b-2", "Bravo")]);
    let handle = bed.world.connected("tracker", "alice").await;
    assert_eq!(bed.choose(&bed.id_of("Bravo").await).await.status, 200);
    let generation = async |token: usize| bed.world.connections("alice").await[token]["generation"].as_u64();
    for _ in 0..2 {
        let before = [generation(0).await, generation(1).await];
        eventually("both are refreshed", async || generation(0).await > before[0] && generation(1).await > before[1])
            .await;
        assert_eq!(bed.world.call(&handle, "/tracker/ex/0/x").await.status, 200);
        assert_eq!(bed.world.call(&handle, "/people/ex/0/x").await.status, 200);
    }
    assert!(bed.paths().iter().all(|path| path == "/ex/b-2/x"), "{:?}", bed.paths());
    bed.world.stop().await;
}

#[tokio::test]
async fn a_reconnect_keeps_the_chosen_site_and_is_refused_without_it() {
    let bed = Bed::new().await;
    bed.sites.say(&[("a-1", "Acme"), ("b-2", "Bravo")]);
    bed.world.connect("tracker", "alice").await;
    assert_eq!(bed.choose(&bed.id_of("Bravo").await).await.status, 200);

    bed.sites.say(&[("c-3", "Charlie"), ("b-2", "Bravo Ltd"), ("a-1", "Acme")]);
    assert_eq!(bed.reconnect().await.status, 303);
    let renamed = json!({ "cloud_id": "b-2", "site_name": "Bravo Ltd" });
    assert_eq!(bed.captured().await, [renamed.clone(), renamed.clone()]);

    for (offered, what) in [
        (&[("a-1", "Acme")][..], "Tracker answers for another cloud_id (a-1) than the one that is connected (b-2)."),
        (
            &[("a-1", "Acme"), ("c-3", "Charlie")],
            "This account at Tracker does not have the cloud_id that is connected (b-2).",
        ),
        (&[], "This account at Tracker does not have the cloud_id that is connected (b-2)."),
    ] {
        bed.sites.say(offered);
        let refused = bed.reconnect().await;
        assert_eq!(refused.status, 409, "{}", refused.text());
        let text = refused.text();
        assert!(text.contains(&format!("<h1>Not the one that is connected</h1><p>{what}")), "{text}");
        assert_eq!(bed.captured().await, [renamed.clone(), renamed.clone()], "the connection is left as it is");
    }
    bed.world.stop().await;
}

#[tokio::test]
async fn a_failed_look_up_loses_nothing_and_is_made_again_when_somebody_looks() {
    let bed = Bed::new().await;
    bed.sites.answer(500, "down");
    let handle = bed.world.connected("tracker", "alice").await;
    assert_eq!(bed.sites.asked.load(Ordering::Relaxed), 2, "asked once more");
    assert_eq!(bed.world.call(&handle, "/tracker/ex/0/x").await.json(), not_chosen());
    for (status, body, why) in [
        (401, "{}", "HTTP status 401"),
        (302, "", "HTTP status 302"),
        (200, "<html>", "the reply is not JSON"),
        (200, "{}", "the reply has nothing at \\\"/values\\\""),
        (200, "{\"values\":7}", "the reply has no list at \\\"/values\\\""),
    ] {
        bed.sites.answer(status, body);
        let answer = bed.list().await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        let detail = format!("For alice/tracker/default, the provider did not say what there is: {why}.");
        assert!(answer.text().contains(&detail), "{}", answer.text());
    }
    bed.sites.say(&[]);
    assert_eq!(bed.list().await.json(), json!({ "sites": [] }));
    assert_eq!(bed.world.connections("alice").await[0]["choice_needed"], true, "an account without a site");
    bed.sites.say(&[("a-1", "Acme")]);
    assert_eq!(bed.list().await.json()["sites"][0]["chosen"], true, "there is nothing to choose");
    assert_eq!(bed.world.call(&handle, "/tracker/ex/0/x").await.status, 200);

    // Connecting again while the look-up fails must not lead to another site.
    bed.sites.answer(404, "");
    assert_eq!(bed.reconnect().await.status, 303);
    assert_eq!(bed.captured().await[0], json!({}));
    bed.sites.say(&[("b-2", "Bravo")]);
    assert_eq!(bed.list().await.json()["sites"][0]["chosen"], false, "it was for another one");
    assert_eq!(bed.captured().await[0], json!({}));
    let again = bed.reconnect().await;
    assert!(again.status == 409 && again.text().contains("than the one that is connected (a-1)"), "{}", again.text());
    bed.sites.say(&[("b-2", "Bravo"), ("a-1", "Acme")]);
    let listed = bed.list().await.json();
    assert_eq!((&listed["sites"][0]["chosen"], &listed["sites"][1]["chosen"]), (&json!(false), &json!(true)));
    assert_eq!(bed.captured().await[1]["cloud_id"], "a-1");
    bed.world.stop().await;
}

#[tokio::test]
async fn hostile_replies_offer_nothing_that_could_do_harm() {
    let bed = Bed::new().await;
    let bad = ["", "..", "a/b", "a%2fb", "a b", "a\r\nx-evil: 1", "A", "ä", &"a".repeat(41), "{cloud_id}"];
    let mut values: Vec<Value> = bad.iter().map(|id| site(id, "bad")).collect();
    values.extend([json!(7), json!(null), json!([]), json!({ "id": {}, "name": "x", "type": "ORGANISATION" })]);
    values.push(site("a-1", "Acme\u{202e}\r\n<script>alert(1)</script>\u{0} Inc"));
    values.push(json!({ "id": 42, "name": "n".repeat(5000), "type": "ORGANISATION" }));
    bed.sites.answer(200, &json!({ "values": values }).to_string());
    bed.world.connect("tracker", "alice").await;
    let listed = bed.list().await.json();
    let sites: Vec<_> =
        listed["sites"].as_array().expect("a list").iter().map(|site| &site["captured"]["cloud_id"]).collect();
    assert_eq!(sites, [&json!("a-1"), &json!("42")]);
    assert_eq!(listed["sites"][0]["name"], "Acme <script>alert(1)</script> Inc");
    assert_eq!(listed["sites"][0]["captured"]["site_name"], listed["sites"][0]["name"]);
    assert_eq!(listed["sites"][1]["name"].as_str().map(|name| name.chars().count()), Some(100));

    bed.sites.answer(200, &json!({ "values": vec![site("a-1", &"x".repeat(1000)); 2000] }).to_string());
    let huge = bed.list().await;
    assert!(huge.status == 502 && huge.text().contains("the reply is larger than 1048576 bytes"), "{}", huge.text());
    bed.world.stop().await;
}

#[tokio::test]
async fn there_is_nothing_to_choose_where_nothing_is_looked_up_or_connected() {
    let bed = Bed::new().await;
    let nobody = bed.list().await;
    assert_eq!((nobody.status, &nobody.json()["type"]), (404, &json!("urn:sidekey:error:unknown-connection")));
    bed.world.connect("github", "alice").await;
    let github = bed.world.admin("GET", "/v1/sites?subject=alice&provider=github", "").await;
    assert_eq!((github.status, &github.json()["type"]), (409, &json!("urn:sidekey:error:nothing-to-choose")));
    let handle = bed.world.handle("alice").await.1;
    let user = send(bed.world.client.get(bed.world.egress("/github/user")).bearer_auth(handle)).await;
    assert_eq!(user.status, 200);
    bed.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_exchange_and_look_up_nothing_is_half_done() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("generic", |settings| settings.user_token = true);
    let sites = Sites::default();
    sites.answer(NEVER, "");
    let files = Files::write(&simulator.url(), &sites.serve(TRACKER));
    let mut program = Program::start(files, &[], Stdio::null()).await;
    let link = ["connect", "tracker", "--subject", "alice", "--json", "--config", program.config()];
    let link: Value = serde_json::from_str(&out(&sidekey(&link).await)).expect("JSON");
    let client = http();
    let begun = send(client.post(link["url"].as_str().expect("a URL"))).await;
    let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    let agreed = send(client.get(begun.header("location"))).await;
    let back = || client.get(agreed.header("location")).header("cookie", &cookie);
    let waiting = tokio::spawn(back().send());
    eventually("the look-up is asked", async || sites.asked.load(Ordering::Relaxed) == 1).await;
    assert_eq!(simulator.ledger().profile("generic").counters.code_exchanges_ok, 1);
    program.signal(rustix::process::Signal::KILL).await;
    assert!(waiting.await.expect("it ends").is_err(), "nobody was told that it worked");

    sites.say(&[("a-1", "Acme")]);
    let program = Program::start(program.files, &[], Stdio::null()).await;
    let status = async || out(&sidekey(&["status", "--config", program.config()]).await);
    assert!(status().await.contains("\nno connections"), "{}", status().await);
    let again = send(back()).await;
    assert!(again.status == 400 && again.text().contains("<h1>Already done</h1>"), "{}", again.text());
    program.connect("tracker", "alice").await;
    assert_eq!(status().await.lines().filter(|line| line.contains("  active  ")).count(), 2, "{}", status().await);
    let handle = program.handle("alice").await;
    let url = format!("http://{}/tracker/ex/0/x", program.files.egress);
    assert_eq!(send(client.get(url).bearer_auth(handle)).await.status, 200);
    simulator.stop().await;
}
