//! How a test looks into the simulator and steers it over HTTP.
//!
//! | request | does |
//! |---|---|
//! | `GET /control/health` | says that it runs |
//! | `GET /control/ledger` | everything that happened |
//! | `GET /control/tokens` | every secret value that ever existed here |
//! | `GET`, `PUT /control/settings/P` | reads a profile's settings, changes those in the body |
//! | `GET /control/calls` | the last API calls; of one profile with `?profile=P` |
//! | `DELETE /control/calls` | forgets them |
//! | `POST`, `DELETE /control/faults` | has calls go wrong; has nothing go wrong |
//! | `POST /control/expire/P` | all access tokens expire now, so that clients must refresh; one user's with `?user=NAME` |
//! | `POST /control/revoke/P` | the users take all consent back |
//! | `POST /control/reset` | back to the start |

use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::calls::ApiCall;
use crate::clock;
use crate::faults::Fault;
use crate::profile::Profile;
use crate::reply::{Reply, json as json_reply, read};
use crate::state::{Shared, end_grant};
use crate::token::Parameters;

/// Answers `/control/REST`.
pub(crate) async fn answer(shared: &Shared, rest: &str, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = read(body).await else {
        return refused(400, "the body is too long or broken");
    };
    let posted = || serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string());
    let segments: Vec<&str> = rest.trim_matches('/').split('/').collect();
    let query = Parameters::from_form(parts.uri.query().unwrap_or_default().as_bytes());
    let profile = segments.get(1).map(|name| Profile::from_name(name));
    if profile == Some(None) {
        return refused(404, "no such profile");
    }
    match (&parts.method, segments[0], profile.flatten()) {
        (&Method::GET, "health", None) => json_reply(200, &json!({"ok": true})),
        (&Method::GET, "ledger", None) => {
            let snapshot = shared.lock().snapshot();
            serialized(&snapshot)
        }
        (&Method::GET, "tokens", None) => {
            let values = shared.lock().values.clone();
            serialized(&values)
        }
        (&Method::GET, "settings", Some(profile)) => {
            let settings = shared.lock().settings(profile);
            serialized(&settings)
        }
        (&Method::PUT, "settings", Some(profile)) => {
            match posted().and_then(|changes| change_settings(shared, profile, &changes)) {
                Ok(reply) => reply,
                Err(reason) => refused(400, &reason),
            }
        }
        (&Method::POST, "faults", None) => match posted().and_then(Fault::from_json) {
            Ok(fault) => {
                shared.lock().faults.add(fault);
                json_reply(201, &json!({"ok": true}))
            }
            Err(reason) => refused(400, &reason),
        },
        (&Method::DELETE, "faults", None) => {
            shared.lock().faults.clear();
            json_reply(200, &json!({"ok": true}))
        }
        (&Method::GET, "calls", None) => {
            let profile = query.get("profile");
            if profile.is_some_and(|name| Profile::from_name(name).is_none()) {
                return refused(404, "no such profile");
            }
            let wanted = |call: &&ApiCall| profile.is_none_or(|name| call.profile == name);
            let calls: Vec<ApiCall> = shared.lock().calls.iter().filter(wanted).cloned().collect();
            serialized(&calls)
        }
        (&Method::DELETE, "calls", None) => {
            shared.lock().calls.clear();
            json_reply(200, &json!({"ok": true}))
        }
        (&Method::POST, "reset", None) => {
            shared.lock().reset();
            json_reply(200, &json!({"ok": true}))
        }
        (&Method::POST, "expire", Some(profile)) => {
            let expired = expire(shared, profile, query.get("user"));
            json_reply(200, &json!({"expired": expired}))
        }
        (&Method::POST, "revoke", Some(profile)) => json_reply(200, &json!({"revoked": revoke(shared, profile)})),
        _ => refused(404, "no such control endpoint"),
    }
}

fn change_settings(shared: &Shared, profile: Profile, changes: &Value) -> Result<Reply, String> {
    let mut state = shared.lock();
    state.profile(profile).settings.merge(changes)?;
    state.remember_secrets();
    let settings = state.settings(profile);
    drop(state);
    Ok(serialized(&settings))
}

/// Lets all access tokens that work expire now, or only one user's. Returns how many.
pub(crate) fn expire(shared: &Shared, profile: Profile, user: Option<&str>) -> usize {
    let mut state = shared.lock();
    let now = clock::now_ms();
    let grants = &mut state.profile(profile).ledger.grants;
    let concerned = grants.iter_mut().filter(|grant| user.is_none_or(|user| grant.user == user));
    let tokens = concerned.flat_map(|grant| &mut grant.access_tokens);
    let mut expired = 0;
    for token in tokens.filter(|token| token.is_valid(now)) {
        token.expires_at_ms = Some(now);
        expired += 1;
    }
    let whose = user.map(|user| format!(" of {user}")).unwrap_or_default();
    state.event(profile, "expired", None, format!("{expired} access tokens{whose}"));
    expired
}

/// The user takes all consent back at the company. Returns how many grants died.
pub(crate) fn revoke(shared: &Shared, profile: Profile) -> usize {
    let mut state = shared.lock();
    let now = clock::now_ms();
    let grants = &mut state.profile(profile).ledger.grants;
    let mut revoked = 0;
    for grant in grants.iter_mut().filter(|grant| grant.revoked_at_ms.is_none()) {
        end_grant(grant, now, true);
        revoked += 1;
    }
    state.event(profile, "revoked", None, format!("{revoked} grants, by the user"));
    revoked
}

fn serialized(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_value(value) {
        Ok(value) => json_reply(200, &value),
        Err(error) => refused(500, &error.to_string()),
    }
}

fn refused(status: u16, reason: &str) -> Reply {
    json_reply(status, &json!({"error": reason}))
}
