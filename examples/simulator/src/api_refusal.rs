//! How each company's API says no.

use serde_json::{Value, json};

use crate::clock;
use crate::profile::Profile;
use crate::random;
use crate::reply::{Reply, json as json_reply, with_header};

/// Why an API call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiRefusal {
    /// No token, or none of ours.
    Unknown,
    /// It worked once.
    Expired,
    /// It works, but not for that account.
    WrongRealm,
}

pub(crate) fn reply(profile: Profile, refusal: ApiRefusal) -> Reply {
    let status = match refusal {
        _ if profile == Profile::Slack => 200,
        ApiRefusal::Unknown | ApiRefusal::Expired => 401,
        ApiRefusal::WrongRealm => 403,
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
        Profile::Github | Profile::GithubOauthApp | Profile::Notion | Profile::Slack => None,
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
            "error": if refusal == ApiRefusal::Expired { "token_expired" } else { "invalid_auth" },
        }),
        Profile::Gitlab | Profile::Generic => json!({
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
        ApiRefusal::Unknown | ApiRefusal::Expired => json!({
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
