//! A user with a client app: does the right thing at each company, so that a test can do one thing wrong.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sidekey_simulator::{Counters, Grant, Options, RefreshToken, Simulator, start};

use crate::client::{Answer, request};

pub const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// Appendix B of RFC 7636.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub struct User {
    pub simulator: Simulator,
    pub profile: &'static str,
}

#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl User {
    pub async fn of(profile: &'static str) -> User {
        User { simulator: start(Options::default()).await.unwrap(), profile }
    }

    pub async fn get(&self, target: &str) -> Answer {
        request(self.simulator.address(), "GET", target, &[], "").await
    }

    /// An authorization request; `changes` replace parameters, an empty value removes one.
    pub async fn authorize(&self, changes: &[(&str, &str)]) -> Answer {
        let client_id = self.simulator.settings(self.profile).client_id;
        let usual = [
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", REDIRECT),
            ("scope", "read write"),
            ("state", "some-state"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
            ("prompt", "consent"),
        ];
        let query = form(&changed(&usual, changes));
        self.get(&format!("/{}/authorize?{query}", self.profile)).await
    }

    pub async fn code(&self) -> String {
        self.authorize(&[]).await.redirected("code").unwrap()
    }

    pub async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.token(&changed(&usual, changes), &[]).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        let mut parameters = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        if self.profile == "gitlab" {
            parameters.push(("redirect_uri", REDIRECT));
        }
        self.token(&parameters, &[]).await
    }

    pub async fn connect(&self) -> Tokens {
        tokens(&self.exchange(&self.code().await, &[]).await)
    }

    /// A token request with the company's kind of authentication and encoding.
    pub async fn token(&self, parameters: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let settings = self.simulator.settings(self.profile);
        let mut parameters = parameters.to_vec();
        let mut headers = headers.to_vec();
        let basic = self.basic();
        if self.profile.starts_with("github") || self.profile == "gitlab" {
            parameters.push(("client_id", &settings.client_id));
            parameters.push(("client_secret", &settings.client_secret));
        } else {
            headers.push(("authorization", &basic));
        }
        if !headers.iter().any(|(name, _)| *name == "accept") {
            headers.push(("accept", "application/json"));
        }
        let (content_type, body) = match self.profile {
            "notion" => ("application/json", json(&parameters)),
            _ => ("application/x-www-form-urlencoded", form(&parameters)),
        };
        headers.push(("content-type", content_type));
        self.post(&format!("/{}/token", self.profile), &headers, &body).await
    }

    pub fn basic(&self) -> String {
        let settings = self.simulator.settings(self.profile);
        let pair = format!("{}:{}", settings.client_id, settings.client_secret);
        format!("Basic {}", STANDARD.encode(pair))
    }

    pub async fn post(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request(self.simulator.address(), "POST", target, headers, body).await
    }

    /// A call to `path` below the API root.
    pub async fn api(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, token, "").await
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let target = format!("/{}/api{path}", self.profile);
        request(self.simulator.address(), method, &target, &[("authorization", &bearer)], body).await
    }

    pub async fn accepts(&self, token: &str) -> bool {
        self.api("/echo", token).await.status == Some(200)
    }

    pub fn counters(&self) -> Counters {
        self.simulator.ledger().profile(self.profile).counters.clone()
    }

    pub fn grant(&self) -> Grant {
        self.simulator.ledger().profile(self.profile).last_grant().unwrap().clone()
    }

    pub fn newest_refresh_token(&self) -> RefreshToken {
        self.grant().refresh_tokens.last().unwrap().clone()
    }
}

pub fn tokens(answer: &Answer) -> Tokens {
    assert_eq!(answer.status, Some(200), "{answer:?}");
    let reply = answer.json();
    let text = |name: &str| reply[name].as_str().unwrap_or_default().to_owned();
    assert!(!text("access_token").is_empty(), "{reply}");
    Tokens { access: text("access_token"), refresh: text("refresh_token") }
}

pub async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

pub fn form(parameters: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(parameters).finish()
}

fn json(parameters: &[(&str, &str)]) -> String {
    let fields: Map<String, Value> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    Value::Object(fields).to_string()
}

fn changed<'a>(usual: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = usual.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name));
    let added = changes.iter().filter(|(_, value)| !value.is_empty());
    kept.chain(added).copied().collect()
}
