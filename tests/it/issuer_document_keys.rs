//! Keys that clients publish at a URL: fetched when they are needed, found when they are new, and kept when the site is not
//! there.

use std::time::Duration;

use serde_json::{Value, json};
use sidekey::base::clock::ManualClock;
use sidekey::base::jws::Signer;

use crate::client::Answer;
use crate::document_server::{DocumentServer, Reply};
use crate::front::{Front, Tokens, assert_oauth_error};
use crate::issuer_support::{
    ASSERTION_TYPE, Stage, assertion_claims, get, is_taken, key_set, redeem_as, signed, signer,
};

struct Keyed {
    server: DocumentServer,
    front: Front,
    clock: ManualClock,
    id: String,
}

const KEYS: &str = "/jwks.json";

impl Keyed {
    /// A documented client with these keys at a URL.
    async fn start(keys: &[&Signer]) -> Self {
        let server = DocumentServer::start();
        let (stage, clock) = Stage::with_clock();
        let front = Stage { documents: server.client(), ..stage }.start().await;
        let id = publish(&server, "/client.json", ("jwks_uri", json!(server.url(KEYS))));
        let keyed = Self { server, front, clock, id };
        keyed.put_keys(keys);
        keyed.visit().await;
        keyed
    }

    /// The token endpoint fetches no documents: a client is known from when its user came.
    async fn visit(&self) {
        let answer = get(&self.front, &self.front.authorize_url(&self.id, &[])).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn put_keys(&self, keys: &[&Signer]) {
        self.server.put(KEYS, Reply::json(&key_set(keys)).with("cache-control", "max-age=3600"));
    }

    /// A refresh that fails with `invalid_grant` if the signature is believed, and otherwise with `invalid_client`.
    async fn try_out(&self, key: &Signer) -> Answer {
        let mut claims = assertion_claims(&self.front, &self.id);
        let seconds = sidekey::base::clock::Clock::now(&self.clock).as_seconds();
        (claims["iat"], claims["exp"]) = (json!(seconds), json!(seconds + 60));
        let assertion = signed(key, &claims);
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", "x"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", &*assertion),
        ];
        self.front.post_form("/token", &form).await
    }

    async fn assert_believed(&self, key: &Signer) {
        assert_oauth_error(&self.try_out(key).await, 400, "invalid_grant");
    }

    async fn assert_not_believed(&self, key: &Signer) {
        assert_oauth_error(&self.try_out(key).await, 401, "invalid_client");
    }

    fn fetches(&self) -> usize {
        self.server.requests().iter().filter(|path| *path == KEYS).count()
    }
}

fn publish(server: &DocumentServer, path: &str, member: (&str, Value)) -> String {
    server.publish(path, &[("token_endpoint_auth_method", json!("private_key_jwt")), member])
}

#[tokio::test]
async fn a_documented_client_signs_with_the_keys_that_it_publishes() {
    let (key, evil) = (signer(), signer());
    let keyed = Keyed::start(&[&key]).await;
    let assertion = signed(&key, &assertion_claims(&keyed.front, &keyed.id));
    let fields = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*assertion)];
    let tokens = Tokens::of(keyed.id.clone(), &redeem_as(&keyed.front, &keyed.id, &fields, None).await);
    assert!(is_taken(&keyed.front, &tokens.access).await);
    keyed.assert_not_believed(&evil).await;
    assert_oauth_error(&keyed.front.refresh(&keyed.id, &tokens.refresh).await, 401, "invalid_client");
    keyed.front.stop().await;
}

#[tokio::test]
async fn a_document_may_hold_the_keys_itself() {
    let (key, other) = (signer(), signer());
    let mut keyed = Keyed::start(&[&other]).await;
    keyed.id = publish(&keyed.server, "/inline.json", ("jwks", key_set(&[&key])));
    keyed.visit().await;
    keyed.assert_believed(&key).await;
    keyed.assert_not_believed(&other).await;
    assert_eq!(keyed.fetches(), 0);
    keyed.front.stop().await;
}

#[tokio::test]
async fn a_new_key_is_found_before_the_old_set_is_stale() {
    let (first, second) = (signer(), signer());
    let keyed = Keyed::start(&[&first]).await;
    keyed.assert_believed(&first).await;
    keyed.put_keys(&[&second]);
    keyed.clock.advance(Duration::from_secs(60));
    keyed.assert_believed(&first).await;
    keyed.assert_believed(&second).await;
    keyed.assert_not_believed(&first).await;
    keyed.front.stop().await;
}

/// Otherwise anybody could have us send a request to the client's site for each one that they send to us.
#[tokio::test]
async fn bad_signatures_have_the_keys_fetched_once_a_minute() {
    let (key, evil) = (signer(), signer());
    let keyed = Keyed::start(&[&key]).await;
    keyed.assert_believed(&key).await;
    for minute in 1..=3 {
        for _ in 0..10 {
            keyed.assert_not_believed(&evil).await;
        }
        assert_eq!(keyed.fetches(), minute);
        keyed.clock.advance(Duration::from_secs(60));
    }
    keyed.front.stop().await;
}

#[tokio::test]
async fn the_last_good_keys_serve_while_the_site_does_not() {
    let (key, evil) = (signer(), signer());
    let keyed = Keyed::start(&[&key]).await;
    keyed.assert_believed(&key).await;
    keyed.server.put(KEYS, Reply::new(503, "text/html", Vec::new()));
    keyed.clock.advance(Duration::from_secs(61));
    keyed.assert_not_believed(&evil).await;
    keyed.assert_believed(&key).await;
    keyed.clock.advance(Duration::from_secs(3600));
    keyed.assert_believed(&key).await;
    // But not for ever: a key that was taken back must not stay good because its site is kept from saying so.
    keyed.clock.advance(Duration::from_secs(86_400));
    keyed.assert_not_believed(&key).await;
    keyed.put_keys(&[&key]);
    keyed.assert_believed(&key).await;
    keyed.front.stop().await;
}

#[tokio::test]
async fn keys_are_fetched_from_the_public_internet_only() {
    let key = signer();
    let mut keyed = Keyed::start(&[&key]).await;
    for (number, uri) in ["https://10.0.0.1/jwks.json", "https://[fd00::1]/jwks.json", "https://169.254.169.254/x"]
        .into_iter()
        .enumerate()
    {
        keyed.id = publish(&keyed.server, &format!("/{number}.json"), ("jwks_uri", json!(uri)));
        keyed.visit().await;
        keyed.assert_not_believed(&key).await;
    }
    for (what, reply) in [
        ("private", Reply::json(&json!({ "keys": [{ "kty": "oct", "k": "x" }] }))),
        ("no set", Reply::json(&json!([]))),
        ("no JSON", Reply::new(200, "application/json", b"x".to_vec())),
        ("a page", Reply::new(200, "text/html", key_set(&[&key]).to_string().into_bytes())),
        ("a detour", Reply::json(&json!({})).with("location", &keyed.server.url(KEYS))),
    ] {
        let path = format!("/{what}.jwks").replace(' ', "-");
        let status = if what == "a detour" { 302 } else { reply.status };
        keyed.server.put(&path, Reply { status, ..reply });
        keyed.id = publish(&keyed.server, &format!("{path}.json"), ("jwks_uri", json!(keyed.server.url(&path))));
        keyed.visit().await;
        keyed.assert_not_believed(&key).await;
    }
    assert_eq!(keyed.fetches(), 0);
    keyed.front.stop().await;
}
