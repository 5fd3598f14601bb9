//! What every store of the issuer must do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::authorization::{Approval, Authorization, AuthorizationRequest, PendingCode, User, Visit};
use crate::model::client::{ClientKind, RegisteredMethod, Registration};
use crate::model::grant::{AccessToken, EndReason, Grant, RefreshToken};
use crate::model::redirect_uri::{RedirectPolicy, RedirectUri};
use crate::model::scope::ScopeSet;
use crate::store::issuer::{GrantRecord, IssuerStore, NewTokens, Rotation, StoredDocument};
use crate::store::seal::Sealed;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const GRACE: Duration = Duration::from_secs(30);

/// Runs the whole suite on an empty store.
pub async fn run(store: &impl IssuerStore) {
    unused_clients_make_room(store).await;
    documents_are_replaced(store).await;
    visits_end_once(store).await;
    browser_sessions_replace_each_other(store).await;
    approvals_are_kept_by_user_client_and_server(store).await;
    codes_are_redeemed_once_and_their_replay_ends_the_grant(store).await;
    refresh_tokens_have_one_successor(store).await;
    what_is_over_is_swept(store).await;
    assertions_are_used_once(store).await;
    sessions_at_servers_are_remembered(store).await;
}

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn redirect_uri() -> RedirectUri {
    RedirectUri::register("https://client.example/cb", &RedirectPolicy::default()).expect("good")
}

fn user(subject: &str) -> User {
    User { subject: subject.parse().expect("a subject"), account: Some("Alice".to_owned()) }
}

fn authorization(subject: &str) -> Authorization {
    Authorization {
        labels: BTreeMap::new(),
        user: user(subject),
        client_id: "client".to_owned(),
        client_name: "Client".to_owned(),
        server: "notes".parse().expect("a name"),
        resource: "https://sidekey.example/notes/mcp".to_owned(),
        scopes: ScopeSet::from(["mcp".to_owned()]),
        providers: ["notes".parse().expect("a name")].into(),
    }
}

fn pending() -> PendingCode {
    PendingCode {
        authorization: authorization("alice"),
        redirect_uri: redirect_uri(),
        code_challenge: "c".to_owned(),
        expires_at: later(60),
    }
}

fn grant(id: &str) -> GrantRecord {
    let grant = Grant {
        id: id.to_owned(),
        authorization: authorization("alice"),
        created_at: NOW,
        expires_at: later(1_000_000),
        ended: None,
    };
    let mut handle_digest: Digest = [0; 32];
    handle_digest[..id.len()].copy_from_slice(id.as_bytes());
    GrantRecord { grant, handle_digest, handle: Sealed::from_bytes(b"handle".to_vec()) }
}

fn tokens(grant_id: &str, number: u8) -> NewTokens {
    let grant_id = grant_id.to_owned();
    let scopes = ScopeSet::from(["mcp".to_owned()]);
    let access = AccessToken { grant_id: grant_id.clone(), scopes, issued_at: NOW, expires_at: later(3600) };
    let refresh = RefreshToken { grant_id, issued_at: NOW, expires_at: later(7200), replaced_at: None };
    NewTokens { access: ([number; 32], access), refresh: ([number.wrapping_add(100); 32], refresh) }
}

fn refresh_digest(number: u8) -> Digest {
    [number.wrapping_add(100); 32]
}

async fn unused_clients_make_room(store: &impl IssuerStore) {
    let registration = Registration {
        name: "Client".to_owned(),
        redirect_uris: vec![redirect_uri()],
        method: RegisteredMethod::None,
        secret_digest: None,
        jwks: None,
        jwks_uri: None,
        scopes: None,
    };
    for (seconds, id) in [(0, "first"), (1, "second"), (2, "third")] {
        store.put_client(id.to_owned(), registration.clone(), later(seconds), 2).await.expect("kept");
        if id == "first" {
            store.use_client(id.to_owned(), NOW).await.expect("noted");
        }
    }
    store.put_client("fourth".to_owned(), registration.clone(), later(3), 2).await.expect("kept");
    let mut known = Vec::new();
    for id in ["first", "second", "third", "fourth"] {
        known.push(store.client(id.to_owned()).await.expect("asked").is_some());
    }
    assert_eq!(known, [true, false, true, true], "the oldest one that nobody uses has to go");
    assert_eq!(store.client("first".to_owned()).await.expect("asked"), Some(registration));
}

async fn documents_are_replaced(store: &impl IssuerStore) {
    let url = "https://client.example/c".to_owned();
    let document = |body: &str| StoredDocument { body: body.to_owned(), fetched_at: NOW, fresh_until: later(60) };
    assert_eq!(store.client_document(url.clone()).await.expect("asked"), None);
    for body in ["one", "two"] {
        store.put_client_document(url.clone(), document(body)).await.expect("kept");
    }
    assert_eq!(store.client_document(url).await.expect("asked"), Some(document("two")));
}

async fn visits_end_once(store: &impl IssuerStore) {
    let request = AuthorizationRequest {
        client_id: "client".to_owned(),
        client_name: "Client".to_owned(),
        client_kind: ClientKind::Dynamic,
        redirect_uri: redirect_uri(),
        is_assured: false,
        state: Some("s".to_owned()),
        code_challenge: "c".to_owned(),
        server: "notes".parse().expect("a name"),
        resource: "https://sidekey.example/notes/mcp".to_owned(),
        scopes: ScopeSet::new(),
    };
    let visit = Visit {
        id: "v1".to_owned(),
        request,
        providers: ["notes".parse().expect("a name")].into(),
        user: None,
        browser_binding: [1; 32],
        notice: None,
        expires_at: later(900),
    };
    assert!(store.put_visit(visit.clone()).await.expect("asked"));
    let changed = Visit { user: Some(user("alice")), notice: Some("n".to_owned()), ..visit.clone() };
    assert!(store.put_visit(changed.clone()).await.expect("asked"));
    assert_eq!(store.visit(visit.id.clone(), NOW).await.expect("asked"), Some(changed.clone()));
    assert_eq!(store.visit(visit.id.clone(), later(900)).await.expect("asked"), None, "expired");
    assert!(!store.finish_visit(visit.id.clone(), None, later(900)).await.expect("asked"), "expired");
    assert!(store.finish_visit(visit.id.clone(), Some(([40; 32], pending())), NOW).await.expect("asked"));
    assert!(store.code([40; 32]).await.expect("asked").is_some());
    assert!(!store.finish_visit(visit.id.clone(), Some(([41; 32], pending())), NOW).await.expect("asked"));
    assert!(store.code([41; 32]).await.expect("asked").is_none(), "neither or both");
    assert!(!store.put_visit(changed).await.expect("asked"), "it is finished");
    assert_eq!(store.visit(visit.id, NOW).await.expect("asked"), None);
}

async fn browser_sessions_replace_each_other(store: &impl IssuerStore) {
    store.put_browser_session([1; 32], user("alice"), NOW, later(60), None).await.expect("kept");
    assert_eq!(store.browser_session([1; 32], NOW).await.expect("asked"), Some(user("alice")));
    assert_eq!(store.browser_session([1; 32], later(60)).await.expect("asked"), None, "expired");
    store.put_browser_session([2; 32], user("bob"), NOW, later(60), Some([1; 32])).await.expect("kept");
    assert_eq!(store.browser_session([1; 32], NOW).await.expect("asked"), None, "replaced");
    store.end_browser_session([2; 32]).await.expect("ended");
    assert_eq!(store.browser_session([2; 32], NOW).await.expect("asked"), None);
}

async fn approvals_are_kept_by_user_client_and_server(store: &impl IssuerStore) {
    let approval =
        |at| Approval { authorization: authorization("alice"), redirect_uri: redirect_uri(), approved_at: at };
    let find = async |subject: &str, client: &str, server: &str| {
        let (subject, server) = (subject.parse().expect("a subject"), server.parse().expect("a name"));
        store.approval(subject, client.to_owned(), server).await.expect("asked")
    };
    store.put_approval(approval(NOW)).await.expect("kept");
    store.put_approval(approval(later(1))).await.expect("kept");
    assert_eq!(find("alice", "client", "notes").await, Some(approval(later(1))));
    for (subject, client, server) in [("bob", "client", "notes"), ("alice", "other", "notes"), ("alice", "client", "x")]
    {
        assert_eq!(find(subject, client, server).await, None);
    }
    store.forget_approvals("alice".parse().expect("a subject"), "client".to_owned()).await.expect("forgotten");
    assert_eq!(find("alice", "client", "notes").await, None);
}

async fn codes_are_redeemed_once_and_their_replay_ends_the_grant(store: &impl IssuerStore) {
    store.put_code([50; 32], pending()).await.expect("kept");
    assert!(store.code([50; 32]).await.expect("asked").is_some_and(|code| code.used.is_none()));
    assert!(store.redeem_code([50; 32], grant("g_1"), tokens("g_1", 1), NOW).await.expect("asked"));
    let used = store.code([50; 32]).await.expect("asked").and_then(|code| code.used);
    assert_eq!(used, Some(Some("g_1".to_owned())));
    assert!(!store.redeem_code([50; 32], grant("g_2"), tokens("g_2", 2), NOW).await.expect("asked"));
    let grants = store.grants(Some("alice".parse().expect("a subject"))).await.expect("asked");
    assert_eq!(grants.len(), 1, "the second one left nothing");
    assert_eq!(grants[0].grant.ended.as_ref().map(|ended| ended.reason), Some(EndReason::CodeReplayed));
    assert!(store.access_tokens(NOW).await.expect("asked").is_empty());
    store.put_code([51; 32], pending()).await.expect("kept");
    store.burn_code([51; 32], NOW).await.expect("burnt");
    assert!(!store.redeem_code([51; 32], grant("g_3"), tokens("g_3", 3), NOW).await.expect("asked"));
    assert!(!store.redeem_code([52; 32], grant("g_4"), tokens("g_4", 4), NOW).await.expect("asked"), "no such code");
}

async fn refresh_tokens_have_one_successor(store: &impl IssuerStore) {
    let rotate = async |from: u8, to: u8, at: Timestamp| {
        let reply = Sealed::from_bytes(vec![to]);
        store.rotate(refresh_digest(from), tokens("g_5", to), reply, at, GRACE).await.expect("asked")
    };
    let is_repeated =
        |rotation: &Rotation, number: u8| matches!(rotation, Rotation::Repeated(reply) if reply.as_bytes() == [number]);
    store.put_code([60; 32], pending()).await.expect("kept");
    assert!(store.redeem_code([60; 32], grant("g_5"), tokens("g_5", 10), NOW).await.expect("asked"));
    assert!(matches!(rotate(10, 11, NOW).await, Rotation::Rotated));
    assert!(is_repeated(&rotate(10, 12, later(29)).await, 11), "the same successor");
    assert!(store.refresh_token(refresh_digest(12)).await.expect("asked").is_none(), "and no other");
    assert!(matches!(rotate(11, 13, later(29)).await, Rotation::Rotated));
    assert_eq!(store.access_tokens(NOW).await.expect("asked").len(), 3, "earlier access tokens live on");
    assert!(matches!(rotate(99, 14, later(29)).await, Rotation::Refused), "unknown");
    assert!(matches!(rotate(13, 14, later(7200)).await, Rotation::Refused), "expired");
    // Its successor was used already: within the grace or not, somebody has a copy.
    assert!(matches!(rotate(10, 14, later(29)).await, Rotation::Reused));
    assert!(matches!(rotate(13, 14, later(29)).await, Rotation::Refused), "the grant is over");
    assert!(store.access_tokens(NOW).await.expect("asked").is_empty());
    store.put_code([61; 32], pending()).await.expect("kept");
    assert!(store.redeem_code([61; 32], grant("g_6"), tokens("g_6", 20), NOW).await.expect("asked"));
    let reply = Sealed::from_bytes(vec![0]);
    let rotated = store.rotate(refresh_digest(20), tokens("g_6", 21), reply.clone(), NOW, GRACE).await;
    assert!(matches!(rotated.expect("asked"), Rotation::Rotated));
    let reused = store.rotate(refresh_digest(20), tokens("g_6", 22), reply, later(30), GRACE).await;
    assert!(matches!(reused.expect("asked"), Rotation::Reused), "the grace is over");
    assert!(!store.end_grant("g_6".to_owned(), EndReason::RevokedByUser, NOW).await.expect("asked"), "ended already");
}

async fn what_is_over_is_swept(store: &impl IssuerStore) {
    let month = later(31 * 86_400);
    store.put_code([70; 32], pending()).await.expect("kept");
    assert!(store.redeem_code([70; 32], grant("g_7"), tokens("g_7", 30), NOW).await.expect("asked"));
    store.sweep_issuer(NOW, NOW).await.expect("swept");
    assert!(store.refresh_token(refresh_digest(30)).await.expect("asked").is_some(), "what is live stays");
    store.sweep_issuer(month, NOW).await.expect("swept");
    assert!(store.code([70; 32]).await.expect("asked").is_none());
    let left = store.grants(None).await.expect("asked");
    assert!(left.iter().all(|record| record.grant.ended.is_none()), "{left:?}");
    assert!(store.client("third".to_owned()).await.expect("asked").is_some(), "it was registered after that");
    store.sweep_issuer(month, month).await.expect("swept");
    assert!(store.client("third".to_owned()).await.expect("asked").is_none(), "nobody ever used it");
    assert!(store.client("first".to_owned()).await.expect("asked").is_some());
}

async fn assertions_are_used_once(store: &impl IssuerStore) {
    assert!(store.use_assertion([1; 32], later(60)).await.expect("asked"));
    assert!(!store.use_assertion([1; 32], later(60)).await.expect("asked"));
    assert!(store.use_assertion([2; 32], later(60)).await.expect("asked"));
}

async fn sessions_at_servers_are_remembered(store: &impl IssuerStore) {
    let server = "notes".parse::<crate::model::names::ServerName>().expect("a name");
    let subject = "alice".parse().expect("a subject");
    store.put_mcp_session(server.clone(), [1; 32], subject, NOW).await.expect("kept");
    let sessions = store.mcp_sessions().await.expect("asked");
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].0.as_str(), sessions[0].1, sessions[0].2.as_str()), ("notes", [1; 32], "alice"));
    store.forget_mcp_session(server.clone(), [2; 32]).await.expect("nothing to forget");
    assert_eq!(store.mcp_sessions().await.expect("asked").len(), 1);
    store.forget_mcp_session(server, [1; 32]).await.expect("forgotten");
    assert!(store.mcp_sessions().await.expect("asked").is_empty());
}
