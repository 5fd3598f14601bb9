//! What the tests of the issuer share: fronts with files, clocks and networks of their own, restarts, and clients that
//! prove who they are.

use std::sync::Arc;

use serde_json::{Value, json};
use sidekey::base::clock::{Clock, ManualClock, SystemClock};
use sidekey::base::files::create_private;
use sidekey::base::http::HttpClient;
use sidekey::base::jws::{Signer, generate_p256};
use sidekey::base::random::{self, SystemRandom};
use sidekey::server::{self, Environment, Running};

use crate::client::{Answer, http, send};
use crate::front::{Front, McpServer, REDIRECT_URI, Tokens, VERIFIER, assert_oauth_error, parameter};
use crate::world::{Files, Setup, World, now};

/// `client_assertion_type` of RFC 7523.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A front to be started. Its limits are out of reach unless `tables` says otherwise.
pub struct Stage {
    /// Further lines of `[issuer]`.
    pub issuer: String,
    /// Further lines of `[servers.notes]`.
    pub server: String,
    /// Further tables.
    pub tables: String,
    /// Files beside the configuration.
    pub files: Vec<(String, String)>,
    pub clock: Arc<dyn Clock>,
    /// Fetches client documents; the one of a real Sidekey if there is none.
    pub documents: Option<Arc<dyn HttpClient>>,
}

impl Default for Stage {
    fn default() -> Self {
        let [issuer, server, tables] = [const { String::new() }; 3];
        Self { issuer, server, tables, files: Vec::new(), clock: Arc::new(SystemClock), documents: None }
    }
}

impl Stage {
    /// One whose time is moved by hand.
    pub fn with_clock() -> (Self, ManualClock) {
        let clock = ManualClock::at(now());
        (Self { clock: Arc::new(clock.clone()), ..Self::default() }, clock)
    }

    pub async fn start(self) -> Front {
        let server = McpServer::start().await;
        let Self { issuer, server: more, tables, files: further, clock, documents } = self;
        let limits = match tables.contains("[limits]") {
            true => "",
            false => "[limits]\nfailures_per_address = \"100000/1m\"\nregistrations_per_address = \"100000/1m\"\n",
        };
        let tables = format!(
            "[issuer]\nidentity = \"notion\"\n{issuer}\n[servers.notes]\nupstream = \"{}\"\n\
             providers = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n{more}\n{tables}\n{limits}",
            server.url
        );
        let simulator = sidekey_simulator::start(sidekey_simulator::Options::default()).await.expect("a simulator");
        let files = Files::write(&simulator.url(), &Setup { tables, ..Setup::default() });
        for (name, content) in further {
            let path = files.home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            create_private(&path, content.as_bytes()).expect("written");
        }
        let sidekey = serve(&files, clock, documents).await;
        let world = World { simulator, files, sidekey, client: http() };
        server.set_egress(&world.egress(""));
        Front { world, server }
    }
}

/// The usual front, with limits that no test reaches.
pub async fn front() -> Front {
    Stage::default().start().await
}

async fn serve(files: &Files, clock: Arc<dyn Clock>, documents: Option<Arc<dyn HttpClient>>) -> Running {
    let settings = files.settings();
    let system = Environment::system(&settings).expect("an environment");
    let documents = documents.unwrap_or_else(|| Arc::clone(&system.documents));
    server::start(settings, Environment { clock, documents, ..system }).await.expect("it starts")
}

/// Stops the Sidekey and starts another one on the same data.
pub async fn restarted(front: Front, clock: Arc<dyn Clock>, documents: Option<Arc<dyn HttpClient>>) -> Front {
    let Front { world: World { simulator, files, sidekey, client }, server } = front;
    sidekey.stop().await;
    let sidekey = serve(&files, clock, documents).await;
    Front { world: World { simulator, files, sidekey, client }, server }
}

/// Whether the MCP endpoint takes an access token.
pub async fn is_taken(front: &Front, access_token: &str) -> bool {
    let answer = front.call(access_token, "ping", json!({})).await;
    assert!(matches!(answer.status, 200 | 401), "{} {}", answer.status, answer.text());
    answer.status == 200
}

/// Checks that nothing of what a client was given is of use any more.
pub async fn assert_dead(front: &Front, tokens: &Tokens) {
    let answer = front.call(&tokens.access, "ping", json!({})).await;
    assert_eq!(answer.status, 401, "the access token: {}", answer.text());
    assert_oauth_error(&front.refresh(&tokens.client_id, &tokens.refresh).await, 400, "invalid_grant");
}

/// The state and the reason of the only grant there is.
pub async fn only_grant(front: &Front) -> (String, String) {
    let grants = front.grants().await;
    assert_eq!(grants.len(), 1, "{grants:?}");
    let text = |name: &str| grants[0][name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// Fetches an address as it is, without cookies.
pub async fn get(front: &Front, url: &str) -> Answer {
    send(front.world.client.get(url)).await
}

/// Sends a form with a request that is prepared already.
pub async fn post(front: &Front, path: &str, fields: &[(&str, &str)], header: Option<(&str, &str)>) -> Answer {
    let mut request = crate::client::form(front.world.client.post(front.world.public(path)), fields);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    send(request).await
}

/// `Authorization: Basic`
pub fn basic(id: &str, secret: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

pub fn signer() -> Signer {
    Signer::from_pem(&generate_p256().expect("a key")).expect("a signer")
}

/// The public keys of signers, as a JWK set.
pub fn key_set(signers: &[&Signer]) -> Value {
    let keys: Vec<&Value> = signers.iter().map(|signer| signer.public_jwk()).collect();
    json!({ "keys": keys })
}

/// The claims of a good assertion of this client.
pub fn assertion_claims(front: &Front, client_id: &str) -> Value {
    let seconds = now().as_seconds();
    json!({
        "iss": client_id,
        "sub": client_id,
        "aud": front.world.public(""),
        "iat": seconds,
        "exp": seconds + 60,
        "jti": random::secret(&SystemRandom).expose(),
    })
}

/// Claims as a signed assertion.
pub fn signed(signer: &Signer, claims: &Value) -> String {
    signer.sign("JWT", claims).expect("signed").expose().to_owned()
}

/// A user's authorization of a client that shows who it is with these fields or this header.
pub async fn redeem_as(
    front: &Front,
    client_id: &str,
    fields: &[(&str, &str)],
    header: Option<(&str, &str)>,
) -> Answer {
    let code = front.code(client_id, "alice").await;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    form.extend(fields);
    post(front, "/token", &form, header).await
}

/// Checks that nobody is sent anywhere: a page of ours says what is wrong.
pub fn assert_page(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    assert!(!answer.headers.contains_key("location"), "{what}: {:?}", answer.headers);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{what}");
    assert!(!answer.text().contains("http-equiv"), "{what}: {}", answer.text());
}

/// Checks that the client is told of an error, and everything that such an answer holds.
pub fn assert_redirect(front: &Front, answer: &Answer, error: &str, what: &str) {
    assert_eq!(answer.status, 303, "{what}: {}", answer.text());
    let location = answer.header("location");
    assert!(location.starts_with(&format!("{REDIRECT_URI}?")), "{what}: {location}");
    assert_eq!(parameter(location, "error").as_deref(), Some(error), "{what}: {location}");
    assert_eq!(parameter(location, "state").as_deref(), Some("the state"), "{what}: {location}");
    assert_eq!(parameter(location, "iss"), Some(front.world.public("")), "{what}: {location}");
    assert!(parameter(location, "error_description").is_some(), "{what}: {location}");
    assert_eq!(parameter(location, "code"), None, "{what}: {location}");
}
