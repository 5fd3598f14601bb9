use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::catalogue::provider::tests::provider;

/// An entry with one look-up, whose `cloud_id` goes into paths and whose `name` is only shown.
fn entry(more: serde_json::Value) -> Entry {
    let mut entry = provider("github").entry;
    let mut declared = json!({
        "url": "https://api.example/sites", "item_name": "/name", "capture": { "cloud_id": "/id", "name": "/name" },
    });
    if let (Some(declared), Some(more)) = (declared.as_object_mut(), more.as_object()) {
        declared.extend(more.clone());
    }
    entry.post_connect = vec![serde_json::from_value(declared).expect("a look-up")];
    entry.apis.values_mut().for_each(|api| api.paths = vec!["/ex/{cloud_id}/".to_owned()]);
    entry
}

fn reply(status: u16, body: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    Response { status, headers: HeaderMap::new(), body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn offered(more: serde_json::Value, body: &serde_json::Value) -> Vec<(String, String)> {
    let entry = entry(more);
    let items = read(&entry, &entry.post_connect[0], &reply(200, &body.to_string())).expect("understood");
    items.into_iter().map(|item| (item.captured["cloud_id"].clone(), item.name)).collect()
}

fn captured(values: &[(&str, &str)]) -> Captured {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn item(id: &str) -> Item {
    Item { name: id.to_uppercase(), captured: captured(&[("cloud_id", id)]) }
}

fn pair(id: &str, name: &str) -> (String, String) {
    (id.to_owned(), name.to_owned())
}

#[test]
fn a_list_an_object_and_numbers_are_understood() {
    let list = json!([{ "id": "a", "name": "Acme" }, { "id": 7, "name": "Seven" }]);
    assert_eq!(offered(json!({}), &list), [pair("a", "Acme"), pair("7", "Seven")]);
    let inside = json!({ "items": "/data/sites" });
    assert_eq!(offered(inside, &json!({ "data": { "sites": list } })), [pair("a", "Acme"), pair("7", "Seven")]);
    assert_eq!(offered(json!({}), &json!({ "id": "only" })), [pair("only", "only")], "one object is one item");
    assert_eq!(offered(json!({}), &json!([])), []);
}

#[test]
fn only_items_count_that_are_whole_and_of_the_right_kind() {
    let items = json!([
        { "id": "a", "type": "ORGANISATION", "scopes": ["read", "write"], "live": true },
        { "id": "b", "type": "PRACTICE", "scopes": ["read"], "live": true },
        { "id": "c", "scopes": [] },
        { "name": "without an id" },
        "text",
    ]);
    let ids = |more| offered(more, &items).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(json!({})), ["a", "b", "c"]);
    assert_eq!(ids(json!({ "only": { "/type": ["ORGANISATION", "OTHER"] } })), ["a"]);
    assert_eq!(ids(json!({ "only": { "/scopes": ["read"] } })), ["a", "b"]);
    assert_eq!(ids(json!({ "only": { "/scopes": ["read"], "/type": ["PRACTICE"] } })), ["b"]);
    assert_eq!(ids(json!({ "only": { "/live": ["true"] } })), ["a", "b"]);
    assert_eq!(ids(json!({ "patterns": { "cloud_id": "^[b-z]$" } })), ["b", "c"]);
}

#[test]
fn the_same_site_is_offered_once() {
    let items =
        json!([{ "id": "a", "name": "Issues" }, { "id": "a", "name": "Pages" }, { "id": "b", "name": "Issues" }]);
    assert_eq!(offered(json!({}), &items), [pair("a", "Issues"), pair("b", "Issues")]);
}

#[test]
fn a_reply_that_is_none_is_refused_without_a_word_of_it() {
    let entry = entry(json!({ "items": "/sites" }));
    for (status, body, why) in [
        (403, "s3cret", "HTTP status 403"),
        (200, "s3cret", "the reply is not JSON"),
        (200, "[\"s3cret\"]", "the reply has nothing at \"/sites\""),
        (200, "{\"sites\":\"s3cret\"}", "the reply has no list at \"/sites\""),
    ] {
        let refused = read(&entry, &entry.post_connect[0], &reply(status, body));
        assert_eq!(refused, Err(why.to_owned()), "{body}");
    }
}

#[test]
fn the_earlier_site_or_the_only_one_is_taken_and_never_another() {
    let realm = "cloud_id".to_owned();
    let (a, b) = (item("a"), item("b"));
    let none = Captured::new();
    let both = [a.clone(), b.clone()];
    let gone = |offered: Option<&str>| Decision::Gone {
        name: realm.clone(),
        connected: "c".to_owned(),
        offered: offered.map(str::to_owned),
    };
    let earlier = |id| captured(&[("cloud_id", id)]);
    for (items, of_realm, before, expected) in [
        (&both[..1], true, none.clone(), Decision::For(a.clone())),
        (&both, true, none.clone(), Decision::Open),
        (&[], true, none, Decision::Open),
        (&both, true, earlier("b"), Decision::For(b.clone())),
        (&both, true, earlier("c"), gone(None)),
        (&[], true, earlier("c"), gone(None)),
        (&both[..1], true, earlier("c"), gone(Some("a"))),
        // Without a realm another site is no harm, and no choice either.
        (&both, false, earlier("b"), Decision::For(b)),
        (&both, false, earlier("c"), Decision::Open),
        (&both[..1], false, earlier("c"), Decision::For(a)),
    ] {
        let realm: &[&String] = if of_realm { &[&realm] } else { &[] };
        assert_eq!(decide(items, realm, &before), expected, "{items:?} after {before:?}");
    }
}

#[test]
fn what_several_look_ups_offer_is_combined() {
    let other = |id: &str| Item { name: id.to_owned(), captured: captured(&[("team", id)]) };
    let names = |offers| together(offers).into_iter().map(|item: Item| item.name).collect::<Vec<_>>();
    assert_eq!(names(vec![vec![item("a"), item("b")], vec![other("x")]]), ["A, x", "B, x"]);
    assert_eq!(names(vec![vec![item("a")], vec![]]), Vec::<String>::new());
    assert_eq!(names(vec![]), Vec::<String>::new());
    let all = together(vec![vec![item("a")], vec![other("x")]]);
    assert_eq!(all[0].captured, captured(&[("cloud_id", "a"), ("team", "x")]));
}

#[test]
fn an_id_says_which_site_and_nothing_else() {
    let needed = BTreeSet::from(["cloud_id".to_owned()]);
    let of = |values: &[(&str, &str)]| id(&captured(values), &needed);
    assert_eq!(of(&[("cloud_id", "a"), ("name", "x")]), of(&[("cloud_id", "a"), ("name", "y")]));
    assert_ne!(of(&[("cloud_id", "a")]), of(&[("cloud_id", "b")]));
    assert_eq!(of(&[("cloud_id", "a")]).len(), 16);
}

#[test]
fn strangers_names_are_one_line_that_hides_nothing() {
    for (name, expected) in [
        ("Acme  Inc", "Acme Inc"),
        ("a\r\nb\tc\0d", "a b c d"),
        ("\u{202e}gnp.exe", "gnp.exe"),
        ("a\u{200b}\u{feff}b", "a b"),
        ("Zürich 東京", "Zürich 東京"),
        ("\u{200b}", ""),
    ] {
        assert_eq!(shown(name), expected);
    }
    let long = shown(&"ä".repeat(200));
    assert_eq!((long.chars().count(), long.ends_with('…')), (100, true));
}

#[test]
fn the_request_carries_the_token_as_bearer_and_what_is_declared() {
    let entry = entry(json!({ "headers": { "x-version": "7" } }));
    let request = request(&entry.post_connect[0], &Secret::new("t0ken")).expect("a request");
    let header = |name: &str| request.headers[name].to_str().expect("text");
    assert_eq!(
        [header("authorization"), header("accept"), header("x-version")],
        ["Bearer t0ken", "application/json", "7"]
    );
    assert!(request.headers["authorization"].is_sensitive() && request.body.is_empty());
    assert!(super::request(&entry.post_connect[0], &Secret::new("a\r\nb")).is_none());
}

/// A list of nothing must not keep a thread busy.
#[test]
fn a_list_is_not_read_without_end() {
    let mut items = vec![json!({ "id": "../x" }); 5_000];
    items[4_999] = json!({ "id": "last" });
    items.push(json!({ "id": "beyond" }));
    assert_eq!(offered(json!({}), &json!(items)), [pair("last", "last")]);
}
