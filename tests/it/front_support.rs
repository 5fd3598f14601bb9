//! What the tests of the MCP front share besides [`crate::front`]: other set-ups, restarts, and a browser that can be
//! stopped on its way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sidekey::base::clock::{Clock, ManualClock, SystemClock};
use sidekey::server::{self, Environment, Running};
use sidekey_simulator::{Options, Simulator};

use crate::client::{Answer, form, http, send};
use crate::front::{Front, McpServer, Place, Tokens, between, decision, own_path, parameter};
use crate::world::{Files, Setup, World, eventually, now};

/// How a front differs from the usual one, where [`crate::front::FrontSetup`] does not reach.
#[derive(Default)]
pub struct Special {
    /// Lines before the first table.
    pub top: &'static str,
    /// Lines of `[public]`.
    pub public: &'static str,
    /// The provider that identifies users; Notion if it is not said.
    pub identity: Option<&'static str>,
    /// Lines of `[issuer]`.
    pub issuer: String,
    /// Lines of `[servers.notes]`; `providers` and `required` are there already unless it names them.
    pub server: &'static str,
    /// Further tables.
    pub tables: String,
    /// Further tables of provider files, by provider.
    pub entries: Vec<(&'static str, String)>,
}

/// A client that the operator knows, whose redirect URI is a site on the web.
pub const REPORTING: &str =
    "[clients.reporting]\nname = \"Reporting\"\nredirect_uris = [\"https://reports.example/cb\"]\n";
/// Where it is called back.
pub const REPORTS: &str = "https://reports.example/cb";

pub async fn start(special: Special) -> Front {
    with_clock(special, Arc::new(SystemClock)).await
}

/// A front whose clock is moved by hand. Providers go by the real one.
pub async fn at_a_standstill(special: Special) -> (Front, ManualClock) {
    let clock = ManualClock::at(now());
    (with_clock(special, Arc::new(clock.clone())).await, clock)
}

pub async fn with_clock(special: Special, clock: Arc<dyn Clock>) -> Front {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    on(simulator, special, clock).await
}

pub async fn on(simulator: Simulator, special: Special, clock: Arc<dyn Clock>) -> Front {
    let server = McpServer::start().await;
    let Special { top, public, identity, issuer, server: more, tables, entries } = special;
    let providers = match more.contains("providers =") {
        true => "",
        false => "providers = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n",
    };
    let tables = format!(
        "[issuer]\nidentity = \"{}\"\n{issuer}\n[servers.notes]\nupstream = \"{}\"\n{providers}{more}\n{tables}",
        identity.unwrap_or("notion"),
        server.url
    );
    let files = Files::write(&simulator.url(), &Setup { top: top.to_owned(), tables, ..Setup::default() });
    change_configuration(&files, "[public]\n", &format!("[public]\n{public}\n"));
    for (name, more) in entries {
        let path = files.home.path().join(format!("providers/{name}.toml"));
        let mut entry = std::fs::read_to_string(&path).expect("there");
        if more.contains("[userinfo]") {
            let usual = format!("[userinfo]\nurl = \"{}/{name}/userinfo\"\n", simulator.url());
            entry = entry.replacen(&usual, "", 1);
        }
        std::fs::write(&path, format!("{entry}{more}")).expect("written");
    }
    let sidekey = start_sidekey(&files, clock).await;
    let world = World { simulator, files, sidekey, client: http() };
    server.set_egress(&world.egress(""));
    Front { world, server }
}

pub fn change_configuration(files: &Files, from: &str, to: &str) {
    let config = std::fs::read_to_string(&files.config).expect("there");
    assert!(config.contains(from), "{from}: {config}");
    std::fs::write(&files.config, config.replacen(from, to, 1)).expect("written");
}

async fn start_sidekey(files: &Files, clock: Arc<dyn Clock>) -> Running {
    let settings = files.settings();
    // Children are started through the program, which this one is not.
    let sidekey = env!("CARGO_BIN_EXE_sidekey").into();
    let environment = Environment { clock, sidekey, ..Environment::system(&settings).expect("an environment") };
    server::start(settings, environment).await.expect("it starts")
}

/// The same front after its process ended and began again with another clock.
pub async fn restarted_at(front: Front, clock: Arc<dyn Clock>) -> Front {
    again(front, |_| {}, clock).await
}

/// The same front after its process ended and began again, with the configuration changed in between.
pub async fn restarted(front: Front, change: impl FnOnce(&Files)) -> Front {
    again(front, change, Arc::new(SystemClock)).await
}

async fn again(front: Front, change: impl FnOnce(&Files), clock: Arc<dyn Clock>) -> Front {
    let Front { world: World { simulator, files, sidekey, client }, server } = front;
    drop(client);
    sidekey.stop().await;
    change(&files);
    let sidekey = start_sidekey(&files, clock).await;
    Front { world: World { simulator, files, sidekey, client: http() }, server }
}

impl Front {
    pub fn visitor(&self, user: &str) -> Visitor {
        Visitor {
            client: self.world.client.clone(),
            own: self.world.public(""),
            named: self.world.public(""),
            provider: self.world.simulator.url(),
            user: user.to_owned(),
            cookies: BTreeMap::new(),
            set: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// What the authorization request of [`REPORTING`] says besides.
    pub fn reporting(&self, changes: &[(&str, &str)]) -> String {
        let mut all = vec![("redirect_uri", REPORTS)];
        all.extend_from_slice(changes);
        self.authorize_url("reporting", &all)
    }

    /// Tokens of a user for another server than the usual one, with its optional providers left out.
    pub async fn authorized_at(&self, path: &str, user: &str) -> Tokens {
        self.authorized_with(user, &[("resource", &self.world.public(path))], &[]).await
    }

    /// Tokens of a user who picked these providers besides what is required.
    pub async fn authorized_with(&self, user: &str, changes: &[(&str, &str)], picked: &[&str]) -> Tokens {
        let client_id = self.register("A client").await;
        let back = self.visitor(user).approve(&self.authorize_url(&client_id, changes), picked).await.away();
        let code = parameter(&back, "code").unwrap_or_else(|| panic!("{back}"));
        Tokens::of(client_id.clone(), &self.redeem(&client_id, &code, &[]).await)
    }

    /// All connections, of all subjects.
    pub async fn connections(&self) -> Vec<Value> {
        let status = self.world.admin("GET", "/v1/status", "").await.json();
        status["connections"].as_array().cloned().expect("a list")
    }

    /// The subject that the newest grant is of.
    pub async fn newest_subject(&self) -> String {
        let grants = self.grants().await;
        grants.last().expect("a grant")["subject"].as_str().expect("text").to_owned()
    }

    pub async fn ping(&self, access_token: &str) -> Answer {
        self.call(access_token, "ping", json!({})).await
    }

    /// Has all users take their consent back at a provider, and moves the clock to where Sidekey finds out.
    pub async fn die(&self, provider: &str, clock: &ManualClock) {
        self.world.simulator.revoke(provider);
        clock.advance(Duration::from_secs(9 * 3600));
        eventually("the connections have ended", async || {
            let connections = self.connections().await;
            let mut of_provider = connections.iter().filter(|connection| connection["provider"] == provider);
            of_provider.all(|connection| connection["state"] == "needs_reauth")
        })
        .await;
    }

    /// How often browsers came to a provider.
    pub fn sign_ins(&self, provider: &str) -> u64 {
        self.world.simulator.ledger().profile(provider).counters.authorize_calls
    }
}

/// A browser without JavaScript that can be stopped on its way, and that keeps every `Set-Cookie`.
#[derive(Clone)]
pub struct Visitor {
    pub client: reqwest::Client,
    /// Where Sidekey listens.
    pub own: String,
    /// What it is called by itself; the same unless something does TLS before it.
    pub named: String,
    provider: String,
    /// Who agrees at the provider.
    pub user: String,
    pub cookies: BTreeMap<String, String>,
    /// Every `Set-Cookie` so far.
    pub set: Vec<String>,
    /// Every answer so far, of ours and of the provider.
    pub seen: Vec<(String, String)>,
}

impl Visitor {
    /// One request, and no redirect followed.
    pub async fn get(&mut self, url: &str) -> Answer {
        let url = self.reachable(url);
        self.fetch(self.client.get(url)).await
    }

    /// One form, sent from a page of ours.
    /// The field of a page's form that says about which connection it was shown.
    pub fn shown_connection(page: &Answer) -> (String, String) {
        let text = page.text();
        let value = text.split("name=\"connection\" value=\"").nth(1).unwrap_or_else(|| panic!("{text}"));
        ("connection".to_owned(), value.split('"').next().expect("its end").to_owned())
    }

    pub async fn post(&mut self, url: &str, fields: &[(String, String)]) -> Answer {
        let url = self.reachable(url);
        let request = form(self.client.post(url), fields).header("sec-fetch-site", "same-origin");
        self.fetch(request.header("origin", "null")).await
    }

    pub async fn fetch(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header("cookie", cookies.join("; ")).build().expect("a request");
        let url = request.url().to_string();
        let answer = send(reqwest::RequestBuilder::from_parts(self.client.clone(), request)).await;
        self.seen.push((url, format!("{:?}\n{}", answer.headers, answer.text())));
        for cookie in answer.headers.get_all("set-cookie") {
            let text = cookie.to_str().expect("text").to_owned();
            let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            if text.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            self.set.push(text);
        }
        answer
    }

    fn reachable(&self, url: &str) -> String {
        match url.strip_prefix(&self.named) {
            Some(rest) => format!("{}{rest}", self.own),
            None => url.to_owned(),
        }
    }

    /// Opens an address and follows where it leads, until a page wants something or another site begins.
    pub async fn open(&mut self, url: &str) -> Place {
        self.open_until(url, "nowhere").await
    }

    /// The same, but stops before an address that begins so.
    pub async fn open_until(&mut self, url: &str, stop: &str) -> Place {
        let mut url = self.reachable(url);
        for _ in 0..20 {
            let known = url.starts_with(&self.own) || url.starts_with(&self.provider);
            if !known || url.starts_with(stop) {
                return Place::Away(url);
            }
            let answer = self.get(&url).await;
            match self.next(&url, &answer) {
                Some(next) => url = next,
                None => return Place::Page(url, answer),
            }
        }
        panic!("led around in circles: {url}");
    }

    /// Where an answer leads on to, of its own accord.
    pub fn next(&self, url: &str, answer: &Answer) -> Option<String> {
        let next = match answer.status {
            301..=308 => answer.header("location").to_owned(),
            _ => between(&answer.text(), "content=\"0;url=", "\"")?.replace("&amp;", "&"),
        };
        let mut next = url::Url::parse(url).and_then(|base| base.join(&next)).expect("a URL");
        if next.as_str().starts_with(&self.provider) && next.path().ends_with("/authorize") {
            next.query_pairs_mut().append_pair("simulated_user", &self.user);
        }
        Some(self.reachable(next.as_str()))
    }

    pub async fn submit(&mut self, url: &str, fields: &[(String, String)]) -> Place {
        self.submit_until(url, fields, "nowhere").await
    }

    pub async fn submit_until(&mut self, url: &str, fields: &[(String, String)], stop: &str) -> Place {
        let answer = self.post(url, fields).await;
        match self.next(url, &answer) {
            Some(next) => self.open_until(&next, stop).await,
            None => Place::Page(url.to_owned(), answer),
        }
    }

    /// The consent page of a request.
    pub async fn consent(&mut self, url: &str) -> Answer {
        let (_, page) = self.open(url).await.page();
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.text().contains("value=\"approve\""), "{}", page.text());
        page
    }

    /// Approves a request with these providers ticked, and goes on from there. Fails if no consent page is shown.
    pub async fn approve(&mut self, url: &str, providers: &[&str]) -> Place {
        self.approve_until(url, providers, "nowhere").await
    }

    /// The same, but stops before an address that begins so.
    pub async fn approve_until(&mut self, url: &str, providers: &[&str], stop: &str) -> Place {
        let page = self.consent(url).await;
        let url = own_path(&self.reachable(url), "/authorize");
        self.submit_until(&url, &decision(&page, "approve", providers), stop).await
    }

    /// Signs in on the user's own page.
    pub async fn sign_in(&mut self) -> Place {
        let url = format!("{}/account/sign-in", self.own);
        self.submit(&url, &[]).await
    }

    /// The user's own page.
    pub async fn account(&mut self) -> Answer {
        let url = format!("{}/account", self.own);
        self.get(&url).await
    }
}

/// The visit that an address of it belongs to.
pub fn visit_id(url: &str) -> String {
    let id = between(&format!("{url}/"), "/visit/", "/").unwrap_or_else(|| panic!("{url}"));
    assert_eq!(id.len(), 32, "{url}");
    id
}

/// Checks a page: status, heading, and how its text begins.
pub fn assert_page(answer: &Answer, status: u16, title: &str, what: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(text.contains(&format!("<h1>{title}</h1><p>{what}")), "{title}: {what}: {text}");
}

/// Checks what a page says of what has just gone wrong, and how it begins.
pub fn assert_notice(answer: &Answer, title: &str, what: &str) {
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}");
    let said = format!("<p><strong>{title}</strong></p><p>{what}");
    assert!(text.contains("role=\"alert\"") && text.contains(&said), "{title}: {what}: {text}");
}

/// The cards of a page, in their order.
pub fn cards<const COUNT: usize>(page: &str) -> [&str; COUNT] {
    let cards: Vec<&str> = page.split("<section class=\"card\"").skip(1).collect();
    cards.try_into().unwrap_or_else(|_| panic!("not {COUNT} cards: {page}"))
}
