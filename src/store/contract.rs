//! What every store must do, as one suite. A new backend passes it before it is used.

mod issuer;

use std::collections::BTreeSet;
use std::time::Duration;

use super::Store;
use super::issuer::IssuerStore;
use super::keyring::KeyId;
use super::record::{
    Alternate, Beginning, ConnectionRecord, FlowRecord, Intent, Recapture, RefreshFailure, RefreshedTokens, field,
};
use super::seal::Sealed;
use crate::base::clock::Timestamp;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState, RefreshTrouble};
use crate::model::continuation::Continuation;
use crate::model::flow::{Allowance, ConnectLink, Flow, FlowId, Purpose};
use crate::model::handle::HandleRecord;
use crate::model::names::Label;
use crate::model::return_to::ReturnTo;
use crate::store::TakenFlow;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Runs the whole suite on an empty store.
pub async fn run(store: impl Store + IssuerStore) {
    links_and_flows_are_used_once(&store).await;
    one_connection_per_key(&store).await;
    refreshes_are_compared_by_generation(&store).await;
    interrupted_refreshes_are_found(&store).await;
    due_refreshes_are_listed_by_urgency(&store).await;
    alternates_are_kept_until_a_refresh_works(&store).await;
    ends_of_grants_are_named_once(&store).await;
    the_guard_counts_refreshes(&store).await;
    looked_up_values_are_compared_and_changed_together(&store).await;
    sealed_values_are_found_and_replaced(&store).await;
    handles_are_listed_and_revoked(&store).await;
    issuer::run(&store).await;
    store.health().await.expect("healthy");
}

/// A connection with made-up tokens.
pub fn connection(subject: &str, id: &str) -> ConnectionRecord {
    ConnectionRecord {
        id: id.to_owned(),
        key: key(subject),
        state: ConnectionState::Active,
        captured: Captured::from([("realm_id".to_owned(), "1234567890".to_owned())]),
        earlier_site: None,
        scopes: Some(vec!["a".to_owned()]),
        requested_scopes: Some(vec!["a".to_owned(), "b".to_owned()]),
        account: Some("alice@example.com".to_owned()),
        generation: 1,
        access_token: Sealed::from_bytes(b"sealed access".to_vec()),
        access_expires_at: Some(NOW.plus(Duration::from_secs(3600))),
        refresh_token: Some(Sealed::from_bytes(b"sealed refresh".to_vec())),
        previous_refresh_token: None,
        refresh_token_since: Some(NOW),
        refresh_expires_at: Some(NOW.plus(Duration::from_secs(86_400))),
        grant_expires_at: None,
        refresh_due_at: None,
        intent: None,
        trouble: None,
        connected_at: NOW,
        refreshed_at: None,
    }
}

fn key(subject: &str) -> ConnectionKey {
    let (subject, provider) = (subject.parse().expect("a subject"), "ledger".parse().expect("a provider"));
    ConnectionKey::new(subject, provider, Label::default())
}

async fn links_and_flows_are_used_once(store: &impl Store) {
    let (link, id) = ([1; 32], FlowId([2; 16]));
    let expires_at = NOW.plus(Duration::from_secs(600));
    let url = "https://app.example/done".to_owned();
    let back = ReturnTo { url, subject: "alice".parse().expect("a subject"), label: Label::default() };
    let (continuation, apis) = (Continuation::Return(back), Some(BTreeSet::from(["ledger".to_owned()])));
    let kept = ConnectLink { key: key("alice"), continuation, apis, api_key: Some([7; 32]), expires_at };
    store.put_connect_link(link, kept.clone()).await.expect("kept");
    for _ in 0..2 {
        let found = store.connect_link(link, NOW).await.expect("read").expect("looking consumes nothing");
        assert_eq!((found.key, found.continuation), (key("alice"), kept.continuation.clone()));
        assert_eq!((found.apis, found.api_key), (kept.apis.clone(), kept.api_key));
    }
    assert!(store.connect_link(link, expires_at).await.expect("read").is_none(), "expired");
    assert!(store.connect_link([9; 32], NOW).await.expect("read").is_none(), "unknown");

    let purpose = Purpose::Connect(key("alice"));
    let (continuation, requested_scopes) = (Continuation::Done, vec!["a".to_owned()]);
    let allowance = Some(Allowance { until: expires_at, api_key: Some([7; 32]) });
    let flow = Flow { id, purpose, continuation, browser_binding: [3; 32], requested_scopes, allowance, expires_at };
    let flow = FlowRecord { flow, verifier: Some(Sealed::from_bytes(b"v".to_vec())) };
    assert!(!store.begin_flow(link, flow.clone(), expires_at).await.expect("asked"), "the link has expired");
    assert!(store.begin_flow(link, flow.clone(), NOW).await.expect("asked"));
    let second = FlowRecord { flow: Flow { id: FlowId([4; 16]), ..flow.flow.clone() }, verifier: None };
    assert!(!store.begin_flow(link, second, NOW).await.expect("asked"), "the link is used up");
    assert!(store.connect_link(link, NOW).await.expect("read").is_none());
    assert!(matches!(store.take_flow(FlowId([4; 16]), NOW).await.expect("asked"), TakenFlow::Unknown));

    assert_eq!(store.flow(id).await.expect("read").expect("there").flow.browser_binding, [3; 32]);
    let TakenFlow::Open(taken) = store.take_flow(id, NOW).await.expect("asked") else { panic!("it was open") };
    assert_eq!((&taken.flow.purpose, taken.verifier), (&Purpose::Connect(key("alice")), flow.verifier));
    assert_eq!(taken.flow.requested_scopes, ["a"]);
    assert_eq!(taken.flow.allowance, flow.flow.allowance);
    assert!(matches!(store.take_flow(id, NOW).await.expect("asked"), TakenFlow::AlreadyUsed));

    store.sweep(expires_at.plus(Duration::from_secs(3601))).await.expect("swept");
    assert!(matches!(store.take_flow(id, NOW).await.expect("asked"), TakenFlow::Unknown));
}

async fn one_connection_per_key(store: &impl Store) {
    store.connect(vec![connection("alice", "c_old")], NOW).await.expect("kept");
    store.connect(vec![connection("alice", "c_new")], NOW).await.expect("supersedes");
    store.connect(vec![connection("bob", "c_bob")], NOW).await.expect("kept");
    let found = store.connection(key("alice")).await.expect("read").expect("there");
    assert_eq!((found.id.as_str(), found.captured["realm_id"].as_str()), ("c_new", "1234567890"));
    assert_eq!(found.requested_scopes, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(found.account.as_deref(), Some("alice@example.com"));
    let without = ConnectionRecord { requested_scopes: None, account: None, ..connection("erin", "c_erin") };
    store.connect(vec![without], NOW).await.expect("kept");
    let found = store.connection(key("erin")).await.expect("read").expect("there");
    assert_eq!((found.requested_scopes, found.account), (None, None));
    store.disconnect(key("erin"), None, NOW).await.expect("ended");
    assert_eq!(store.connections(Some("alice".parse().expect("valid"))).await.expect("read").len(), 1);
    assert_eq!(store.connections(None).await.expect("read").len(), 2);
    let after = async |after: Option<&str>, prefix: &str, limit| {
        let found = store.connections_after(after.map(key), prefix.to_owned(), limit).await.expect("read");
        found.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(after(None, "", 10).await, ["c_new", "c_bob"]);
    assert_eq!(after(None, "", 1).await, ["c_new"]);
    assert_eq!(after(Some("alice"), "", 10).await, ["c_bob"]);
    assert_eq!(after(Some("bob"), "", 10).await, Vec::<String>::new());
    assert_eq!(after(None, "bo", 10).await, ["c_bob"]);
    assert_eq!(after(Some("alice"), "al", 10).await, Vec::<String>::new());
    let counts = store.count_connections().await.expect("counted");
    assert_eq!(counts, [("ledger".to_owned(), "active".to_owned(), 2)]);
    assert!(store.connection(key("carol")).await.expect("read").is_none());
    let duplicate = store.connect(vec![connection("dave", "c_new")], NOW).await;
    assert!(duplicate.is_err(), "an id is never reused");
    assert!(store.connection(key("dave")).await.expect("read").is_none());
}

/// The same attempt after another one.
fn begin(after: Option<&str>) -> Beginning {
    let unheard_of_at = NOW.plus(Duration::from_secs(600));
    Beginning { intent: intent(), after: after.map(str::to_owned), unheard_of_at }
}

fn intent() -> Intent {
    Intent { attempt: "a_1".to_owned(), started_at: NOW, refresh_token_digest: [7; 32] }
}

fn tokens(access_token: &[u8]) -> RefreshedTokens {
    RefreshedTokens {
        access_token: Sealed::from_bytes(access_token.to_vec()),
        access_expires_at: None,
        refresh_token: Some(Sealed::from_bytes(b"next".to_vec())),
        previous_refresh_token: Some(Sealed::from_bytes(b"previous".to_vec())),
        refresh_expires_at: None,
        grant_expires_at: None,
        refresh_due_at: Some(NOW),
        scopes: None,
        captured: Captured::from([("api_url".to_owned(), "https://a.example".to_owned())]),
        refreshed_at: NOW,
    }
}

async fn refreshes_are_compared_by_generation(store: &impl Store) {
    let id = "c_new".to_owned();
    assert_eq!(store.begin_refresh(id.clone(), 2, begin(None)).await.expect("asked"), None, "another generation");
    assert_eq!(store.begin_refresh(id.clone(), 1, begin(None)).await.expect("asked"), Some(1));
    assert!(!store.complete_refresh(id.clone(), 2, tokens(b"wrong")).await.expect("asked"));
    assert!(store.complete_refresh(id.clone(), 1, tokens(b"right")).await.expect("asked"));
    assert!(!store.complete_refresh(id.clone(), 1, tokens(b"late")).await.expect("asked"), "it came too late");
    let found = store.connection(key("alice")).await.expect("read").expect("there");
    assert_eq!((found.generation, found.access_token.as_bytes()), (2, b"right".as_slice()));
    assert_eq!(found.previous_refresh_token.expect("kept").as_bytes(), b"previous");
    assert_eq!((found.intent, found.scopes), (None, Some(vec!["a".to_owned()])));
    assert_eq!(found.captured.len(), 2, "captured values are laid over the old ones");
    assert!(found.refresh_expires_at.is_some(), "a reply that does not say keeps what was known");

    let trouble =
        RefreshTrouble { failures: 3, last_error: "http 500".to_owned(), needs_operator: true, in_doubt_since: None };
    let state = ConnectionState::NeedsReauth { reason: "invalid_grant".to_owned() };
    let failure = RefreshFailure { trouble: trouble.clone(), attempt: None, retry_at: None, state: state.clone() };
    assert!(!store.fail_refresh(id.clone(), 1, failure.clone()).await.expect("asked"));
    assert!(store.fail_refresh(id.clone(), 2, failure).await.expect("asked"));
    let found = store.connection(key("alice")).await.expect("read").expect("kept");
    assert_eq!((found.state, found.trouble), (state, Some(trouble)));
    assert!(found.refresh_token.is_some(), "nothing is deleted");
    assert_eq!(store.begin_refresh(id, 2, begin(None)).await.expect("asked"), None, "it is not active");
}

async fn interrupted_refreshes_are_found(store: &impl Store) {
    let id = "c_bob".to_owned();
    assert!(store.interrupted_refreshes().await.expect("read").is_empty());
    assert_eq!(store.begin_refresh(id.clone(), 1, begin(None)).await.expect("asked"), Some(2));
    let found = store.interrupted_refreshes().await.expect("read");
    assert_eq!(found.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["c_bob"]);
    assert_eq!(found[0].intent, Some(intent()));
    let in_doubt = RefreshFailure {
        trouble: RefreshTrouble {
            failures: 1,
            last_error: "lost".to_owned(),
            needs_operator: false,
            in_doubt_since: Some(NOW),
        },
        attempt: Some("a_1".to_owned()),
        retry_at: Some(NOW),
        state: ConnectionState::Active,
    };
    let of_another = RefreshFailure { attempt: Some("a_2".to_owned()), ..in_doubt.clone() };
    assert!(!store.fail_refresh(id.clone(), 1, of_another).await.expect("asked"), "another attempt's");
    assert_eq!(store.begin_refresh(id.clone(), 1, begin(None)).await.expect("asked"), None, "one is under way");
    assert!(store.fail_refresh(id.clone(), 1, in_doubt.clone()).await.expect("asked"));
    assert_eq!(store.interrupted_refreshes().await.expect("read").len(), 1, "what is in doubt is looked at again");
    assert!(store.begin_refresh(id.clone(), 1, begin(Some("a_1"))).await.expect("asked").is_some(), "once more");
    assert!(store.refresh_due(NOW, 10, Vec::new()).await.expect("read").is_empty(), "what is under way is not due");
    assert!(store.fail_refresh(id, 1, in_doubt).await.expect("asked"));
    let found = store.connection(key("bob")).await.expect("read").expect("there");
    assert_eq!(found.intent, Some(intent()), "what is in doubt keeps its intent");
}

async fn due_refreshes_are_listed_by_urgency(store: &impl Store) {
    for (subject, due_in) in [("eve", 20), ("frank", 10), ("grace", 30)] {
        let due = Some(NOW.plus(Duration::from_secs(due_in)));
        let record = ConnectionRecord { refresh_due_at: due, ..connection(subject, &format!("c_{subject}")) };
        store.connect(vec![record], NOW).await.expect("kept");
    }
    assert_eq!(store.next_refresh().await.expect("read"), Some(NOW), "bob's");
    let due = store.refresh_due(NOW.plus(Duration::from_secs(20)), 10, Vec::new()).await.expect("read");
    let subjects: Vec<_> = due.iter().map(|key| key.subject.as_str()).collect();
    assert_eq!(subjects, ["bob", "frank", "eve"]);
    let busy = vec!["code".parse().expect("valid"), "ledger".parse().expect("valid")];
    assert!(store.refresh_due(NOW.plus(Duration::from_secs(20)), 10, busy).await.expect("read").is_empty());
    assert_eq!(store.refresh_due(NOW.plus(Duration::from_secs(20)), 1, Vec::new()).await.expect("read").len(), 1);
}

async fn alternates_are_kept_until_a_refresh_works(store: &impl Store) {
    let id = "c_eve".to_owned();
    let alternate = |number: u64| Alternate {
        generation: number,
        refresh_token: Sealed::from_bytes(vec![u8::try_from(number).expect("small")]),
        obtained_at: NOW.plus(Duration::from_secs(number)),
    };
    for number in 1..=12 {
        store.keep_alternate(id.clone(), alternate(number)).await.expect("kept");
    }
    let kept = store.alternates(id.clone()).await.expect("read");
    let generations: Vec<u64> = kept.iter().map(|alternate| alternate.generation).collect();
    assert_eq!(generations, [12, 11, 10, 9, 8, 7, 6, 5], "the newest first, and not without end");
    assert_eq!(kept[0].refresh_token.as_bytes(), [12]);
    assert!(!store.complete_refresh(id.clone(), 9, tokens(b"late")).await.expect("asked"));
    assert_eq!(store.alternates(id.clone()).await.expect("read").len(), 8, "nothing has worked");
    assert!(store.complete_refresh(id.clone(), 1, tokens(b"eve")).await.expect("asked"));
    assert!(store.alternates(id).await.expect("read").is_empty());
}

async fn ends_of_grants_are_named_once(store: &impl Store) {
    let ends_at = NOW.plus(Duration::from_secs(1000));
    let record = ConnectionRecord { grant_expires_at: Some(ends_at), ..connection("heidi", "c_heidi") };
    store.connect(vec![record], NOW).await.expect("kept");
    assert!(store.announce_grant_ends(ends_at.minus(Duration::from_secs(1))).await.expect("asked").is_empty());
    assert_eq!(store.announce_grant_ends(ends_at).await.expect("asked"), [(key("heidi"), ends_at)]);
    assert!(store.announce_grant_ends(ends_at).await.expect("asked").is_empty());
    let moved = |seconds| RefreshedTokens {
        grant_expires_at: Some(ends_at.plus(Duration::from_secs(seconds))),
        ..tokens(b"heidi")
    };
    let far = ends_at.plus(Duration::from_secs(86_400));
    assert!(store.complete_refresh("c_heidi".to_owned(), 1, moved(1)).await.expect("asked"));
    assert!(store.announce_grant_ends(far).await.expect("asked").is_empty(), "the same end, told a little differently");
    assert!(store.complete_refresh("c_heidi".to_owned(), 2, moved(7_200)).await.expect("asked"));
    assert_eq!(store.announce_grant_ends(far).await.expect("asked").len(), 1, "another end");
}

async fn the_guard_counts_refreshes(store: &impl Store) {
    let before = store.guard().await.expect("read");
    assert!(before.store_id.len() >= 32 && before.instance.is_none() && before.successor.is_none());
    let begun = store.begin_refresh("c_heidi".to_owned(), 3, begin(None)).await.expect("asked");
    assert_eq!(begun, Some(before.refreshes + 1));
    store.announce_successor("i_1".to_owned(), before.refreshes + 10).await.expect("kept");
    let between = store.guard().await.expect("read");
    assert_eq!(
        (between.refreshes, between.instance, between.successor.as_deref()),
        (before.refreshes + 10, None, Some("i_1"))
    );
    store.succeed("i_1".to_owned()).await.expect("kept");
    store.announce_successor("i_2".to_owned(), 0).await.expect("kept");
    let after = store.guard().await.expect("read");
    assert_eq!(after.refreshes, before.refreshes + 10, "it never counts back");
    assert_eq!((after.instance.as_deref(), after.successor.as_deref()), (Some("i_1"), Some("i_2")));
    assert_eq!(after.store_id, before.store_id);
}

async fn looked_up_values_are_compared_and_changed_together(store: &impl Store) {
    let token = |name: Option<&str>| key("judy").with_token(name.map(|name| name.parse().expect("a name")));
    let values = |pairs: &[(&str, &str)]| -> Captured {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let (first, site) = (values(&[("realm_id", "1")]), values(&[("site", "old")]));
    let record = |id: &str, name| ConnectionRecord {
        key: token(name),
        captured: first.clone(),
        earlier_site: Some(site.clone()),
        ..connection("judy", id)
    };
    store.connect(vec![record("c_judy", None), record("c_judy_user", Some("user"))], NOW).await.expect("kept");
    let read = async |name| store.connection(token(name)).await.expect("read").expect("there");
    assert_eq!(read(None).await.earlier_site, Some(site));
    let change = |id: &str, before: Captured, after: Captured| Recapture {
        id: id.to_owned(),
        names: ["site".to_owned(), "name".to_owned()].into(),
        before,
        values: after,
    };
    let (none, b) = (Captured::new(), values(&[("name", "B"), ("site", "b")]));
    let nothing: Vec<String> = Vec::new();
    for (id, before) in [("c_other", none.clone()), ("c_judy_user", none.clone()), ("c_judy", b.clone())] {
        let changed = store.recapture(key("judy"), change(id, before, b.clone())).await.expect("asked");
        assert_eq!(changed, nothing, "{id}");
    }
    assert_eq!(read(None).await.captured, first, "nothing has changed");
    let sealed = read(None).await.access_token;
    let changed = store.recapture(key("judy"), change("c_judy", none.clone(), b.clone())).await.expect("asked");
    assert_eq!(changed, ["c_judy", "c_judy_user"]);
    for name in [None, Some("user")] {
        let stored = read(name).await;
        assert_eq!(stored.captured, values(&[("name", "B"), ("realm_id", "1"), ("site", "b")]));
        assert_eq!((stored.earlier_site, stored.generation, &stored.access_token), (None, 1, &sealed));
    }
    let other = change("c_judy", b, values(&[("site", "c")]));
    assert_eq!(store.recapture(key("judy"), other).await.expect("asked").len(), 2);
    assert_eq!(read(None).await.captured, values(&[("realm_id", "1"), ("site", "c")]), "a value that is gone is gone");
    assert!(store.complete_refresh("c_judy".to_owned(), 1, tokens(b"judy")).await.expect("asked"));
    assert_eq!(read(None).await.captured["site"], "c", "a refresh changes nothing about it");
    store.disconnect(key("judy"), None, NOW).await.expect("asked");
    let ended = store.recapture(key("judy"), change("c_judy", values(&[("site", "c")]), none)).await.expect("asked");
    assert_eq!(ended, nothing);
}

async fn sealed_values_are_found_and_replaced(store: &impl Store) {
    let (active, other) = (KeyId([1; 4]), KeyId([2; 4]));
    let by = |key: KeyId, text: &[u8]| Sealed::from_bytes([&[1], key.0.as_slice(), text].concat());
    let record = ConnectionRecord {
        access_token: by(other, b"access"),
        refresh_token: Some(by(active, b"refresh")),
        ..connection("ivan", "c_ivan")
    };
    store.connect(vec![record], NOW).await.expect("kept");
    let used = store.key_use().await.expect("read");
    let values = |id| used.iter().find(|used| used.id == id).map(|used| used.values);
    assert_eq!((values(active), values(other)), (Some(1), Some(1)));
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let more = store.sealed_by_others(active, after, 3).await.expect("read");
        let Some(last) = more.last() else { break };
        after = Some(last.place);
        found.extend(more);
    }
    let value = found.iter().find(|value| value.record == "c_ivan").expect("there");
    assert_eq!((value.purpose, value.field, value.subject.as_str()), ("connection", field::ACCESS_TOKEN, "ivan"));
    assert_eq!(found.iter().filter(|value| value.record == "c_ivan").count(), 1, "each once");
    let new = by(active, b"access");
    assert!(store.replace_sealed(value.place, value.sealed.clone(), new.clone()).await.expect("asked"));
    assert!(!store.replace_sealed(value.place, value.sealed.clone(), new.clone()).await.expect("asked"), "it changed");
    let stored = store.connection(key("ivan")).await.expect("read").expect("there");
    assert_eq!(stored.access_token, new);
}

async fn handles_are_listed_and_revoked(store: &impl Store) {
    let handle = HandleRecord {
        id: "h_1".to_owned(),
        subject: "alice".parse().expect("valid"),
        providers: Some(["code".parse().expect("valid")].into()),
        label: Some("branch".parse().expect("valid")),
        tunnels: true,
        created_at: NOW,
        expires_at: Some(NOW),
        revoked_at: None,
    };
    store.put_handle([5; 32], handle.clone()).await.expect("kept");
    assert_eq!(store.handles().await.expect("read"), [([5; 32], handle.clone())]);
    let later = NOW.plus(Duration::from_secs(60));
    assert!(!store.renew_handle("h_2".to_owned(), later).await.expect("asked"));
    assert!(store.renew_handle("h_1".to_owned(), later).await.expect("asked"));
    assert_eq!(store.handles().await.expect("read")[0].1.expires_at, Some(later));
    assert!(!store.revoke_handle("h_2".to_owned(), NOW).await.expect("asked"));
    assert!(store.revoke_handle("h_1".to_owned(), NOW).await.expect("asked"));
    assert!(store.revoke_handle("h_1".to_owned(), NOW.plus(Duration::from_secs(1))).await.expect("again"));
    assert_eq!(store.handles().await.expect("read")[0].1.revoked_at, Some(NOW), "the first revocation counts");
    assert!(!store.renew_handle("h_1".to_owned(), later).await.expect("asked"), "what was revoked stays so");
    let lasting = HandleRecord { id: "h_2".to_owned(), label: None, expires_at: None, ..handle };
    store.put_handle([6; 32], lasting.clone()).await.expect("kept");
    store.sweep(later.plus(Duration::from_secs(30 * 86_400))).await.expect("swept");
    assert_eq!(store.handles().await.expect("read").len(), 2, "it is told for a while that a handle has expired");
    store.sweep(later.plus(Duration::from_secs(30 * 86_400 + 1))).await.expect("swept");
    assert_eq!(store.handles().await.expect("read"), [([6; 32], lasting)]);
}
