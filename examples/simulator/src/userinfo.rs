//! Whose access token it is: the OpenID Connect endpoint at `/P/userinfo`.

use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::json;

use crate::api::bearer;
use crate::api_refusal::{self, ApiRefusal};
use crate::clock;
use crate::profile::Profile;
use crate::reply::{Reply, drain, json as json_reply};
use crate::server::Call;
use crate::user;

/// Whether this is a request for it. Companies without OpenID Connect have none.
pub(crate) fn is_asked(profile: Profile, method: &Method, rest: &str) -> bool {
    profile.has_openid() && method == Method::GET && rest == "userinfo"
}

/// Answers `GET /P/userinfo`. It counts as no API call.
pub(crate) async fn answer(call: Call, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let token = bearer(call.profile, &parts.headers);
    drain(body).await;
    match owner(&call, token.as_deref()) {
        Ok(name) => json_reply(200, &json!({"sub": name, "email": user::email(&name), "name": name})),
        Err(refusal) => api_refusal::reply(call.profile, refusal, ""),
    }
}

fn owner(call: &Call, token: Option<&str>) -> Result<String, ApiRefusal> {
    let mut state = call.shared.lock();
    let known = state.profile(call.profile);
    let place = token.and_then(|token| known.access_by_value.get(token)).ok_or(ApiRefusal::Unknown)?;
    let grant = &known.ledger.grants[place.grant];
    let token = &grant.access_tokens[place.token];
    if !token.is_valid(clock::now_ms()) {
        return Err(ApiRefusal::Expired);
    }
    let (name, id) = (grant.user.clone(), token.id.clone());
    state.event(call.profile, "userinfo", Some(&id), "");
    Ok(name)
}
