use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::*;
use crate::catalogue::provider::tests::provider;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn reply(status: u16, content_type: &'static str, body: &str) -> Response {
    Response {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]),
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}

fn read_json(name: &str, status: u16, body: &str) -> Result<TokenReply, TokenRefusal> {
    read(&provider(name).entry, Exchange::Refresh(None), &reply(status, "application/json", body), NOW)
}

fn verdict(name: &str, status: u16, body: &str) -> Verdict {
    read_json(name, status, body).expect_err("no tokens").verdict
}

fn expires_in(seconds: &str) -> Option<u128> {
    let body = format!("{{\"access_token\":\"a\"{seconds}}}");
    let tokens = read_json("microsoft", 200, &body).expect("tokens").tokens;
    tokens.access_expires_at.map(|at| at.since(NOW).as_millis())
}

#[test]
fn quickbooks_says_everything() {
    let body = r#"{"token_type":"bearer","access_token":"AT","refresh_token":"RT","expires_in":3600,
        "x_refresh_token_expires_in":8726400,"x_refresh_token_hard_expires_in":157680000}"#;
    let TokenReply { tokens, captured, .. } = read_json("quickbooks", 200, body).expect("tokens");
    assert_eq!(tokens.access_token.expose(), "AT");
    assert_eq!(tokens.refresh_token.expect("there").expose(), "RT");
    assert_eq!(tokens.access_expires_at, Some(NOW.plus(Duration::from_secs(3600))));
    assert_eq!(tokens.refresh_expires_at, Some(NOW.plus(Duration::from_secs(8_726_400))));
    assert_eq!(tokens.grant_expires_at, Some(NOW.plus(Duration::from_secs(157_680_000))));
    assert!(captured.is_empty() && tokens.scopes.is_none());
}

#[test]
fn github_answers_forms_and_puts_errors_under_200() {
    let entry = provider("github").entry;
    let form = "access_token=ghu_1&expires_in=28800&refresh_token=ghr_1&refresh_token_expires_in=15897600&scope=repo%2Cuser&token_type=bearer";
    let form = reply(200, "application/x-www-form-urlencoded; charset=utf-8", form);
    let tokens = read(&entry, Exchange::Code, &form, NOW).expect("tokens").tokens;
    assert_eq!(tokens.access_expires_at, Some(NOW.plus(Duration::from_secs(28_800))));
    assert_eq!(tokens.scopes, Some(vec!["repo".to_owned(), "user".to_owned()]));
    let refusal = read_json("github", 200, r#"{"error":"bad_refresh_token"}"#).expect_err("no tokens");
    assert_eq!(refusal.verdict, Verdict::Class(ErrorClass::Permanent));
    assert_eq!(refusal.summary, "HTTP 200 with error bad_refresh_token");
}

#[test]
fn values_of_the_connection_are_captured_when_it_is_made() {
    let body = r#"{"access_token":"a","refresh_token":"nrt_1","bot_id":"b","workspace_id":"w","workspace_name":null}"#;
    let notion = provider("notion").entry;
    let made = read(&notion, Exchange::Code, &reply(200, "application/json", body), NOW).expect("tokens");
    assert_eq!(
        made.captured,
        Captured::from([("bot_id", "b"), ("workspace_id", "w")].map(|(k, v)| (k.into(), v.into())))
    );
    assert_eq!(made.tokens.access_expires_at, None, "Notion does not say");
    assert!(read_json("notion", 200, body).expect("tokens").captured.is_empty());
}

#[test]
fn lifetimes_in_every_form() {
    assert_eq!(expires_in(r#","expires_in":10"#), Some(10_000));
    assert_eq!(expires_in(r#","expires_in":"10""#), Some(10_000));
    assert_eq!(expires_in(r#","expires_in":3600.5"#), Some(3_600_500));
    assert_eq!(expires_in(""), Some(3_599_000), "what the entry says");
    assert_eq!(expires_in(r#","expires_in":null"#), Some(3_599_000));
    for nothing in ["0", "-1", "\"0\"", "-1e300"] {
        assert_eq!(expires_in(&format!(",\"expires_in\":{nothing}")), Some(3_599_000), "{nothing} makes no hot loop");
    }
    assert_eq!(expires_in(r#","expires_in":0.01"#), Some(1_000));
    assert_eq!(expires_in(r#","expires_in":1e12"#), Some(315_360_000_000));
    assert_eq!(expires_in(r#","expires_in":"soon""#), Some(3_599_000));
}

#[test]
fn only_a_definite_refusal_is_a_verdict_on_the_grant() {
    let permanent = Verdict::Class(ErrorClass::Permanent);
    let configuration = Verdict::Class(ErrorClass::Configuration);
    assert_eq!(verdict("quickbooks", 400, r#"{"error":"invalid_grant"}"#), permanent);
    assert_eq!(verdict("quickbooks", 401, r#"{"error":"invalid_client"}"#), configuration);
    assert_eq!(verdict("quickbooks", 200, r#"{"error":"invalid_grant"}"#), Verdict::Unknown, "it may have acted");
    assert_eq!(verdict("quickbooks", 400, "<html>"), Verdict::Misbehaved);
    assert_eq!(verdict("quickbooks", 403, "<html>"), Verdict::Misbehaved);
    assert_eq!(verdict("quickbooks", 400, r#"{"error":"out_of_cheese"}"#), Verdict::Misbehaved);
    assert_eq!(verdict("quickbooks", 302, ""), Verdict::Misbehaved);
    assert_eq!(verdict("quickbooks", 500, ""), Verdict::Unknown);
    assert_eq!(verdict("quickbooks", 503, "<html>"), Verdict::Unknown);
    assert_eq!(verdict("quickbooks", 500, r#"{"error":"server_error"}"#), Verdict::Unknown);
    assert_eq!(verdict("microsoft", 503, r#"{"error":"temporarily_unavailable"}"#), Verdict::Unknown);
    assert_eq!(verdict("quickbooks", 500, r#"{"error":"invalid_grant"}"#), Verdict::Unknown);
    let mut entry = provider("quickbooks").entry;
    let rule = r#"{"error":"invalid_grant","status":500,"class":"permanent"}"#;
    entry.errors.rules.push(serde_json::from_str(rule).expect("a rule"));
    let failed = reply(500, "application/json", r#"{"error":"invalid_grant"}"#);
    let refusal = read(&entry, Exchange::Refresh(None), &failed, NOW).expect_err("no tokens");
    assert_eq!(refusal.verdict, permanent, "where the entry knows it");
    assert_eq!(verdict("quickbooks", 429, ""), Verdict::Throttled);
    assert_eq!(verdict("microsoft", 400, r#"{"error":"interaction_required"}"#), permanent);
}

/// As Atlassian says that a refresh token is dead.
#[test]
fn a_403_is_permanent_where_the_entry_knows_it_and_a_firewalls_page_nowhere() {
    let mut entry = provider("quickbooks").entry;
    let rule = r#"{"error":"unauthorized_client","description_contains":"refresh_token is invalid","status":403,"class":"permanent"}"#;
    entry.errors.rules.push(serde_json::from_str(rule).expect("a rule"));
    let verdict = |body: &str| {
        let reply = reply(403, "application/json", body);
        read(&entry, Exchange::Refresh(None), &reply, NOW).expect_err("no tokens").verdict
    };
    let dead = r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#;
    assert_eq!(verdict(dead), Verdict::Class(ErrorClass::Permanent));
    assert_eq!(verdict(r#"{"error":"unauthorized_client"}"#), Verdict::Class(ErrorClass::Configuration));
    assert_eq!(verdict("<html>"), Verdict::Misbehaved);
}

#[test]
fn a_success_that_cannot_be_used_leaves_the_outcome_unknown() {
    let long = format!("{{\"access_token\":\"{}\"}}", "a".repeat(16_385));
    let lies = [
        "{}",
        "[]",
        "<html>",
        "",
        r#"{"access_token":""}"#,
        r#"{"access_token":1}"#,
        &long,
        r#"{"access_token":"a\r\nx: y"}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"ä"}"#,
        r#"{"access_token":"a","token_type":"mac"}"#,
        r#"{"access_token":"a","refresh_token":"r\u0000"}"#,
    ];
    for body in lies {
        assert_eq!(verdict("quickbooks", 200, body), Verdict::Unknown, "{body}");
    }
}

#[test]
fn a_byte_order_mark_is_no_obstacle() {
    assert!(read_json("quickbooks", 200, "\u{feff}{\"access_token\":\"a\"}").is_ok());
}

#[test]
fn what_is_no_code_is_not_repeated() {
    let refusal = read_json("quickbooks", 400, r#"{"error":"Token AB123-secret is invalid"}"#).expect_err("no tokens");
    assert_eq!(refusal.summary, "HTTP 400 with an error");
}

#[test]
fn a_wait_is_passed_on() {
    let mut throttled = reply(429, "text/plain", "");
    throttled.headers.insert("retry-after", HeaderValue::from_static("30"));
    let refusal = read(&provider("quickbooks").entry, Exchange::Refresh(None), &throttled, NOW).expect_err("no tokens");
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(30)));
}

#[test]
fn further_tokens_stand_beside_the_first_and_later_where_a_token_usually_stands() {
    let mut entry = provider("microsoft").entry;
    entry.token.response.more_tokens = vec![crate::catalogue::entry::NamedToken {
        name: "user".to_owned(),
        access_token: "/authed_user/access_token".to_owned(),
        refresh_token: Some("/authed_user/refresh_token".to_owned()),
        expires_in: Some("/authed_user/expires_in".to_owned()),
        scope: None,
    }];
    let read =
        |exchange, body: &str| read(&entry, exchange, &reply(200, "application/json", body), NOW).expect("tokens");
    let both = r#"{"access_token":"bot","refresh_token":"r1","expires_in":10,
        "authed_user":{"access_token":"user","refresh_token":"r2","expires_in":20}}"#;
    let made = read(Exchange::Code, both);
    assert_eq!((made.tokens.access_token.expose(), made.further.len()), ("bot", 1));
    let (name, user) = &made.further[0];
    assert_eq!((name.as_str(), user.access_token.expose()), ("user", "user"));
    assert_eq!(user.access_expires_at, Some(NOW.plus(Duration::from_secs(20))));
    let access = |exchange, body| read(exchange, body).tokens.access_token.expose().to_owned();
    assert_eq!(access(Exchange::Refresh(Some(name)), both), "user", "its own place first");
    assert_eq!(access(Exchange::Refresh(Some(name)), r#"{"access_token":"alone"}"#), "alone");
    assert_eq!(access(Exchange::Refresh(None), both), "bot");
}

#[test]
fn codes_may_be_numbers_or_no_more_than_true() {
    let class = |name, status, body| match verdict(name, status, body) {
        Verdict::Class(class) => Some(class),
        _ => None,
    };
    let zoom = |body| class("zoom", 400, body);
    assert_eq!(zoom(r#"{"code":4741,"message":"The token has been revoked."}"#), Some(ErrorClass::Permanent));
    assert_eq!(zoom(r#"{"reason":"Invalid Token!","error":"invalid_grant"}"#), Some(ErrorClass::Permanent));
    assert_eq!(zoom(r#"{"code":4709,"message":"Redirect URI mismatch."}"#), Some(ErrorClass::Configuration));
    assert_eq!(zoom(r#"{"code":4700}"#), Some(ErrorClass::Transient));
    assert_eq!((zoom(r#"{"code":1}"#), zoom(r#"{"code":0}"#)), (None, None));
    let figma = |status, body| class("figma", status, body);
    let dead = r#"{"error":true,"status":400,"message":"Invalid refresh token"}"#;
    assert_eq!(figma(400, dead), Some(ErrorClass::Permanent));
    let moved = r#"{"error":true,"status":404,"message":"Please make requests to api.figma.com"}"#;
    assert_eq!(figma(404, moved), None, "no verdict on the grant");
    let summary = read_json("zoom", 400, r#"{"code":4741}"#).expect_err("no tokens").summary;
    assert_eq!(summary, "HTTP 400 with error 4741");
    assert!(read_json("figma", 200, r#"{"error":false,"access_token":"a"}"#).is_ok(), "no error");
}

#[test]
fn scopes_come_in_a_text_or_in_a_list() {
    let scopes = |name, body| read_json(name, 200, body).expect("tokens").tokens.scopes;
    let two = Some(vec!["oauth".to_owned(), "crm.objects.contacts.read".to_owned()]);
    assert_eq!(scopes("hubspot", r#"{"access_token":"a","scopes":["oauth","crm.objects.contacts.read"]}"#), two);
    assert_eq!(scopes("hubspot", r#"{"access_token":"a","scopes":[]}"#), Some(Vec::new()));
    assert_eq!(scopes("bitbucket", r#"{"access_token":"a","scopes":"oauth crm.objects.contacts.read"}"#), two);
    assert_eq!(scopes("bitbucket", r#"{"access_token":"a","scopes":""}"#), None);
}

#[test]
fn a_grant_that_is_being_refreshed_elsewhere_is_not_dead() {
    let busy = r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#;
    assert_eq!(verdict("salesforce", 400, busy), Verdict::Class(ErrorClass::Transient));
    let dead = r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#;
    assert_eq!(verdict("salesforce", 400, dead), Verdict::Class(ErrorClass::Permanent));
    let discord = r#"{"error":"invalid_request","error_description":"Invalid refresh_token in request."}"#;
    assert_eq!(verdict("discord", 400, discord), Verdict::Class(ErrorClass::Permanent));
}
