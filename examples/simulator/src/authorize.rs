//! The authorization endpoint: where the user's browser is sent.

use ring::hmac;
use url::{Url, form_urlencoded};

use crate::clock;
use crate::company::{self, Company};
use crate::faults::{Endpoint, FaultKind};
use crate::misbehave;
use crate::profile::Profile;
use crate::random;
use crate::reply::{Reply, redirect, whole, with_header};
use crate::server::Call;
use crate::settings::Settings;
use crate::state::Code;
use crate::token::Parameters;
use crate::user;

/// The parameter by which a test or a person chooses who approves.
const USER: &str = "simulated_user";

/// Answers `GET /P/authorize`.
pub(crate) async fn answer(call: Call, query: &str) -> Reply {
    let parameters = Parameters::from_form(query.as_bytes());
    let fault = {
        let mut state = call.shared.lock();
        let fault = state.due_fault(call.profile, Endpoint::Authorize);
        if fault != Some(FaultKind::ResetBeforeReading) {
            state.profile(call.profile).ledger.counters.authorize_calls += 1;
        }
        fault
    };
    let refused = (call.clone(), parameters.clone());
    misbehave::around(
        fault,
        &call.cutter.clone(),
        move |error, description, _status| refuse_by_fault(refused, error, description),
        async move { decide(&call, &parameters) },
    )
    .await
}

fn refuse_by_fault((call, parameters): (Call, Parameters), error: &str, description: Option<&str>) -> Reply {
    let settings = call.shared.lock().settings(call.profile);
    match redirect_uri(&parameters) {
        Ok(to) => send_back_error(&call, &settings, &parameters, to, error, description.unwrap_or_default()),
        Err(reason) => page(400, &reason),
    }
}

fn decide(call: &Call, parameters: &Parameters) -> Reply {
    let settings = call.shared.lock().settings(call.profile);
    // Errors about client or redirect URI must not be redirected: it may be an attacker's.
    let to = match redirect_uri(parameters) {
        Ok(_) if parameters.get("client_id") != Some(&settings.client_id) => {
            return page(400, "unknown client_id");
        }
        Ok(to) => to,
        Err(reason) => return page(400, &reason),
    };
    if let Err((error, description)) = check(call.profile, &settings, parameters) {
        return send_back_error(call, &settings, parameters, to, error, &description);
    }
    if let Some(error) = &settings.deny_with {
        let description = "The simulator was told to refuse.";
        return send_back_error(call, &settings, parameters, to, error, description);
    }
    match parameters.get("decision") {
        Some("deny") => {
            let description = "The user refused.";
            send_back_error(call, &settings, parameters, to, "access_denied", description)
        }
        Some("approve") => approve(call, &settings, parameters, to),
        _ if settings.auto_approve => approve(call, &settings, parameters, to),
        _ => {
            let page = consent_page(call, parameters, user_of(&settings, parameters));
            whole(200, "text/html; charset=utf-8", page)
        }
    }
}

/// Who approves or refuses.
fn user_of<'a>(settings: &'a Settings, parameters: &'a Parameters) -> &'a str {
    parameters.get(USER).filter(|name| !name.is_empty()).unwrap_or(&settings.user)
}

fn redirect_uri(parameters: &Parameters) -> Result<Url, String> {
    let text = parameters.get("redirect_uri").ok_or("redirect_uri is missing")?;
    Url::parse(text).map_err(|error| format!("redirect_uri: {error}"))
}

fn check(profile: Profile, settings: &Settings, parameters: &Parameters) -> Result<(), (&'static str, String)> {
    let invalid = |description: &str| Err(("invalid_request", description.to_owned()));
    if let Some(name) = &parameters.repeated {
        return invalid(&format!("{name} is repeated"));
    }
    if parameters.get("response_type") != Some("code") {
        return Err(("unsupported_response_type", "response_type must be code".to_owned()));
    }
    if let Some(company) = profile.company() {
        check_described(company, parameters)?;
    }
    match (parameters.get("code_challenge"), parameters.get("code_challenge_method")) {
        (None, None) if settings.pkce_required => invalid("code_challenge is required"),
        (None, None) => Ok(()),
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Ok(()),
        (Some(_), Some("S256")) => invalid("code_challenge is not a SHA-256"),
        _ => invalid("code_challenge_method must be S256"),
    }
}

/// What the company's file insists on.
fn check_described(company: &Company, parameters: &Parameters) -> Result<(), (&'static str, String)> {
    let wanted = &company.authorize;
    for (name, value) in &wanted.requires {
        if parameters.get(name) != Some(value) {
            return Err(("invalid_request", format!("{name} must be {value}")));
        }
    }
    let scope = parameters.get("scope").unwrap_or_default();
    let separator = wanted.scope_separator.as_deref().unwrap_or(" ");
    let foreign = scope.chars().any(|c| matches!(c, ' ' | ',' | '+') && !separator.contains(c));
    if foreign || separator.is_empty() && !scope.is_empty() {
        return Err(("invalid_scope", format!("scopes are separated by {separator:?}: {scope:?}")));
    }
    Ok(())
}

/// Whether a refresh token was asked for, where one must be.
fn is_offline(profile: Profile, parameters: &Parameters) -> bool {
    let has =
        |name: &str, word: &str| parameters.get(name).unwrap_or_default().split([' ', ',']).any(|asked| asked == word);
    match profile.company() {
        Some(company) => company.authorize.offline.as_ref().is_none_or(|(name, word)| has(name, word)),
        None => profile != Profile::Google || has("access_type", "offline") && has("prompt", "consent"),
    }
}

fn approve(call: &Call, settings: &Settings, parameters: &Parameters, to: Url) -> Reply {
    let profile = call.profile;
    let value = profile.new_code();
    let asked = |name| parameters.get(name).unwrap_or_default();
    let user = user_of(settings, parameters);
    let realm = match settings.realm_per_user {
        true => user::own_realm(profile, &settings.realm_id, user),
        false => settings.realm_id.clone(),
    };
    let code = Code {
        client_id: settings.client_id.clone(),
        redirect_uri: asked("redirect_uri").to_owned(),
        challenge: parameters.get("code_challenge").map(str::to_owned),
        scope: asked("scope").to_owned(),
        user_scope: asked(if profile == Profile::Slack { "user_scope" } else { "" }).to_owned(),
        nonce: parameters.get("nonce").map(str::to_owned),
        realm: realm.clone(),
        user: user.to_owned(),
        offline: is_offline(profile, parameters),
        expires_at_ms: Some(clock::now_ms() + clock::milliseconds(settings.code_lifetime_s)),
        used: false,
    };
    {
        let mut state = call.shared.lock();
        state.values.codes.push(value.clone());
        state.profile(profile).codes.insert(value.clone(), code);
        state.event(profile, "code_issued", None, "");
    }
    let mut answer = vec![("code", value.as_str())];
    if profile == Profile::Quickbooks {
        answer.push(("realmId", &realm));
    }
    let Some(company) = profile.company() else {
        return send_back(call, settings, parameters, to, &answer);
    };
    let values = |name: &str| (name == "realm").then(|| realm.as_str().into()).or_else(|| company::usual_value(name));
    let more: Vec<(&str, String)> = (company.authorize.callback.iter())
        .map(|(name, template)| (name.as_str(), company::filled_text(template, &values)))
        .collect();
    answer.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
    send_back(call, settings, parameters, to, &answer)
}

/// The parameters with a signature of all of them.
fn sign(to: &mut Url, name: &str, secret: &str) {
    let mut pairs: Vec<String> = to.query().unwrap_or_default().split('&').map(str::to_owned).collect();
    pairs.sort();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = random::hex(hmac::sign(&key, pairs.join("&").as_bytes()).as_ref());
    to.query_pairs_mut().append_pair(name, &signature);
}

fn send_back_error(
    call: &Call,
    settings: &Settings,
    parameters: &Parameters,
    to: Url,
    error: &str,
    description: &str,
) -> Reply {
    call.shared.lock().event(call.profile, "authorize_refused", None, error);
    let answer = [("error", error), ("error_description", description)];
    send_back(call, settings, parameters, to, &answer)
}

fn send_back(call: &Call, settings: &Settings, parameters: &Parameters, mut to: Url, answer: &[(&str, &str)]) -> Reply {
    {
        let mut query = to.query_pairs_mut();
        query.extend_pairs(answer);
        if let Some(state) = parameters.get("state") {
            query.append_pair("state", state);
        }
        if settings.send_iss {
            query.append_pair("iss", &call.issuer(settings));
        }
    }
    if let Some(name) = call.profile.company().and_then(|company| company.authorize.hmac.as_deref()) {
        sign(&mut to, name, &settings.client_secret);
    }
    with_header(redirect(302, to.as_str()), "cache-control", "no-store")
}

fn consent_page(call: &Call, parameters: &Parameters, user: &str) -> String {
    let (name, path) = (call.profile.name(), &call.path);
    let user = escaped(user);
    let form = |decision: &str, label: &str, question: &str| {
        let fields: String = parameters
            .iter()
            .filter(|(field, _)| *field != "decision" && *field != USER)
            .chain([("decision", decision)])
            .map(|(field, value)| {
                let (field, value) = (escaped(field), escaped(value));
                format!("<input type=\"hidden\" name=\"{field}\" value=\"{value}\">")
            })
            .collect();
        let link = parameters.to_query(&[("decision", decision)]);
        let link = escaped(&format!("{path}?{link}"));
        format!(
            "<form id=\"{decision}\" method=\"get\" action=\"{path}\">{fields}{question}\
             <button type=\"submit\">{label}</button></form>\
             <p><a href=\"{link}\">{label}</a></p>\n"
        )
    };
    let scope = escaped(parameters.get("scope").unwrap_or_default());
    let head = format!("<!doctype html><html lang=\"en\"><title>Simulated {name}</title>\n");
    let question = format!("<h1>Simulated {name}</h1><p>Give this app access? {scope}</p>\n");
    let who = format!("<label>As <input type=\"text\" name=\"{USER}\" value=\"{user}\"></label> ");
    [head, question, form("approve", "Approve", &who), form("deny", "Deny", ""), "</html>".to_owned()].concat()
}

fn page(status: u16, reason: &str) -> Reply {
    let reason = escaped(reason);
    let html = format!("<!doctype html><title>Error</title><p>{reason}</p>");
    whole(status, "text/html; charset=utf-8", html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Parameters {
    /// All of these and some more, as a query.
    fn to_query(&self, more: &[(&str, &str)]) -> String {
        let own = self.iter().filter(|(name, _)| *name != "decision");
        form_urlencoded::Serializer::new(String::new()).extend_pairs(own).extend_pairs(more).finish()
    }
}
