//! The vault with a clock that is moved by hand, a provider that answers from a script, and a real store.

mod recovery;
mod sites;

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::http::{HttpError, Request, Response};
use crate::base::random::SystemRandom;
use crate::base::secret::{Secret, SecretKey};
use crate::catalogue::provider::PreparedCredential;
use crate::catalogue::provider::tests::provider;
use crate::model::connection::{Captured, ConnectionState};
use crate::model::names::Label;
use crate::store::keyring::KeyRing;
use crate::store::record::{Beginning, connection_context, field};
use crate::store::sentinel::Sentinel;
use crate::store::sqlite::SqliteStore;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

const SINGLE_USE: &str = "model = 'single_use'";

/// What the token endpoint does next.
enum Scripted {
    Grant { access: &'static str, refresh: Option<&'static str> },
    Status(u16, &'static str),
    NotSent,
    Lost,
    Panic,
}

/// A token endpoint that answers from a script and remembers what it was sent. It answers only as often as it is let.
struct ScriptedProvider {
    script: Mutex<VecDeque<Scripted>>,
    sent: Mutex<Vec<String>>,
    gate: Semaphore,
}

#[async_trait]
impl HttpClient for ScriptedProvider {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        self.sent.lock().unwrap().push(String::from_utf8(request.body.to_vec()).unwrap());
        self.gate.acquire().await.unwrap().forget();
        let reply = |status: u16, body: String| Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.into_bytes()),
        };
        let next = self.script.lock().unwrap().pop_front();
        match next.expect("more requests than the script has answers") {
            Scripted::Grant { access, refresh } => {
                let refresh = refresh.map_or_else(String::new, |token| format!(",\"refresh_token\":\"{token}\""));
                Ok(reply(200, format!("{{\"access_token\":\"{access}\",\"expires_in\":3600{refresh}}}")))
            }
            Scripted::Status(status, body) => Ok(reply(status, body.to_owned())),
            Scripted::NotSent => Err(HttpError::NotSent("refused".to_owned())),
            Scripted::Panic => panic!("as a bug would"),
            Scripted::Lost => Err(HttpError::Ambiguous("reset".to_owned())),
        }
    }
}

struct Bench {
    vault: Arc<Vault>,
    store: Arc<SqliteStore>,
    sealer: Sealer,
    clock: ManualClock,
    provider: Arc<ScriptedProvider>,
    key: ConnectionKey,
    _home: tempfile::TempDir,
}

impl Bench {
    /// A connection at `provider_name` whose access token `at1` lives for an hour from [`NOW`].
    async fn new(provider_name: &str, script: impl IntoIterator<Item = Scripted>) -> Self {
        Self::with(provider_name, script, |_| {}, None).await
    }

    /// The same at a provider that rotates like this.
    async fn rotating(rotation: &str, script: impl IntoIterator<Item = Scripted>) -> Self {
        let rotation = toml::from_str(rotation).unwrap();
        Self::with("quickbooks", script, |entry| entry.rotation = rotation, None).await
    }

    /// The same at a provider whose entry was changed, and with a sentinel.
    async fn with(
        provider_name: &str,
        script: impl IntoIterator<Item = Scripted>,
        change: impl FnOnce(&mut crate::catalogue::entry::Entry),
        sentinel: Option<Sentinel>,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&home.path().join("store")).unwrap());
        let sealer = Sealer::new(KeyRing::new(vec![SecretKey::new([1; 32])]).unwrap(), Arc::new(SystemRandom));
        let clock = ManualClock::at(NOW);
        let scripted = Arc::new(ScriptedProvider {
            script: Mutex::new(script.into_iter().collect()),
            sent: Mutex::default(),
            gate: Semaphore::new(1000),
        });
        let mut provider = provider(provider_name);
        change(&mut provider.entry);
        let key = ConnectionKey::new("alice".parse().unwrap(), provider.name.clone(), Label::default());
        let vault = Vault::new(Parts {
            store: store.clone(),
            sealer: sealer.clone(),
            metrics: Arc::new(Metrics::new([provider.name.clone()].iter()).unwrap()),
            providers: [(provider.name.clone(), Arc::new(provider))].into(),
            http: scripted.clone(),
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
            refresh_ahead: RefreshAhead::default(),
            health: Arc::new(Health::default()),
            audit: crate::telemetry::audit::Audit::none(Arc::new(clock.clone())),
            grant_end_notice: 7 * 24 * HOUR,
            guard: Arc::new(Guard::new(sentinel)),
        });
        let bench = Self { vault, store, sealer, clock, provider: scripted, key, _home: home };
        bench.store.connect(vec![bench.connection(Some(NOW.plus(HOUR)))], NOW).await.unwrap();
        bench
    }

    fn connection(&self, expires_at: Option<Timestamp>) -> ConnectionRecord {
        let seal =
            |field, token: &str| self.sealer.seal(&connection_context(&self.key, "c_1", field, 1), &Secret::new(token));
        ConnectionRecord {
            id: "c_1".to_owned(),
            key: self.key.clone(),
            state: ConnectionState::Active,
            captured: Captured::new(),
            earlier_site: None,
            scopes: None,
            requested_scopes: None,
            account: None,
            generation: 1,
            access_token: seal(field::ACCESS_TOKEN, "at1"),
            access_expires_at: expires_at,
            refresh_token: Some(seal(field::REFRESH_TOKEN, "rt1")),
            previous_refresh_token: None,
            refresh_token_since: Some(NOW),
            refresh_expires_at: None,
            grant_expires_at: None,
            refresh_due_at: expires_at.map(|expires_at| expires_at.minus(Duration::from_secs(300))),
            intent: None,
            trouble: None,
            connected_at: NOW,
            refreshed_at: None,
        }
    }

    async fn token(&self) -> Result<String, TokenError> {
        let live = self.vault.token_for(&self.key).await?;
        let credential = PreparedCredential {
            header: http::header::AUTHORIZATION,
            declared: crate::catalogue::entry::Credential::default(),
        };
        let value = live.header_value(&credential).unwrap();
        Ok(value.to_str().unwrap().trim_start_matches("Bearer ").to_owned())
    }

    async fn stored(&self) -> ConnectionRecord {
        self.store.connection(self.key.clone()).await.unwrap().unwrap()
    }

    fn opened(&self, record: &ConnectionRecord, name: &str) -> Option<String> {
        let sealed = match name {
            field::REFRESH_TOKEN => record.refresh_token.as_ref(),
            _ => record.previous_refresh_token.as_ref(),
        };
        sealed.map(|sealed| self.sealer.open(&record.seal_context(name), sealed).unwrap().expose().to_owned())
    }

    fn requests(&self) -> usize {
        self.provider.sent.lock().unwrap().len()
    }

    /// Moves the clock each time that somebody waits on it, until `done`.
    async fn keep_time<T>(&self, step: Duration, done: impl Future<Output = T>) -> T {
        self.keep_time_for(1, step, done).await
    }

    /// The same for a request: it waits on the clock itself, so what counts is whether the refresh does too.
    async fn keep_time_of_request<T>(&self, step: Duration, done: impl Future<Output = T>) -> T {
        self.keep_time_for(2, step, done).await
    }

    async fn keep_time_for<T>(&self, sleepers: usize, step: Duration, done: impl Future<Output = T>) -> T {
        tokio::pin!(done);
        loop {
            tokio::select! {
                biased;
                result = &mut done => return result,
                () = tokio::task::yield_now() => if self.clock.sleepers() >= sleepers { self.clock.advance(step) },
            }
        }
    }
}

fn grant(access: &'static str, refresh: Option<&'static str>) -> Scripted {
    Scripted::Grant { access, refresh }
}

fn failed(why: &'static str) -> Scripted {
    Scripted::Status(400, why)
}

#[tokio::test]
async fn a_fresh_token_is_used_without_asking_anybody() {
    let bench = Bench::new("quickbooks", []).await;
    assert_eq!(bench.token().await.unwrap(), "at1");
    assert_eq!(bench.requests(), 0);
}

#[tokio::test]
async fn a_token_that_is_due_is_used_while_it_is_refreshed() {
    let bench = Bench::new("quickbooks", [grant("at2", Some("rt2"))]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR - Duration::from_secs(299));
    assert_eq!(bench.token().await.unwrap(), "at1", "nobody waits while it is valid");
    bench.provider.gate.add_permits(1);
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "at2");
    let stored = bench.stored().await;
    assert_eq!((stored.generation, &stored.intent), (2, &None));
    assert_eq!(bench.opened(&stored, field::REFRESH_TOKEN).as_deref(), Some("rt2"));
    assert_eq!(bench.opened(&stored, field::PREVIOUS_REFRESH_TOKEN).as_deref(), Some("rt1"));
}

/// A refresh that nobody awaited once kept every later one from beginning.
#[tokio::test]
async fn refreshes_that_nobody_waits_for_follow_one_another() {
    let bench = Bench::new("quickbooks", [grant("at2", None), grant("at3", None)]).await;
    for expected in ["at2", "at3"] {
        bench.clock.advance(HOUR - Duration::from_secs(100));
        bench.token().await.unwrap();
        bench.vault.settled().await;
        assert_eq!(bench.token().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_thousand_callers_share_one_refresh() {
    let bench = Arc::new(Bench::new("quickbooks", [grant("at2", Some("rt2"))]).await);
    bench.clock.advance(HOUR);
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.token().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "at2");
    }
    assert_eq!(bench.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_the_refresh() {
    let bench = Bench::new("quickbooks", [grant("at2", Some("rt2"))]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let gone = tokio::time::timeout(Duration::from_millis(50), bench.token()).await;
    assert!(gone.is_err(), "it waited");
    bench.provider.gate.add_permits(1);
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "at2");
    assert_eq!(bench.requests(), 1);
}

#[tokio::test]
async fn the_intent_is_durable_before_anything_is_sent() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let _ = tokio::time::timeout(Duration::from_millis(50), bench.token()).await;
    assert_eq!(bench.requests(), 1);
    let intent = bench.stored().await.intent.expect("written before the request");
    assert_eq!(intent.refresh_token_digest, crate::base::digest::sha256(b"rt1"));
}

#[tokio::test]
async fn a_reply_without_a_refresh_token_keeps_the_old_one() {
    let bench = Bench::new("google", [grant("at2", None)]).await;
    bench.clock.advance(HOUR);
    assert_eq!(bench.token().await.unwrap(), "at2");
    let stored = bench.stored().await;
    assert_eq!(bench.opened(&stored, field::REFRESH_TOKEN).as_deref(), Some("rt1"));
    assert_eq!(stored.previous_refresh_token, None);
}

#[tokio::test]
async fn what_was_not_sent_is_sent_again_after_1_2_and_4_seconds() {
    let script = [Scripted::NotSent, Scripted::NotSent, Scripted::NotSent, grant("at2", None)];
    let bench = Bench::new("quickbooks", script).await;
    bench.clock.advance(HOUR);
    let began = bench.clock.now();
    let token = bench.keep_time_of_request(Duration::from_millis(500), bench.token()).await;
    assert_eq!(token.unwrap(), "at2");
    assert_eq!(bench.requests(), 4);
    let took = bench.clock.now().since(began);
    assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(9), "{took:?}");
}

#[tokio::test]
async fn a_lost_reply_is_repeated_where_that_is_harmless() {
    let bench = Bench::new("google", [Scripted::Lost, Scripted::Status(500, ""), grant("at2", None)]).await;
    bench.clock.advance(HOUR);
    assert_eq!(bench.keep_time_of_request(Duration::from_secs(1), bench.token()).await.unwrap(), "at2");
    assert_eq!(bench.requests(), 3);
}

#[tokio::test]
async fn a_lost_reply_of_a_strict_provider_leaves_the_connection_in_doubt() {
    for lost in [Scripted::Lost, Scripted::Status(500, ""), Scripted::Status(200, "<html>")] {
        let bench = Bench::rotating(SINGLE_USE, [lost, grant("at2", Some("rt2"))]).await;
        bench.clock.advance(HOUR - Duration::from_secs(200));
        assert_eq!(bench.token().await.unwrap(), "at1");
        bench.vault.settled().await;
        let stored = bench.stored().await;
        let trouble = stored.trouble.clone().expect("recorded");
        assert_eq!(trouble.in_doubt_since, Some(bench.clock.now()));
        assert!(stored.intent.is_some(), "what was sent, and when, is kept");
        assert_eq!(stored.state, ConnectionState::Active);
        // The current token is used to its end, and nothing is asked meanwhile.
        bench.clock.advance(Duration::from_secs(190));
        assert_eq!(bench.token().await.unwrap(), "at1");
        assert_eq!(bench.requests(), 1);
        // Then the same refresh token is tried once more.
        bench.clock.advance(Duration::from_secs(10));
        assert_eq!(bench.token().await.unwrap(), "at2");
        assert_eq!(bench.stored().await.trouble, None);
    }
}

#[tokio::test]
async fn only_a_definite_refusal_ends_a_connection_and_nothing_is_deleted() {
    let bench = Bench::new("quickbooks", [failed("{\"error\":\"invalid_grant\"}")]).await;
    bench.clock.advance(HOUR - Duration::from_secs(10));
    assert_eq!(bench.token().await.unwrap(), "at1");
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "at1", "what is valid is used to its end");
    bench.clock.advance(Duration::from_secs(10));
    let reason = "HTTP 400 with error invalid_grant".to_owned();
    assert_eq!(bench.token().await, Err(TokenError::NeedsReauth { reason: reason.clone() }));
    let stored = bench.stored().await;
    assert_eq!(stored.state, ConnectionState::NeedsReauth { reason });
    assert_eq!(bench.opened(&stored, field::REFRESH_TOKEN).as_deref(), Some("rt1"));
    assert_eq!(bench.requests(), 1);
}

#[tokio::test]
async fn other_refusals_keep_the_grant_and_back_off() {
    let refusals =
        [Scripted::Status(403, "<html>firewall</html>"), Scripted::Status(400, "<html>"), Scripted::Status(429, "")];
    for refusal in refusals {
        let bench = Bench::new("quickbooks", [refusal, grant("at2", None)]).await;
        bench.clock.advance(HOUR);
        let Err(TokenError::Unavailable { retry_after, .. }) = bench.token().await else { panic!("unavailable") };
        assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(5), "{retry_after:?}");
        assert!(matches!(bench.token().await, Err(TokenError::Unavailable { .. })), "answered at once");
        assert_eq!(bench.requests(), 1, "within the back-off nobody is asked");
        bench.clock.advance(retry_after);
        assert_eq!(bench.token().await.unwrap(), "at2");
    }
}

#[tokio::test]
async fn a_refusal_of_the_registration_is_the_operators_and_keeps_the_grant() {
    let bench =
        Bench::new("quickbooks", [Scripted::Status(401, "{\"error\":\"invalid_client\"}"), grant("at2", None)]).await;
    bench.clock.advance(HOUR);
    let reason = "HTTP 401 with error invalid_client".to_owned();
    assert_eq!(bench.token().await, Err(TokenError::Operator { reason }));
    assert_eq!(bench.stored().await.state, ConnectionState::Active);
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.token().await.unwrap(), "at2", "mended");
}

/// A refresh ends earlier access tokens there: the one in use may be dead, so its end is not waited for.
#[tokio::test]
async fn in_doubt_where_a_refresh_ends_earlier_tokens_it_is_asked_again_at_once() {
    let bench = Bench::new("github", [Scripted::Lost, grant("at2", Some("rt2"))]).await;
    bench.clock.advance(HOUR - Duration::from_secs(200));
    assert_eq!(bench.token().await.unwrap(), "at1");
    bench.vault.settled().await;
    // The first request may still be on its way through the provider.
    bench.clock.advance(Duration::from_secs(4));
    assert_eq!((bench.token().await.unwrap().as_str(), bench.requests()), ("at1", 1));
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.token().await.unwrap(), "at1");
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "at2");
}

#[tokio::test]
async fn a_lifetime_counts_from_when_the_request_was_sent() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let sent_at = bench.clock.now();
    let _ = tokio::time::timeout(Duration::from_millis(50), bench.token()).await;
    bench.clock.advance(Duration::from_secs(50));
    bench.provider.gate.add_permits(1);
    bench.vault.settled().await;
    assert_eq!(bench.stored().await.access_expires_at, Some(sent_at.plus(HOUR)));
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let began = bench.clock.now();
    let answer = bench.keep_time(Duration::from_secs(1), bench.token()).await;
    assert!(matches!(answer, Err(TokenError::Unavailable { .. })), "{answer:?}");
    let waited = bench.clock.now().since(began);
    assert!(waited >= Duration::from_secs(30) && waited < Duration::from_secs(33), "{waited:?}");
    bench.provider.gate.add_permits(1);
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "at2", "the refresh went on");
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_process_is_to_end() {
    let bench = Bench::new("quickbooks", [Scripted::NotSent]).await;
    bench.clock.advance(HOUR);
    bench.vault.stop();
    assert!(bench.token().await.is_err());
    assert_eq!((bench.requests(), bench.vault.under_way()), (1, 0));
}

/// One damaged record is the trouble of that connection alone.
#[tokio::test]
async fn a_damaged_record_does_not_stop_the_others() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    let raw =
        rusqlite::Connection::open(bench._home.path().join("store").join(crate::store::sqlite::FILE_NAME)).unwrap();
    raw.execute(
        "INSERT INTO connections (id, subject, provider, label, state, captured, generation, access_token_sealed,
           refresh_due_at, connected_at, intent_attempt)
         VALUES ('c_bad', 'bad', 'quickbooks', 'default', 'active', '{x', 1, x'00', 1, 1, 'r_1')",
        [],
    )
    .unwrap();
    drop(raw);
    assert_eq!(bench.vault.recover().await.unwrap(), 0, "it is left out");
    assert_eq!(bench.store.connections(None).await.unwrap().len(), 1, "the others are listed");
    let bad = ConnectionKey { subject: "bad".parse().unwrap(), ..bench.key.clone() };
    assert!(matches!(bench.vault.token_for(&bad).await, Err(TokenError::Operator { .. })));
    bench.clock.advance(HOUR - Duration::from_secs(10));
    let worker = tokio::spawn(Arc::clone(&bench.vault).work());
    let refreshed = async {
        while bench.requests() < 1 {
            tokio::task::yield_now().await;
        }
    };
    bench.keep_time(Duration::from_millis(200), refreshed).await;
    bench.vault.settled().await;
    worker.abort();
    assert_eq!(bench.token().await.unwrap(), "at2");
}

#[tokio::test]
async fn a_token_that_cannot_be_refreshed_ends_with_its_life() {
    let bench = Bench::new("quickbooks", []).await;
    let without =
        ConnectionRecord { id: "c_2".to_owned(), refresh_token: None, ..bench.connection(Some(NOW.plus(HOUR))) };
    let sealed = bench.sealer.seal(&connection_context(&bench.key, "c_2", field::ACCESS_TOKEN, 1), &Secret::new("at9"));
    bench.store.connect(vec![ConnectionRecord { access_token: sealed, ..without }], NOW).await.unwrap();
    bench.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(bench.token().await.unwrap(), "at9");
    bench.clock.advance(Duration::from_secs(1));
    assert!(matches!(bench.token().await, Err(TokenError::NeedsReauth { .. })));
}

#[tokio::test]
async fn an_unknown_connection_is_told_apart() {
    let bench = Bench::new("quickbooks", []).await;
    let other = ConnectionKey { subject: "bob".parse().unwrap(), ..bench.key.clone() };
    assert_eq!(bench.vault.token_for(&other).await.err(), Some(TokenError::NotConnected));
}

#[tokio::test]
async fn a_refresh_cut_off_by_a_crash_is_settled_at_the_next_start() {
    for (name, in_doubt) in [("github", true), ("google", false)] {
        let bench = Bench::new(name, [grant("at2", None)]).await;
        let intent =
            crate::store::record::Intent { attempt: "r_1".to_owned(), started_at: NOW, refresh_token_digest: [0; 32] };
        let begin = Beginning { intent, after: None, unheard_of_at: NOW.plus(HOUR) };
        assert_eq!(bench.store.begin_refresh("c_1".to_owned(), 1, begin).await.unwrap(), Some(1));
        assert_eq!(bench.vault.recover().await.unwrap(), 1);
        let stored = bench.stored().await;
        assert_eq!(stored.trouble.unwrap().in_doubt_since.is_some(), in_doubt, "{name}");
        assert_eq!(bench.token().await.unwrap(), "at1", "the current token is used");
        bench.clock.advance(HOUR);
        assert_eq!(bench.token().await.unwrap(), "at2", "nothing needs to be reconnected");
    }
}

#[tokio::test]
async fn the_worker_refreshes_what_is_due_without_being_asked() {
    let bench = Bench::new("quickbooks", [grant("at2", Some("rt2")), grant("at3", Some("rt3"))]).await;
    let worker = tokio::spawn(Arc::clone(&bench.vault).work());
    let refreshed = async {
        while bench.requests() < 2 {
            tokio::task::yield_now().await;
        }
    };
    bench.keep_time(Duration::from_secs(5), refreshed).await;
    bench.vault.settled().await;
    worker.abort();
    let elapsed = bench.clock.now().since(NOW);
    assert!(elapsed > Duration::from_secs(2 * 3200) && elapsed < Duration::from_secs(2 * 3600), "{elapsed:?}");
    assert_eq!(bench.stored().await.generation, 3);
}

#[tokio::test]
async fn a_connection_that_was_replaced_meanwhile_is_not_touched() {
    let bench = Bench::new("quickbooks", [grant("at2", Some("rt2"))]).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let _ = tokio::time::timeout(Duration::from_millis(50), bench.token()).await;
    let sealed =
        |field, token: &str| bench.sealer.seal(&connection_context(&bench.key, "c_new", field, 1), &Secret::new(token));
    let replacement = ConnectionRecord {
        id: "c_new".to_owned(),
        access_token: sealed(field::ACCESS_TOKEN, "new"),
        refresh_token: Some(sealed(field::REFRESH_TOKEN, "new-refresh")),
        ..bench.connection(Some(bench.clock.now().plus(HOUR)))
    };
    bench.store.connect(vec![replacement.clone()], bench.clock.now()).await.unwrap();
    bench.vault.adopt(&[replacement]).unwrap();
    bench.provider.gate.add_permits(1);
    bench.vault.settled().await;
    assert_eq!(bench.token().await.unwrap(), "new");
    assert_eq!(bench.stored().await.generation, 1);
}

#[tokio::test]
async fn two_subjects_never_share_a_refresh() {
    let bench = Bench::new("quickbooks", [grant("of-first", None), grant("of-second", None)]).await;
    let bob = ConnectionKey { subject: "bob".parse().unwrap(), ..bench.key.clone() };
    let sealed =
        |field, token: &str| bench.sealer.seal(&connection_context(&bob, "c_bob", field, 1), &Secret::new(token));
    let connection = ConnectionRecord {
        id: "c_bob".to_owned(),
        key: bob.clone(),
        access_token: sealed(field::ACCESS_TOKEN, "bob1"),
        refresh_token: Some(sealed(field::REFRESH_TOKEN, "bob-refresh")),
        ..bench.connection(Some(NOW.plus(HOUR)))
    };
    bench.store.connect(vec![connection], NOW).await.unwrap();
    bench.clock.advance(HOUR);
    let (alice, bob) = tokio::join!(bench.vault.token_for(&bench.key), bench.vault.token_for(&bob));
    assert_ne!(alice.unwrap().connection_id, bob.unwrap().connection_id);
    let sent = bench.provider.sent.lock().unwrap().join("\n");
    assert!(sent.contains("refresh_token=rt1") && sent.contains("refresh_token=bob-refresh"), "{sent}");
}

/// A lock that nobody lets go of would keep every later refresh from beginning; and the provider may have acted on this one.
#[tokio::test]
async fn a_refresh_that_panics_answers_its_callers_and_is_in_doubt() {
    let bench = Arc::new(Bench::rotating(SINGLE_USE, [Scripted::Panic, grant("at2", None)]).await);
    bench.clock.advance(HOUR);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.token().await })
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(TokenError::Unavailable { .. })), "answered, and no deadlock");
    }
    assert_eq!(bench.requests(), 1, "and no stampede");
    assert!(bench.token().await.is_err());
    assert!(bench.stored().await.trouble.is_some_and(|trouble| trouble.in_doubt_since.is_some()));
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.token().await.unwrap(), "at2");
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_uses_no_expired_token_and_asks_once() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    bench.clock.advance(10 * 365 * 24 * HOUR);
    assert_eq!(bench.token().await.unwrap(), "at2");
    assert_eq!(bench.requests(), 1);
}

#[tokio::test]
async fn a_clock_that_jumps_back_uses_what_it_has_and_asks_nobody() {
    let bench = Bench::new("quickbooks", []).await;
    let obtained_later = ConnectionRecord {
        connected_at: NOW.plus(HOUR),
        refreshed_at: Some(NOW.plus(HOUR)),
        refresh_token_since: Some(NOW.plus(HOUR)),
        ..bench.connection(Some(NOW.plus(2 * HOUR)))
    };
    let key = bench.key.with_token(Some("later".parse().unwrap()));
    let sealed =
        |field, token: &str| bench.sealer.seal(&connection_context(&key, "c_2", field, 1), &Secret::new(token));
    let record = ConnectionRecord {
        id: "c_2".to_owned(),
        access_token: sealed(field::ACCESS_TOKEN, "at9"),
        refresh_token: Some(sealed(field::REFRESH_TOKEN, "rt9")),
        key: key.clone(),
        ..obtained_later
    };
    bench.store.connect(vec![record], NOW).await.unwrap();
    assert_eq!(bench.vault.token_for(&key).await.unwrap().generation, 1);
    let due = bench.vault.due_at(NOW, Some(NOW.minus(HOUR)), Some(NOW.minus(HOUR))).expect("due");
    assert!(due > NOW, "no hot loop, whatever the clock says");
    assert_eq!(bench.requests(), 0);
}
