use super::super::leak;
use super::super::target::parse;
use super::*;
use crate::catalogue::entry::ApiEntry;
use crate::catalogue::provider::tests::provider;
use crate::model::handle::MARKER;

const TOKEN: &str = "s3cret:/+ \"&=";

fn handle() -> String {
    format!("{MARKER}abc-DEF_0")
}

fn api(places: serde_json::Value) -> Api {
    let declared = serde_json::json!({ "origin": "https://api.example", "places": places });
    let declared: ApiEntry = serde_json::from_value(declared).expect("an API");
    let owner = provider("github");
    Api::prepare(&owner.name, "things", &declared, &owner.entry).expect("sound")
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
    }
    headers
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// What becomes of a request: its target, the header that carries the token, and its body.
type Sent = (Option<String>, Option<(String, String)>, Option<String>);

fn sent(api: &Api, pairs: &[(&str, &str)], target: &str, body: &str) -> Result<(Option<String>, Sent), PlacementError> {
    let headers = headers(pairs);
    let target = parse(target.as_bytes()).expect("a good target");
    let body = if needs_body(api, &headers) { Body::Whole(body.as_bytes()) } else { Body::Unread };
    let found = find(api, &headers, &target, body)?;
    let judged = found.judged(&target);
    let query = judged.query.map(|query| format!("?{query}")).unwrap_or_default();
    let outgoing = format!("/base/{}{query}", judged.segments.join("/"));
    assert!(!leak::in_target(&outgoing), "{outgoing}");
    let token = Secret::new(TOKEN.to_owned());
    let body = match body {
        Body::Whole(body) => {
            assert!(!LeakFree(&found.body_without_credential(body)).holds());
            found.body(body, &token).map(|body| String::from_utf8(body.to_vec()).expect("text"))
        }
        _ => None,
    };
    let header = match found.header(&token)? {
        CredentialHeader::Canonical => Some(("canonical".to_owned(), String::new())),
        CredentialHeader::Other(name, value) => {
            assert!(value.is_sensitive());
            Some((name.to_string(), value.to_str().expect("text").to_owned()))
        }
        CredentialHeader::None => None,
    };
    let target = found.target(&outgoing, &token)?.map(|target| target.expose().to_owned());
    let places = usize::from(target.is_some()) + usize::from(header.is_some()) + usize::from(body.is_some());
    assert_eq!(places, 1, "exactly one place");
    Ok((found.handle, (target, header, body)))
}

struct LeakFree<'b>(&'b [u8]);

impl LeakFree<'_> {
    fn holds(&self) -> bool {
        leak::LeakScanner::new().feed(self.0)
    }
}

fn canonical() -> Sent {
    (None, Some(("canonical".to_owned(), String::new())), None)
}

fn in_header(name: &str, value: &str) -> Sent {
    (None, Some((name.to_owned(), value.to_owned())), None)
}

#[test]
fn without_declared_places_the_token_goes_into_the_credential_header() {
    let api = api(serde_json::json!([]));
    let h = handle();
    for value in [
        format!("Bearer {h}"),
        format!("token {h}"),
        h.clone(),
        basic(&format!("x-access-token:{h}")),
        basic(&format!("{h}:")),
        basic(&format!("me@example.org/token:{h}")),
    ] {
        let (found, sent) = sent(&api, &[("authorization", &value)], "/a?b", "").expect("placed");
        assert!(found.is_some_and(|found| found.ends_with(&h)), "{value}");
        assert_eq!(sent, canonical(), "{value}");
    }
    assert_eq!(sent(&api, &[], "/a", ""), Ok((None, canonical())));
    assert_eq!(sent(&api, &[("authorization", "Bearer placeholder")], "/a", ""), Ok((None, canonical())));
}

#[test]
fn a_declared_header_is_replaced_raw() {
    let figma = api(serde_json::json!([{ "header": "x-figma-token" }]));
    let h = handle();
    let expected = in_header("x-figma-token", TOKEN);
    for own in [h.as_str(), "placeholder", ""] {
        assert_eq!(sent(&figma, &[("x-figma-token", own)], "/a", "").expect("placed").1, expected, "{own}");
    }
    let both = [("authorization", format!("Bearer {h}")), ("x-figma-token", "x".to_owned())];
    let both: Vec<(&str, &str)> = both.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(sent(&figma, &both, "/a", ""), Ok((Some(h.clone()), expected)));
    assert_eq!(sent(&figma, &[("authorization", &h)], "/a", ""), Ok((Some(h), canonical())));
    assert_eq!(carriers(&figma).map(HeaderName::as_str).collect::<Vec<_>>().pop(), Some("x-figma-token"));
}

#[test]
fn basic_keeps_its_shape_only_where_it_is_declared() {
    let h = handle();
    let password = api(serde_json::json!([{ "basic": "password" }]));
    let jira = basic(&format!("me@example.org:{h}"));
    let expected = in_header("authorization", &basic(&format!("me@example.org:{TOKEN}")));
    assert_eq!(sent(&password, &[("authorization", &jira)], "/a", ""), Ok((Some(h.clone()), expected.clone())));
    let placeholder = basic("me@example.org:x");
    assert_eq!(sent(&password, &[("authorization", &placeholder)], "/a", ""), Ok((None, expected)));
    let other_half = basic(&format!("{h}:x"));
    assert_eq!(sent(&password, &[("authorization", &other_half)], "/a", ""), Ok((Some(h.clone()), canonical())));
    assert_eq!(sent(&password, &[("authorization", &h)], "/a", ""), Ok((Some(h.clone()), canonical())));
    let user = api(serde_json::json!([{ "basic": "user" }]));
    let refused = sent(&user, &[("authorization", &other_half)], "/a", "");
    assert_eq!(
        refused,
        Err(PlacementError::NotWritable("the user name of Basic")),
        "the token of this test has a colon"
    );
}

#[test]
fn a_query_parameter_is_encoded_and_nothing_else_changes() {
    let api = api(serde_json::json!([{ "query": "api_key" }]));
    let h = handle();
    let expected = Some("/base/a?x=%20;y&api_key=s3cret%3A%2F%2B%20%22%26%3D&z".to_owned());
    for own in [h.clone(), h.replace('_', "%5F"), "0".to_owned(), String::new()] {
        let (found, sent) = sent(&api, &[], &format!("/a?x=%20;y&api_key={own}&z"), "").expect("placed");
        assert_eq!(found.is_some(), own.len() > 1, "{own}");
        assert_eq!(sent, (expected.clone(), None, None), "{own}");
    }
    for odd in ["api_key=a&api_key=b", "api_key=a&API_KEY=b", "x;api_key=b"] {
        assert_eq!(sent(&api, &[], &format!("/a?{odd}"), ""), Err(PlacementError::TwoCredentials), "{odd}");
    }
    assert!(has_undeclared_token(&api, "api_key=x&access_token=y"));
    let declared = self::api(serde_json::json!([{ "query": "access_token" }]));
    assert!(!has_undeclared_token(&declared, "a=b&access_token=y"));
    assert!(has_undeclared_token(&declared, "ACCESS_TOKEN=y"));
}

#[test]
fn a_form_field_is_replaced_where_the_body_is_a_form() {
    let slack = api(serde_json::json!([{ "form": "token" }]));
    let h = handle();
    let form = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    let body = format!("channel=C1&token=xoxb-{h}&text=a+b%20c");
    let expected = "channel=C1&token=s3cret%3A%2F%2B%20%22%26%3D&text=a+b%20c".to_owned();
    let presented = Some(format!("xoxb-{h}"));
    assert_eq!(sent(&slack, &[form], "/a", &body), Ok((presented, (None, None, Some(expected)))));
    let json = ("content-type", "application/json");
    assert_eq!(sent(&slack, &[json], "/a", &body), Ok((None, canonical())));
    for unreadable in [vec![form, form], vec![form, ("content-encoding", "gzip")], vec![]] {
        assert!(!needs_body(&slack, &headers(&unreadable)), "{unreadable:?}");
    }
    assert!(needs_body(&slack, &headers(&[form, ("content-encoding", "identity")])));
}

#[test]
fn a_json_text_is_replaced_in_place() {
    let api = api(serde_json::json!([{ "json": "/auth/token" }]));
    let h = handle();
    let json = ("content-type", "application/vnd.x+json");
    let body = format!("{{ \"n\": 1.50, \"auth\" : {{\"token\":\"{h}\"}}, \"z\":[ ] }}");
    let expected = "{ \"n\": 1.50, \"auth\" : {\"token\":\"s3cret:/+ \\\"&=\"}, \"z\":[ ] }".to_owned();
    assert_eq!(sent(&api, &[json], "/a", &body), Ok((Some(h.clone()), (None, None, Some(expected)))));
    let twice = format!("{{\"auth\":{{\"token\":\"x\",\"token\":\"{h}\"}}}}");
    assert_eq!(sent(&api, &[json], "/a", &twice), Err(PlacementError::TwoCredentials));
    assert_eq!(sent(&api, &[json], "/a", "{\"auth\":null}"), Ok((None, canonical())));
}

#[test]
fn a_path_segment_is_replaced_wherever_it_stands() {
    let api = api(serde_json::json!([{ "path": "bot{token}" }]));
    let h = handle();
    let expected = "/base/telegram/bots3cret:%2F%2B%20%22%26%3D/sendMessage?a=b".to_owned();
    for own in [h.clone(), h.replace('_', "%5f"), "{token}".to_owned(), "%7Btoken%7D".to_owned(), "0".to_owned()] {
        let (found, sent) = sent(&api, &[], &format!("/telegram/bot{own}/sendMessage?a=b"), "").expect("placed");
        assert_eq!(found.is_some(), own.len() > 12, "{own}");
        assert_eq!(sent, (Some(expected.clone()), None, None), "{own}");
    }
    assert_eq!(sent(&api, &[], "/telegram/bots/x", ""), Ok((None, canonical())));
    assert_eq!(sent(&api, &[], &format!("/bot{h}/bot{h}"), ""), Err(PlacementError::TwoCredentials));
    let target = format!("/telegram/bot{h}/x");
    let target = parse(target.as_bytes()).expect("good");
    let found = find(&api, &HeaderMap::new(), &target, Body::Unread).expect("found");
    assert_eq!(found.judged(&target).segments, ["telegram", "bot0", "x"]);
}

#[test]
fn two_credentials_are_refused_and_one_handle_twice_is_not() {
    let api = api(serde_json::json!([{ "query": "key" }, { "form": "token" }, { "header": "x-token" }]));
    let h = handle();
    let bearer = format!("Bearer {h}");
    let other = format!("Bearer {MARKER}other");
    assert_eq!(
        sent(&api, &[("authorization", &bearer), ("authorization", &bearer)], "/a", ""),
        Err(PlacementError::TwoCredentials)
    );
    assert_eq!(sent(&api, &[("x-token", "a"), ("x-token", "b")], "/a", ""), Err(PlacementError::TwoCredentials));
    assert_eq!(sent(&api, &[("authorization", &other), ("x-token", &h)], "/a", ""), Err(PlacementError::TwoHandles));
    assert_eq!(sent(&api, &[("authorization", &other)], &format!("/a?key={h}"), ""), Err(PlacementError::TwoHandles));
    let (found, placed) =
        sent(&api, &[("authorization", &bearer), ("x-token", &format!("ntn_{h}"))], "/a", "").expect("one");
    assert!(found.is_some_and(|found| found.ends_with(&h)));
    assert_eq!(placed, in_header("x-token", TOKEN));
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(sent(&api, &[form], &format!("/a?key={h}"), "token=x"), Err(PlacementError::TwoCredentials));
    // The place with the handle goes before one with a placeholder that is declared earlier.
    let with_placeholder = sent(&api, &[form, ("x-token", "x")], "/a", &format!("token={h}")).expect("one");
    assert!(with_placeholder.1.2.is_some());
}

#[test]
fn a_body_too_long_to_be_read_is_refused_unless_the_handle_is_elsewhere() {
    let slack = api(serde_json::json!([{ "form": "token" }]));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let target = parse(b"/a").expect("good");
    let found =
        |pairs: &[(&str, &str)]| find(&slack, &headers(pairs), &target, Body::TooLong).map(|found| found.handle);
    assert_eq!(found(&[form]), Err(PlacementError::BodyTooLarge));
    assert_eq!(found(&[form, ("authorization", &handle())]), Ok(Some(handle())));
    assert_eq!(found(&[("content-type", "text/plain")]), Ok(None));
}

#[test]
fn a_token_that_is_no_header_value_is_not_written() {
    let figma = api(serde_json::json!([{ "header": "x-figma-token" }]));
    let target = parse(b"/a").expect("good");
    let found = find(&figma, &headers(&[("x-figma-token", "x")]), &target, Body::Unread).expect("found");
    let refused = found.header(&Secret::new("a\r\nb".to_owned())).map(|_| ());
    assert_eq!(refused, Err(PlacementError::NotWritable("a header")));
}
