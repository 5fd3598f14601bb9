//! What becomes of a connection when the reply to a refresh was lost, by the provider's rotation model.

use super::*;
use crate::store::record::{Intent, RefreshedTokens};
use crate::telemetry::health::Health;

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// Due, and asked for a token while the old one is valid.
    async fn refresh_when_due(&self) {
        assert_eq!(self.token().await.unwrap(), "at1", "nobody waits while it is valid");
        self.keep_time(SECOND, self.vault.settled()).await;
    }

    async fn in_doubt_since(&self) -> Option<Timestamp> {
        self.stored().await.trouble.and_then(|trouble| trouble.in_doubt_since)
    }

    /// The process ended during a refresh that began at `started_at`; the next one settles it.
    async fn crashed_during_a_refresh(&self, started_at: Timestamp) {
        let intent = Intent { attempt: "r_1".to_owned(), started_at, refresh_token_digest: [0; 32] };
        let begin = Beginning { intent, after: None, unheard_of_at: self.clock.now().plus(HOUR) };
        assert!(self.store.begin_refresh("c_1".to_owned(), 1, begin).await.unwrap().is_some());
        assert_eq!(self.vault.recover().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn within_its_grace_a_lost_reply_is_asked_for_again_at_once() {
    for grace in ["10s", "30s", "60s", "10m"] {
        let rotation = format!("model = 'leeway'\ngrace = '{grace}'");
        let bench = Bench::rotating(&rotation, [Scripted::Lost, grant("at2", Some("rt2"))]).await;
        bench.clock.advance(HOUR - Duration::from_secs(200));
        bench.refresh_when_due().await;
        assert_eq!((bench.token().await.unwrap().as_str(), bench.requests()), ("at2", 2), "{grace}");
        assert_eq!(bench.in_doubt_since().await, None);
    }
}

#[tokio::test]
async fn after_its_grace_a_lost_reply_is_asked_for_once_when_the_token_ends() {
    for (grace, seconds) in [("10s", 10), ("30s", 30), ("60s", 60), ("10m", 600)] {
        let rotation = format!("model = 'leeway'\ngrace = '{grace}'\nreuse = 'revoke_family_after_grace'");
        let bench = Bench::rotating(&rotation, [failed("{\"error\":\"invalid_grant\"}")]).await;
        bench.clock.advance(HOUR - Duration::from_secs(200));
        let lost_at = bench.clock.now().minus(Duration::from_secs(seconds));
        bench.crashed_during_a_refresh(lost_at).await;
        assert_eq!(bench.in_doubt_since().await, Some(lost_at), "{grace}");
        bench.clock.advance(Duration::from_secs(190));
        bench.refresh_when_due().await;
        assert_eq!(bench.requests(), 0, "{grace}: the token works: nothing is risked");
        bench.clock.advance(Duration::from_secs(8));
        bench.refresh_when_due().await;
        assert_eq!(bench.requests(), 1, "{grace}: now there is nothing to lose");
        assert!(matches!(bench.stored().await.state, ConnectionState::NeedsReauth { .. }));
    }
}

/// The first request was lost, the next ones could not be sent: what is in doubt stays known, also over its grace.
#[tokio::test]
async fn a_grace_counts_from_the_first_lost_reply() {
    let script = [Scripted::Lost, Scripted::NotSent, Scripted::NotSent, Scripted::NotSent];
    let bench = Bench::rotating("model = 'leeway'\ngrace = '60s'", script).await;
    bench.clock.advance(HOUR - Duration::from_secs(200));
    let began = bench.clock.now();
    bench.refresh_when_due().await;
    assert_eq!(bench.requests(), 4);
    assert_eq!(bench.in_doubt_since().await, Some(began));
    bench.clock.advance(Duration::from_secs(60));
    bench.refresh_when_due().await;
    assert_eq!(bench.requests(), 4, "past the grace it waits for the end of the token");
}

#[tokio::test]
async fn a_crash_within_the_grace_is_mended_at_the_next_start() {
    let bench = Bench::rotating("model = 'leeway'\ngrace = '10m'", [grant("at2", Some("rt2"))]).await;
    bench.clock.advance(HOUR - Duration::from_secs(200));
    bench.crashed_during_a_refresh(bench.clock.now().minus(SECOND)).await;
    assert!(bench.in_doubt_since().await.is_some(), "until it is settled it is known");
    bench.clock.advance(SECOND);
    bench.refresh_when_due().await;
    assert_eq!((bench.token().await.unwrap().as_str(), bench.in_doubt_since().await), ("at2", None));
}

#[tokio::test]
async fn a_value_that_stays_the_same_for_a_day_is_sent_again_on_its_first_day_only() {
    for (hours, requests, token) in [(1, 2, "at2"), (23, 1, "at1")] {
        let bench = Bench::rotating("model = 'interval'\ninterval = '1d'", [Scripted::Lost, grant("at2", None)]).await;
        let since = NOW.minus(Duration::from_secs(hours * 3600));
        let record = ConnectionRecord { refresh_token_since: Some(since), ..bench.stored().await };
        let record = ConnectionRecord { id: "c_2".to_owned(), ..record };
        let sealed = |field, token: &str| {
            bench.sealer.seal(&connection_context(&bench.key, "c_2", field, 1), &Secret::new(token))
        };
        let record = ConnectionRecord {
            access_token: sealed(field::ACCESS_TOKEN, "at1"),
            refresh_token: Some(sealed(field::REFRESH_TOKEN, "rt1")),
            ..record
        };
        bench.store.connect(vec![record], NOW).await.unwrap();
        bench.clock.advance(HOUR - Duration::from_secs(200));
        bench.refresh_when_due().await;
        assert_eq!((bench.token().await.unwrap().as_str(), bench.requests()), (token, requests), "{hours} hours");
    }
}

#[tokio::test]
async fn the_age_of_a_refresh_token_is_that_of_its_value() {
    let script = [grant("at2", Some("rt1")), grant("at3", Some("rt2"))];
    let bench = Bench::new("quickbooks", script).await;
    for (token, since) in [("at2", NOW), ("at3", NOW.plus(2 * HOUR))] {
        bench.clock.advance(HOUR);
        assert_eq!(bench.token().await.unwrap(), token);
        assert_eq!(bench.stored().await.refresh_token_since, Some(since), "{token}");
    }
}

#[tokio::test]
async fn the_old_token_is_tried_once_its_successor_is_refused() {
    let script = [grant("at2", Some("rt2")), failed("{\"error\":\"invalid_grant\"}"), grant("at3", Some("rt3"))];
    let bench = Bench::rotating("model = 'until_successor'", script).await;
    bench.clock.advance(HOUR);
    assert_eq!(bench.token().await.unwrap(), "at2");
    bench.clock.advance(HOUR);
    assert_eq!(bench.token().await.unwrap(), "at3");
    let sent = bench.provider.sent.lock().unwrap().clone();
    assert!(sent[1].contains("refresh_token=rt2") && sent[2].contains("refresh_token=rt1"), "{sent:?}");
    let stored = bench.stored().await;
    assert_eq!(bench.opened(&stored, field::REFRESH_TOKEN).as_deref(), Some("rt3"));
}

#[tokio::test]
async fn where_a_used_token_is_certainly_dead_it_is_not_tried() {
    let script = [grant("at2", Some("rt2")), failed("{\"error\":\"invalid_grant\"}")];
    let bench = Bench::rotating(SINGLE_USE, script).await;
    bench.clock.advance(HOUR);
    assert_eq!(bench.token().await.unwrap(), "at2");
    bench.clock.advance(HOUR);
    assert!(matches!(bench.token().await, Err(TokenError::NeedsReauth { .. })));
    assert_eq!(bench.requests(), 2);
}

/// Another process on the same store was faster: what this one was given is the only copy of a live token.
#[tokio::test]
async fn a_token_that_lost_the_race_is_kept_and_used_when_the_winner_is_refused() {
    let script = [grant("at2", Some("rt-late")), failed("{\"error\":\"invalid_grant\"}"), grant("at4", Some("rt4"))];
    let bench = Bench::rotating(SINGLE_USE, script).await;
    bench.provider.gate.forget_permits(1000);
    bench.clock.advance(HOUR);
    let _ = tokio::time::timeout(Duration::from_millis(50), bench.token()).await;
    let sealed =
        |field, token: &str| bench.sealer.seal(&connection_context(&bench.key, "c_1", field, 2), &Secret::new(token));
    let winner = RefreshedTokens {
        access_token: sealed(field::ACCESS_TOKEN, "winner"),
        access_expires_at: Some(bench.clock.now().plus(HOUR)),
        refresh_token: Some(sealed(field::REFRESH_TOKEN, "rt-winner")),
        previous_refresh_token: None,
        refresh_expires_at: None,
        grant_expires_at: None,
        refresh_due_at: Some(bench.clock.now().plus(HOUR)),
        scopes: None,
        captured: Captured::new(),
        refreshed_at: bench.clock.now(),
    };
    assert!(bench.store.complete_refresh("c_1".to_owned(), 1, winner).await.unwrap());
    bench.provider.gate.add_permits(100);
    bench.vault.settled().await;
    assert_eq!(bench.store.alternates("c_1".to_owned()).await.unwrap().len(), 1, "never dropped");
    bench.clock.advance(HOUR);
    let mut token = bench.token().await;
    if token.is_err() {
        // What is in memory is still that of the loser: it is read again first.
        token = bench.token().await;
    }
    assert_eq!(token.unwrap(), "at4");
    let sent = bench.provider.sent.lock().unwrap().clone();
    assert!(sent[1].contains("refresh_token=rt-winner") && sent[2].contains("refresh_token=rt-late"), "{sent:?}");
    assert!(bench.store.alternates("c_1".to_owned()).await.unwrap().is_empty(), "no longer needed");
}

#[tokio::test]
async fn an_api_that_refuses_a_token_in_doubt_ends_the_waiting() {
    let bench = Bench::rotating(SINGLE_USE, [Scripted::Lost, grant("at2", Some("rt2"))]).await;
    bench.clock.advance(HOUR - Duration::from_secs(200));
    bench.refresh_when_due().await;
    bench.clock.advance(Duration::from_secs(10));
    bench.refresh_when_due().await;
    assert_eq!(bench.requests(), 1, "while the token works it is left alone");
    let refused = bench.vault.token_for(&bench.key).await.unwrap();
    let replaced = bench.vault.replacement(&bench.key, &refused).await.expect("another one");
    assert_eq!((replaced.generation, bench.requests()), (2, 2));
}

const DAY: Duration = Duration::from_secs(86_400);

impl Bench {
    /// Another connection in the place of the first.
    async fn connect_instead(&self, change: impl FnOnce(ConnectionRecord) -> ConnectionRecord) {
        let sealed =
            |field, token: &str| self.sealer.seal(&connection_context(&self.key, "c_2", field, 1), &Secret::new(token));
        let record = change(ConnectionRecord {
            id: "c_2".to_owned(),
            access_token: sealed(field::ACCESS_TOKEN, "at1"),
            refresh_token: Some(sealed(field::REFRESH_TOKEN, "rt1")),
            ..self.connection(None)
        });
        self.store.connect(vec![record.clone()], NOW).await.unwrap();
        self.vault.adopt(&[record]).unwrap();
    }

    /// Lets the worker work, in steps of the clock, until something is so.
    async fn work_until(&self, step: Duration, is_so: impl Fn() -> bool) {
        let worker = tokio::spawn(Arc::clone(&self.vault).work());
        let so = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        self.keep_time(step, so).await;
        self.vault.settled().await;
        worker.abort();
    }
}

#[tokio::test]
async fn a_grant_that_dies_unused_is_kept_alive_though_its_token_never_expires() {
    let without_end = |token: &'static str| Scripted::Status(200, token);
    let script = [without_end("{\"access_token\":\"at2\"}"), without_end("{\"access_token\":\"at3\"}")];
    let dies_unused = |entry: &mut crate::catalogue::entry::Entry| {
        entry.lifetime.refresh_idle = Some(crate::base::duration::DurationText(100 * DAY));
        entry.lifetime.access = None;
    };
    let bench = Bench::with("quickbooks", script, dies_unused, None).await;
    let dies_at = NOW.plus(100 * DAY);
    let due = bench.vault.due_at(NOW, None, Some(dies_at));
    bench
        .connect_instead(|record| ConnectionRecord { refresh_expires_at: Some(dies_at), refresh_due_at: due, ..record })
        .await;
    for (requests, token) in [(1, "at2"), (2, "at3")] {
        let before = bench.clock.now();
        bench.work_until(DAY / 24, || bench.requests() == requests).await;
        let after = bench.clock.now().since(before);
        assert!(after >= 54 * DAY && after <= 76 * DAY, "well before it dies: {after:?}");
        assert_eq!(bench.token().await.unwrap(), token, "and nobody had asked");
        let stored = bench.stored().await;
        assert!(stored.refresh_expires_at > Some(bench.clock.now().plus(99 * DAY)), "each refresh begins it anew");
        assert_eq!(stored.access_expires_at, None);
    }
}

#[tokio::test]
async fn the_absolute_end_of_a_grant_is_announced_once_and_in_time() {
    let says_how_much_is_left = |left: &'static str| Scripted::Status(200, left);
    let script = [
        says_how_much_is_left(
            "{\"access_token\":\"at2\",\"expires_in\":3600,\"x_refresh_token_hard_expires_in\":604799}",
        ),
        says_how_much_is_left(
            "{\"access_token\":\"at3\",\"expires_in\":36000,\"x_refresh_token_hard_expires_in\":601150}",
        ),
    ];
    let bench = Bench::new("quickbooks", script).await;
    let ends_at = NOW.plus(20 * DAY);
    bench.connect_instead(|record| ConnectionRecord { grant_expires_at: Some(ends_at), ..record }).await;
    let announced = |times: &str| {
        let line = format!("sidekey_grant_ends_announced_total{{provider=\"quickbooks\"}} {times}");
        bench.vault.parts.metrics.render(&Health::default()).contains(&line)
    };
    bench.work_until(Duration::from_secs(60), || announced("1")).await;
    let when = bench.clock.now().since(NOW);
    assert!(when >= 13 * DAY && when < 13 * DAY + HOUR, "seven days before: {when:?}");
    assert_eq!(bench.token().await.unwrap(), "at1", "it is a notice and no verdict");
    // Each refresh says how much is left, which is the same end and never quite the same moment.
    bench.store.postpone_refresh(bench.key.clone(), bench.clock.now()).await.unwrap();
    let refused = bench.vault.token_for(&bench.key).await.unwrap();
    bench.vault.mark_expired(&bench.key, &refused);
    bench.work_until(Duration::from_secs(60), || bench.requests() == 2).await;
    let end = bench.clock.now().plus(2 * HOUR);
    bench.work_until(Duration::from_secs(60), || bench.clock.now() > end).await;
    assert!(announced("1"), "once");
}

#[tokio::test]
async fn a_store_that_is_older_than_its_sentinel_sends_nothing_until_it_is_confirmed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("sentinel");
    let sentinel = |instance: &str| Some(Sentinel::new(path.clone(), instance.to_owned()));
    let before = Bench::with("quickbooks", [grant("at2", None)], |_| {}, sentinel("a")).await;
    before.vault.admit_store().await.unwrap();
    before.clock.advance(HOUR);
    assert_eq!(before.token().await.unwrap(), "at2");
    // The same store as it was before that refresh.
    let restored = Bench::with("quickbooks", [grant("at3", None)], |_| {}, sentinel("b")).await;
    let id = before.store.guard().await.unwrap().store_id;
    let raw =
        rusqlite::Connection::open(restored._home.path().join("store").join(crate::store::sqlite::FILE_NAME)).unwrap();
    raw.execute("UPDATE guard SET store_id = ?1, instance = 'a'", [id]).unwrap();
    drop(raw);
    restored.vault.admit_store().await.unwrap();
    assert_eq!(restored.token().await.unwrap(), "at1", "the current token is used");
    restored.clock.advance(HOUR);
    let Err(TokenError::Operator { reason }) = restored.token().await else { panic!("held back") };
    assert!(reason.contains("older than its sentinel") && reason.contains("sidekey store confirm"), "{reason}");
    assert_eq!(restored.requests(), 0);
    restored.vault.confirm_store().await.unwrap();
    restored.clock.advance(Duration::from_secs(5));
    assert_eq!(restored.token().await.unwrap(), "at3");
    // The one that was in use before finds itself replaced.
    before.clock.advance(HOUR);
    let Err(TokenError::Operator { reason }) = before.token().await else { panic!("held back") };
    assert!(reason.contains("another process has taken over"), "{reason}");
    assert_eq!(before.requests(), 1);
}

#[tokio::test]
async fn a_grant_that_is_lost_says_which_lost_reply_it_was_lost_with() {
    let bench = Bench::rotating(SINGLE_USE, [failed("{\"error\":\"invalid_grant\"}")]).await;
    bench.clock.advance(HOUR - Duration::from_secs(1));
    let started_at = bench.clock.now().minus(SECOND);
    bench.crashed_during_a_refresh(started_at).await;
    bench.clock.advance(Duration::from_secs(2));
    assert!(matches!(bench.token().await, Err(TokenError::Unavailable { .. })), "the provider may still be at work");
    assert_eq!(bench.requests(), 0);
    bench.clock.advance(Duration::from_secs(2));
    let Err(TokenError::NeedsReauth { reason }) = bench.token().await else { panic!("it is dead") };
    let expected = format!(
        "HTTP 400 with error invalid_grant, after the reply to a refresh at {started_at} was lost \
         (the process ended during a refresh)"
    );
    assert_eq!((reason, bench.requests()), (expected, 1));
}

/// Eight failures before it had made the back-off ten minutes long.
#[tokio::test]
async fn the_one_probe_is_not_put_off_by_failures_before_the_doubt() {
    let script = (0..32).map(|_| Scripted::NotSent).chain([Scripted::Lost, grant("at2", Some("rt2"))]);
    let bench = Bench::rotating(SINGLE_USE, script).await;
    bench.clock.advance(HOUR + SECOND);
    for _ in 0..8 {
        let _ = bench.keep_time_of_request(SECOND, bench.token()).await;
        bench.clock.advance(Duration::from_secs(700));
    }
    assert!(bench.token().await.is_err(), "its reply is lost");
    assert_eq!((bench.requests(), bench.in_doubt_since().await.is_some()), (33, true));
    bench.clock.advance(Duration::from_secs(6));
    assert_eq!(bench.token().await.unwrap(), "at2");
}

#[tokio::test]
async fn a_clock_that_jumped_ahead_and_back_leaves_nobody_waiting() {
    let script = (0..4).map(|_| Scripted::NotSent).chain([grant("at2", None)]);
    let bench = Bench::new("quickbooks", script).await;
    let years_ahead = ManualClock::at(NOW.plus(10 * 365 * 24 * HOUR));
    bench.clock.advance(10 * 365 * 24 * HOUR);
    assert!(bench.keep_time_of_request(SECOND, bench.token()).await.is_err(), "nobody can be reached");
    assert!(bench.stored().await.refresh_due_at > Some(years_ahead.now()));
    // Another process, with the right time.
    bench.store.limit_waiting(NOW.plus(HOUR), NOW.plus(3 * HOUR)).await.unwrap();
    assert_eq!(bench.stored().await.refresh_due_at, Some(NOW.plus(HOUR)));
    assert_eq!(
        bench.store.refresh_due(NOW.plus(HOUR), 10, Vec::new()).await.unwrap(),
        std::slice::from_ref(&bench.key)
    );
}

/// The moment that a reply was lost is still to come: nobody knows how long ago it really was.
#[test]
fn a_doubt_from_the_future_has_no_grace() {
    use crate::catalogue::entry::Repetition;
    let leeway: crate::catalogue::entry::Rotation = toml::from_str("model = 'leeway'\ngrace = '10m'").unwrap();
    let at = |since| super::super::outcome::repetition(&leeway, since, None, NOW);
    assert_eq!(at(NOW), Repetition::HarmlessUntil(NOW.plus(Duration::from_secs(570))));
    assert_eq!(at(NOW.plus(SECOND)), Repetition::LastResort);
    let daily: crate::catalogue::entry::Rotation = toml::from_str("model = 'interval'\ninterval = '1d'").unwrap();
    assert_eq!(daily.repetition(NOW, Some(NOW.plus(SECOND))), Repetition::LastResort);
}

#[tokio::test]
async fn who_judged_an_older_token_does_not_begin_another_refresh() {
    let bench = Bench::new("quickbooks", [grant("at2", None)]).await;
    let old = bench.vault.token_for(&bench.key).await.unwrap();
    bench.clock.advance(HOUR);
    assert_eq!(bench.token().await.unwrap(), "at2");
    let slot = bench.vault.slot_in_memory(&bench.key).unwrap();
    assert_eq!(bench.vault.refresh(&slot, &old, Occasion::Due).await, RefreshResult::Overtaken);
    assert_eq!(bench.requests(), 1);
}

#[tokio::test]
async fn a_refusal_of_another_connections_token_replaces_nothing() {
    let bench = Bench::new("quickbooks", []).await;
    let of_old = bench.vault.token_for(&bench.key).await.unwrap();
    let sealed =
        |field, token: &str| bench.sealer.seal(&connection_context(&bench.key, "c_2", field, 1), &Secret::new(token));
    let record = ConnectionRecord {
        id: "c_2".to_owned(),
        access_token: sealed(field::ACCESS_TOKEN, "new"),
        refresh_token: Some(sealed(field::REFRESH_TOKEN, "new-refresh")),
        ..bench.connection(Some(NOW.plus(HOUR)))
    };
    bench.store.connect(vec![record.clone()], NOW).await.unwrap();
    bench.vault.adopt(&[record]).unwrap();
    assert!(bench.vault.replacement(&bench.key, &of_old).await.is_none());
    bench.vault.mark_expired(&bench.key, &of_old);
    assert_eq!(bench.token().await.unwrap(), "new");
    assert_eq!(bench.requests(), 0);
}

/// It waited for its turn behind others, longer than its grace.
#[tokio::test]
async fn a_repetition_that_had_to_wait_longer_than_the_grace_is_not_sent() {
    let bench = Arc::new(Bench::rotating("model = 'leeway'\ngrace = '30s'", [Scripted::Lost]).await);
    bench.clock.advance(HOUR - Duration::from_secs(200));
    assert_eq!(bench.token().await.unwrap(), "at1");
    while bench.requests() == 0 || bench.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    let permits = bench.vault.permits.values().next().unwrap();
    let all = permits.acquire_many(u32::try_from(CONCURRENT_REFRESHES).unwrap()).await.unwrap();
    bench.clock.advance(Duration::from_secs(40));
    tokio::task::yield_now().await;
    drop(all);
    bench.vault.settled().await;
    assert_eq!(bench.requests(), 1, "sent once, and not again");
    assert!(bench.in_doubt_since().await.is_some());
    assert_eq!(bench.token().await.unwrap(), "at1");
}

/// A second crash during the repetition puts nothing off.
#[tokio::test]
async fn a_crash_while_it_asks_again_within_the_grace_is_mended_at_once_too() {
    let bench = Bench::rotating("model = 'leeway'\ngrace = '10m'", [grant("at2", Some("rt2"))]).await;
    bench.clock.advance(HOUR - Duration::from_secs(200));
    bench.crashed_during_a_refresh(bench.clock.now().minus(SECOND)).await;
    let stored = bench.stored().await;
    let intent = Intent { attempt: "r_2".to_owned(), started_at: bench.clock.now(), refresh_token_digest: [0; 32] };
    let after = stored.intent.map(|intent| intent.attempt);
    let begin = Beginning { intent, after, unheard_of_at: bench.clock.now().plus(HOUR) };
    assert!(bench.store.begin_refresh("c_1".to_owned(), 1, begin).await.unwrap().is_some());
    assert_eq!(bench.vault.recover().await.unwrap(), 1);
    assert_eq!(bench.stored().await.refresh_due_at, Some(bench.clock.now()));
    bench.refresh_when_due().await;
    assert_eq!(bench.token().await.unwrap(), "at2");
}
