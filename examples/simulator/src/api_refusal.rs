//! How each company's API says no.

use serde_json::{Value, json};

use crate::clock;
use crate::company::{Company, Fit, PathAnswer, fits, usual_value};
use crate::profile::Profile;
use crate::random;
use crate::reply::{Reply, json as json_reply, whole, with_header};

/// Why an API call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiRefusal {
    /// No token, or none of ours.
    Unknown,
    /// It worked once, and its time is over.
    Expired,
    /// It worked once, and was revoked or replaced.
    Dead,
    /// It works, but not for that account.
    WrongRealm,
    /// It works, but there is nothing.
    NoSuchPath,
    /// It works, but a header is missing that the company insists on.
    HeaderMissing,
}

pub(crate) fn reply(profile: Profile, refusal: ApiRefusal, path: &str) -> Reply {
    if let Some(company) = profile.company() {
        return described(company, refusal, path);
    }
    if refusal == ApiRefusal::HeaderMissing {
        return header_missing(profile);
    }
    let status = match refusal {
        _ if profile == Profile::Slack => 200,
        ApiRefusal::Unknown | ApiRefusal::Expired | ApiRefusal::Dead => 401,
        ApiRefusal::WrongRealm | ApiRefusal::NoSuchPath | ApiRefusal::HeaderMissing => 403,
    };
    let reply = json_reply(status, &body(profile, refusal));
    let reply = match profile {
        Profile::Quickbooks => with_header(reply, "intuit_tid", &random::uuid()),
        _ => reply,
    };
    match challenge(profile).filter(|_| status == 401) {
        Some(challenge) => with_header(reply, "www-authenticate", challenge),
        None => reply,
    }
}

fn challenge(profile: Profile) -> Option<&'static str> {
    match profile {
        Profile::Quickbooks => Some("Bearer realm=\"Intuit\", error=\"invalid_token\""),
        Profile::Google => Some("Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\""),
        Profile::Gitlab => Some("Bearer realm=\"Protected by OAuth 2.0\", error=\"invalid_token\""),
        Profile::Microsoft => Some("Bearer realm=\"\", error=\"invalid_token\""),
        Profile::Generic => Some("Bearer error=\"invalid_token\""),
        Profile::Github | Profile::GithubOauthApp | Profile::Notion | Profile::Slack | Profile::Described(_) => None,
    }
}

/// A header is missing that everybody must send.
fn header_missing(profile: Profile) -> Reply {
    match profile {
        Profile::Notion => json_reply(
            400,
            &json!({
                "object": "error",
                "status": 400,
                "code": "missing_version",
                "message": "Notion-Version header failed validation: Notion-Version header should be defined, instead was `undefined`.",
                "request_id": random::uuid(),
            }),
        ),
        _ => {
            let text = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header \
                        (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required).";
            whole(403, "text/html", text)
        }
    }
}

/// What the company's file says.
fn described(company: &'static Company, refusal: ApiRefusal, path: &str) -> Reply {
    let api = &company.api;
    let first = |lists: &[&'static [PathAnswer]]| {
        let mut all = lists.iter().flat_map(|list| list.iter());
        all.find(|answer| answer.path.as_deref().is_none_or(|pattern| fits(pattern, path, |_, _| true) == Fit::Yes))
    };
    let answer = match refusal {
        ApiRefusal::Expired => first(&[&api.expired]).map(|answer| &answer.answer),
        ApiRefusal::Dead => first(&[&api.dead, &api.expired]).map(|answer| &answer.answer),
        ApiRefusal::Unknown => first(&[&api.unknown, &api.dead, &api.expired]).map(|answer| &answer.answer),
        ApiRefusal::WrongRealm => api.wrong_site.as_ref(),
        ApiRefusal::HeaderMissing => api.header_missing.as_ref(),
        ApiRefusal::NoSuchPath => None,
    };
    let otherwise = match refusal {
        ApiRefusal::Expired | ApiRefusal::Dead | ApiRefusal::Unknown => 401,
        ApiRefusal::HeaderMissing => 400,
        ApiRefusal::WrongRealm | ApiRefusal::NoSuchPath => 404,
    };
    match answer {
        Some(answer) => answer.reply(&usual_value),
        None => json_reply(otherwise, &json!({"error": format!("the simulator refuses this: {refusal:?}")})),
    }
}

fn body(profile: Profile, refusal: ApiRefusal) -> Value {
    match profile {
        Profile::Quickbooks => quickbooks(refusal),
        Profile::Github | Profile::GithubOauthApp => json!({
            "message": "Bad credentials",
            "documentation_url": "https://docs.github.com/rest",
            "status": "401",
        }),
        Profile::Microsoft => json!({"error": {
            "code": "InvalidAuthenticationToken",
            "message": "Lifetime validation failed, the token is expired.",
            "innerError": {"request-id": random::uuid(), "client-request-id": random::uuid()},
        }}),
        Profile::Google => json!({"error": {
            "code": 401,
            "message": "Request had invalid authentication credentials. Expected OAuth 2 access \
                        token, login cookie or other valid authentication credential.",
            "status": "UNAUTHENTICATED",
        }}),
        Profile::Notion => json!({
            "object": "error",
            "status": 401,
            "code": "unauthorized",
            "message": "API token is invalid.",
            "request_id": random::uuid(),
        }),
        Profile::Slack => json!({
            "ok": false,
            "error": match refusal {
                ApiRefusal::Expired => "token_expired",
                ApiRefusal::Dead => "token_revoked",
                _ => "invalid_auth",
            },
        }),
        Profile::Gitlab | Profile::Generic | Profile::Described(_) => json!({
            "error": "invalid_token",
            "error_description":
                "Token is expired. You can either do re-authorization or token refresh.",
        }),
    }
}

/// Lower-case `fault` for authentication, upper-case for everything else: that is how it is.
fn quickbooks(refusal: ApiRefusal) -> Value {
    match refusal {
        ApiRefusal::WrongRealm => json!({
            "Fault": {
                "Error": [{
                    "Message":
                        "message=ApplicationAuthorizationFailed; errorCode=003100; statusCode=403",
                    "Detail": "The token is not for this company.",
                    "code": "3100",
                }],
                "type": "AuthorizationFault",
            },
            "time": clock::now_ms(),
        }),
        _ => json!({
            "fault": {
                "error": [{
                    "message": "message=AuthenticationFailed; errorCode=003200; statusCode=401",
                    "detail": "Token expired: the access token is not valid now",
                    "code": "3200",
                }],
                "type": "AUTHENTICATION",
            },
            "time": clock::now_ms(),
        }),
    }
}
