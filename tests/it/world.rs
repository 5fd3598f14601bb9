//! A Sidekey and a simulated provider, started for one test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sidekey::base::clock::{Clock, SystemClock, Timestamp};
use sidekey::base::files::create_private;
use sidekey::base::random::SystemRandom;
use sidekey::config::{self, Settings};
use sidekey::server::{self, Environment, Running};
use sidekey::store::keyring::generate_key;
use sidekey_simulator::{Options, Profile, Simulator};

use crate::client::{Answer, http, send};

/// How a world differs from the usual one.
#[derive(Default)]
pub struct Setup {
    /// Further lines of the configuration, before the first table.
    pub top: String,
    /// Further tables.
    pub tables: String,
    /// Further lines of `[authorize]` in the provider files, by provider.
    pub authorize: Vec<(&'static str, &'static str)>,
    /// The subject of callers without a handle.
    pub fixed_subject: Option<&'static str>,
    /// Further lines of `[egress]`.
    pub egress: String,
    /// With real host names: where this one leads instead, and what its certificate is to be judged by (PEM).
    pub led: Option<(&'static str, SocketAddr, String)>,
    /// Further providers: the name, and an entry in which `SIMULATOR` stands for the simulator's URL. All are registered as
    /// clients of the profile `generic`, with these lines in their tables.
    pub providers: Vec<(&'static str, &'static str, &'static str)>,
}

/// The files of a Sidekey whose providers are all simulated.
pub struct Files {
    pub home: tempfile::TempDir,
    pub config: PathBuf,
    pub public: SocketAddr,
    pub egress: SocketAddr,
    pub metrics: SocketAddr,
}

/// A running Sidekey and its provider.
pub struct World {
    pub simulator: Simulator,
    pub files: Files,
    pub sidekey: Running,
    pub client: reqwest::Client,
}

/// The providers that are simulated: name of the profile, and its API.
const PROVIDERS: [(&str, &str); 4] =
    [("quickbooks", "quickbooks"), ("github", "github"), ("gitlab", "gitlab"), ("notion", "notion")];

/// An address that nothing listens at.
pub fn free_address() -> SocketAddr {
    free_listener().local_addr().expect("bound")
}

/// Serves this until the test ends.
pub fn serve_at(listener: std::net::TcpListener, router: axum::Router) {
    listener.set_nonblocking(true).expect("set");
    let listener = tokio::net::TcpListener::from_std(listener).expect("taken over");
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// A listener at an address of its own. Whoever listens keeps it: an address that was let go may stay in use for a moment,
/// in a child process that is just being started. Its port is below those that outgoing connections are given, or one of the many
/// connections of the tests could take it before a Sidekey does.
pub fn free_listener() -> std::net::TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(1009));
        let port = 10_000 + u16::try_from(number % 22_000).expect("small");
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
}

impl Files {
    /// Writes configuration, key and provider files that point at the simulator.
    pub fn write(simulator: &str, setup: &Setup) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let [public, egress, metrics] = [free_address(), free_address(), free_address()];
        let subject = setup.fixed_subject.map_or_else(String::new, |subject| format!("subject = \"{subject}\"\n"));
        let mut config = format!(
            "provider_directory = \"providers\"\n{}\n[public]\nlisten = \"{public}\"\n[egress]\nlisten = \"{egress}\"\n{subject}{}\n\
             [metrics]\nlisten = \"{metrics}\"\n[store]\nkeys = [\"file:sidekey.key\"]\n{}\n",
            setup.top, setup.egress, setup.tables
        );
        std::fs::create_dir(home.path().join("providers")).expect("made");
        for (name, api) in PROVIDERS {
            let settings = sidekey_simulator::Settings::of(Profile::from_name(name).expect("a profile"));
            config.push_str(&format!(
                "[providers.{name}]\nclient_id = \"{}\"\nclient_secret = \"file:{name}.secret\"\n",
                settings.client_id
            ));
            create_private(&home.path().join(format!("{name}.secret")), settings.client_secret.as_bytes())
                .expect("written");
            let more = setup.authorize.iter().find(|(entry, _)| *entry == name).map_or("", |(_, more)| more);
            let api = if name == "quickbooks" {
                format!("environments.production.apis.{api}")
            } else {
                format!("apis.{api}")
            };
            let revoke = match name {
                "github" => "/api/applications/{client_id}/token",
                _ => "/revoke",
            };
            let table = if name == "quickbooks" { "environments.production.userinfo" } else { "userinfo" };
            let userinfo = match more.contains(&format!("[{table}]")) {
                true => String::new(),
                false => format!("[{table}]\nurl = \"{simulator}/{name}/userinfo\"\n"),
            };
            let entry = format!(
                "extends = \"{name}\"\n{userinfo}[authorize]\nurl = \"{simulator}/{name}/authorize\"\n{more}\n\
                 [token]\nurl = \"{simulator}/{name}/token\"\n[revoke]\nurl = \"{simulator}/{name}{revoke}\"\n\
                 [{api}]\norigin = \"{simulator}\"\nbase_path = \"/{name}/api\"\n"
            );
            std::fs::write(home.path().join(format!("providers/{name}.toml")), entry).expect("written");
        }
        for (name, entry, table) in &setup.providers {
            let client = sidekey_simulator::Settings::of(Profile::Generic);
            config.push_str(&format!(
                "[providers.{name}]\nclient_id = \"{}\"\nclient_secret = \"file:{name}.secret\"\n{table}\n",
                client.client_id
            ));
            create_private(&home.path().join(format!("{name}.secret")), client.client_secret.as_bytes())
                .expect("written");
            std::fs::write(home.path().join(format!("providers/{name}.toml")), entry.replace("SIMULATOR", simulator))
                .expect("written");
        }
        let path = home.path().join("sidekey.toml");
        create_private(&path, config.as_bytes()).expect("written");
        create_private(&home.path().join("sidekey.key"), generate_key(&SystemRandom).expose().as_bytes())
            .expect("written");
        Self { home, config: path, public, egress, metrics }
    }

    pub fn settings(&self) -> Settings {
        config::load(&self.config, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    /// Declares another rule of rotation for a provider whose entry says nothing of it here.
    pub fn declare_rotation(&self, provider: &str, model: &str) {
        let entry = self.home.path().join(format!("providers/{provider}.toml"));
        let text = std::fs::read_to_string(&entry).expect("there");
        std::fs::write(&entry, format!("{text}[rotation]\nmodel = \"{model}\"\n")).expect("written");
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

impl World {
    /// The usual world, in real time.
    pub async fn start() -> Self {
        Self::with(Setup::default(), Arc::new(SystemClock)).await
    }

    /// A world set up differently.
    pub async fn with(setup: Setup, clock: Arc<dyn Clock>) -> Self {
        let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
        Self::on(simulator, setup, clock).await
    }

    /// A world on a simulator that runs already.
    pub async fn on(simulator: Simulator, setup: Setup, clock: Arc<dyn Clock>) -> Self {
        let files = Files::write(&simulator.url(), &setup);
        let settings = files.settings();
        let environment = Environment { clock, ..Environment::system(&settings).expect("an environment") };
        let sidekey = server::start(settings, environment).await.expect("it starts");
        Self { simulator, files, sidekey, client: http() }
    }

    pub fn public(&self, path: &str) -> String {
        format!("http://{}{path}", self.files.public)
    }

    pub fn egress(&self, path: &str) -> String {
        format!("http://{}{path}", self.files.egress)
    }

    /// Makes a connect link.
    pub async fn link(&self, provider: &str, subject: &str) -> String {
        let body = serde_json::json!({ "provider": provider, "subject": subject });
        let answer = self.admin("POST", "/v1/connect-links", &body.to_string()).await;
        answer.json()["url"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    }

    /// Issues a handle for all providers of a subject; its id and itself.
    pub async fn handle(&self, subject: &str) -> (String, String) {
        let body = serde_json::json!({ "subject": subject });
        let answer = self.admin("POST", "/v1/handles", &body.to_string()).await.json();
        let text = |key: &str| answer[key].as_str().expect("there").to_owned();
        (text("id"), text("handle"))
    }

    /// Asks the admin socket.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        admin(&self.sidekey.admin_socket, method, path, body).await
    }

    /// Walks the dance as a browser would, to the end.
    pub async fn connect(&self, provider: &str, subject: &str) {
        let callback = self.callback_url(&self.begin(provider, subject).await).await;
        let answer = self.callback(&callback.0, &callback.1).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }

    /// Opens a link and continues: where the provider is, and the cookie.
    pub async fn begin(&self, provider: &str, subject: &str) -> (String, String) {
        let link = self.link(provider, subject).await;
        let begun = send(self.client.post(&link)).await;
        assert_eq!(begun.status, 303, "{}", begun.text());
        let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        (begun.header("location").to_owned(), cookie)
    }

    /// Agrees at the provider: the callback URL, and the cookie.
    pub async fn callback_url(&self, begun: &(String, String)) -> (String, String) {
        let agreed = send(self.client.get(&begun.0)).await;
        assert_eq!(agreed.status, 302, "{}", agreed.text());
        (agreed.header("location").to_owned(), begun.1.clone())
    }

    /// Comes back from the provider.
    pub async fn callback(&self, url: &str, cookie: &str) -> Answer {
        send(self.client.get(url).header("cookie", cookie)).await
    }

    /// The connections of a subject, as `sidekey status` shows them.
    pub async fn connections(&self, subject: &str) -> Vec<serde_json::Value> {
        let status = self.admin("GET", &format!("/v1/status?subject={subject}"), "").await.json();
        status["connections"].as_array().cloned().unwrap_or_default()
    }

    /// The metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        send(self.client.get(format!("http://{}/metrics", self.files.metrics))).await.text()
    }

    /// Calls the API with a handle.
    pub async fn call(&self, handle: &str, path: &str) -> Answer {
        send(self.client.get(self.egress(path)).bearer_auth(handle)).await
    }

    /// A subject that is connected to a provider, and a handle of it.
    pub async fn connected(&self, provider: &str, subject: &str) -> String {
        self.connect(provider, subject).await;
        self.handle(subject).await.1
    }

    pub async fn stop(self) {
        self.sidekey.stop().await;
        self.simulator.stop().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is a client of the admin socket")]
pub async fn admin(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    http(); // the TLS provider
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).build().expect("a client");
    let method = method.parse().expect("a method");
    let request = client.request(method, format!("http://localhost{path}")).header("content-type", "application/json");
    send(request.body(body.to_owned())).await
}

/// Waits in real time.
#[expect(clippy::disallowed_methods, reason = "tests of whole processes live in real time")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Asks again until the answer is yes; a test fails after ten seconds of no.
pub async fn eventually(what: &str, mut asked: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if asked().await {
            return;
        }
        pause(Duration::from_millis(50)).await;
    }
    panic!("it did not come true within ten seconds: {what}");
}

/// The present, for clocks that are moved by hand.
pub fn now() -> Timestamp {
    SystemClock.now()
}
