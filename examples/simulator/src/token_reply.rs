//! What a token reply looks like at each company.

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::clock;
use crate::company::{Answer, Company, filled, usual_value};
use crate::id_token;
use crate::profile::Profile;
use crate::random;
use crate::reply::{self, Reply, whole, with_header};
use crate::rotation::Issued;
use crate::server::Call;
use crate::settings::Settings;
use crate::slack;
use crate::state::Delivery;
use crate::user;

/// A definite refusal of a token request.
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) description: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    InvalidClient,
    InvalidRequest,
    UnsupportedGrantType,
    BadCode,
    RedirectMismatch,
    BadRefreshToken,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, description: impl Into<String>) -> Refusal {
        Refusal { kind, description: description.into() }
    }
}

/// The reply with new tokens. It reports to the ledger whether it got out.
pub(crate) fn success(call: &Call, headers: &HeaderMap, issued: Issued) -> Reply {
    let settings = call.shared.lock().settings(call.profile);
    let mut fields = match call.profile.company() {
        Some(company) => described(company, &settings, &issued),
        None => fields(call.profile, &settings, headers, &issued),
    };
    if let Some(token) = id_token::of(call, &settings, &issued) {
        fields.insert("id_token".to_owned(), json!(token));
    }
    let mut reply = encoded(call.profile, headers, 200, fields);
    if let (Some((_, place)), Some(id)) = (issued.refresh_token, issued.refresh_token_id) {
        let delivery = Delivery::new(&call.shared, call.profile, place, id);
        reply.extensions_mut().insert(delivery);
    }
    reply
}

fn fields(profile: Profile, settings: &Settings, headers: &HeaderMap, issued: &Issued) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    let lifetime = settings.access_lifetime_s;
    // A positive lifetime is never announced as nothing.
    let expires_in = (lifetime > 0.0).then(|| (lifetime as u64).max(1));
    set("access_token", json!(issued.access_token));
    set("token_type", json!(token_type(profile)));
    if let Some(seconds) = expires_in.filter(|_| profile != Profile::Notion) {
        set("expires_in", json!(seconds));
    }
    if let Some((value, _)) = &issued.refresh_token {
        set("refresh_token", json!(value));
    }
    if let Some((access_token, refresh_token)) = &issued.of_user {
        let tokens = json!({
            "id": if profile == Profile::Slack { slack::id('U', &issued.user) } else { issued.user.clone() },
            "scope": issued.user_scope, "token_type": "user",
            "access_token": access_token, "refresh_token": refresh_token, "expires_in": expires_in,
        });
        set("authed_user", tokens);
    }
    match profile {
        Profile::Quickbooks => {
            if let Some(seconds) = issued.refresh_expires_in_s {
                set("x_refresh_token_expires_in", json!(seconds));
            }
            let wanted = headers
                .get("x-include-refresh-token-hard-expires-in")
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
            if let Some(seconds) = issued.refresh_hard_expires_in_s.filter(|_| wanted) {
                set("x_refresh_token_hard_expires_in", json!(seconds));
            }
        }
        Profile::Github | Profile::GithubOauthApp => {
            if let Some(seconds) = issued.refresh_expires_in_s {
                set("refresh_token_expires_in", json!(seconds));
            }
            set("scope", json!(scopes(issued).join(",")));
        }
        Profile::Microsoft => {
            set("ext_expires_in", json!(expires_in));
            set("scope", json!(issued.scope));
        }
        Profile::Google => {
            set("scope", json!(issued.scope));
        }
        Profile::Notion => {
            set("bot_id", json!(format!("bot-of-{}", issued.grant_id)));
            set("workspace_id", json!(issued.realm));
            set("workspace_name", json!("Simulated workspace"));
            set("workspace_icon", Value::Null);
            set("duplicated_template_id", Value::Null);
            set("owner", user::notion_owner(&issued.user));
        }
        Profile::Gitlab => {
            set("scope", json!(issued.scope));
            set("created_at", json!(clock::now_ms() / 1000));
        }
        Profile::Slack => {
            set("ok", json!(true));
            set("scope", json!(scopes(issued).join(",")));
            set("bot_user_id", json!(slack::id('B', &issued.grant_id)));
            set("app_id", json!("A0SIMULATED"));
            set("team", json!({"id": issued.realm, "name": "Simulated workspace"}));
            set("enterprise", Value::Null);
            set("is_enterprise_install", json!(false));
            if issued.sign_in.is_some() && issued.of_user.is_none() {
                set("authed_user", json!({"id": slack::id('U', &issued.user)}));
            }
        }
        Profile::Generic | Profile::Described(_) => {
            if !issued.scope.is_empty() {
                set("scope", json!(issued.scope));
            }
        }
    }
    fields
}

/// What the company's file says.
fn described(company: &Company, settings: &Settings, issued: &Issued) -> Map<String, Value> {
    let values = |name: &str| match name {
        "access_token" => Some(json!(issued.access_token)),
        "refresh_token" => issued.refresh_token.as_ref().map(|(value, _)| json!(value)),
        "expires_in" => (settings.access_lifetime_s > 0.0).then(|| json!((settings.access_lifetime_s as u64).max(1))),
        "refresh_expires_in" => issued.refresh_expires_in_s.map(|seconds| json!(seconds)),
        "scope" => Some(json!(scopes(issued).join(&company.token.scope_separator))),
        "realm" => Some(json!(issued.realm)),
        "user" => Some(json!(issued.user)),
        "user_id" => Some(json!(random::uuid_of(&issued.user))),
        "grant" => Some(json!(issued.grant_id)),
        _ => usual_value(name),
    };
    let template = match (&issued.sign_in, &company.token.refresh_reply) {
        (None, Some(refresh_reply)) => refresh_reply,
        _ => &company.token.reply,
    };
    match filled(&template.0, &values) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn token_type(profile: Profile) -> &'static str {
    match profile {
        Profile::Slack => "bot",
        Profile::Quickbooks | Profile::Github | Profile::GithubOauthApp | Profile::Notion => "bearer",
        Profile::Microsoft | Profile::Google | Profile::Gitlab | Profile::Generic | Profile::Described(_) => "Bearer",
    }
}

fn scopes(issued: &Issued) -> Vec<&str> {
    issued.scope.split([' ', ',']).filter(|s| !s.is_empty()).collect()
}

/// A refusal with the company's own code and status.
pub(crate) fn refusal(profile: Profile, headers: &HeaderMap, refusal: &Refusal) -> Reply {
    if let Some(answer) = profile.company().and_then(|company| described_refusal(company, refusal.kind)) {
        let described = |name: &str| (name == "description").then(|| json!(refusal.description));
        return answer.reply(&|name| described(name).or_else(|| usual_value(name)));
    }
    let github = profile.is_github();
    let slack = profile == Profile::Slack;
    let code = match refusal.kind {
        RefusalKind::InvalidClient if slack => "bad_client_secret",
        RefusalKind::UnsupportedGrantType if slack => "invalid_grant_type",
        RefusalKind::BadCode if slack => "invalid_code",
        RefusalKind::RedirectMismatch if slack => "bad_redirect_uri",
        RefusalKind::BadRefreshToken if slack => "invalid_refresh_token",
        RefusalKind::InvalidClient if github => "incorrect_client_credentials",
        RefusalKind::InvalidClient => "invalid_client",
        RefusalKind::InvalidRequest => "invalid_request",
        RefusalKind::UnsupportedGrantType => "unsupported_grant_type",
        RefusalKind::BadCode if github => "bad_verification_code",
        RefusalKind::RedirectMismatch if github => "redirect_uri_mismatch",
        RefusalKind::BadRefreshToken if github => "bad_refresh_token",
        RefusalKind::BadCode | RefusalKind::RedirectMismatch | RefusalKind::BadRefreshToken => "invalid_grant",
    };
    error(profile, headers, code, Some(&refusal.description), None)
}

fn described_refusal(company: &'static Company, kind: RefusalKind) -> Option<&'static Answer> {
    let refusals = &company.refusals;
    let answer = match kind {
        RefusalKind::InvalidClient => &refusals.invalid_client,
        RefusalKind::InvalidRequest => &refusals.invalid_request,
        RefusalKind::UnsupportedGrantType => &refusals.unsupported_grant_type,
        RefusalKind::BadCode => &refusals.bad_code,
        RefusalKind::RedirectMismatch => &refusals.redirect_mismatch,
        RefusalKind::BadRefreshToken => &refusals.bad_refresh_token,
    };
    answer.as_ref()
}

/// An error reply in the company's shape.
pub(crate) fn error(
    profile: Profile,
    headers: &HeaderMap,
    code: &str,
    description: Option<&str>,
    status: Option<u16>,
) -> Reply {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("error", json!(code));
    let described = description.unwrap_or("The simulator refused.");
    match profile {
        Profile::Microsoft => {
            let number = match code {
                "invalid_grant" => 70008,
                "invalid_client" => 7_000_215,
                "interaction_required" => 50076,
                _ => 900_144,
            };
            let text = format!("AADSTS{number}: {described}");
            set("error_description", json!(text));
            set("error_codes", json!([number]));
            set("trace_id", json!(random::uuid()));
            set("correlation_id", json!(random::uuid()));
        }
        Profile::Github | Profile::GithubOauthApp => {
            set("error_description", json!(described));
            set("error_uri", json!("https://docs.github.com/apps"));
        }
        Profile::Slack => {
            set("ok", json!(false));
        }
        Profile::Notion => {
            set("error_description", json!(described));
            set("request_id", json!(random::uuid()));
        }
        _ => {
            set("error_description", json!(described));
        }
    }
    let usual = match code {
        _ if profile.is_github() || profile == Profile::Slack => 200,
        "invalid_client" => 401,
        "temporarily_unavailable" => 503,
        "server_error" => 500,
        _ => 400,
    };
    let reply = encoded(profile, headers, status.unwrap_or(usual), fields);
    match reply.status().as_u16() {
        401 => with_header(reply, "www-authenticate", "Basic realm=\"simulator\""),
        _ => reply,
    }
}

fn encoded(profile: Profile, headers: &HeaderMap, status: u16, fields: Map<String, Value>) -> Reply {
    let reply = if profile.is_github() && !accepts_json(headers) {
        let body = form(&fields);
        whole(status, "application/x-www-form-urlencoded; charset=utf-8", body)
    } else {
        reply::json(status, &Value::Object(fields))
    };
    let reply = with_header(reply, "cache-control", "no-store");
    match profile {
        Profile::Quickbooks => with_header(reply, "intuit_tid", &random::uuid()),
        _ => reply,
    }
}

/// JSON fields as a form.
pub(crate) fn form(fields: &Map<String, Value>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value.as_str() {
            Some(text) => form.append_pair(name, text),
            None => form.append_pair(name, &value.to_string()),
        };
    }
    form.finish()
}

fn accepts_json(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("json"))
}
