//! Which site a connection is for, while its tokens change.

use std::collections::BTreeSet;

use super::*;
use crate::store::record::Recapture;

/// Chooses as `dance` does: in the store, then in memory.
async fn choose(bench: &Bench, site: &str) {
    let names = BTreeSet::from(["site".to_owned()]);
    let before = bench.stored().await.captured;
    let values = Captured::from([("site".to_owned(), site.to_owned())]);
    let change = Recapture { id: "c_1".to_owned(), names: names.clone(), before, values: values.clone() };
    let ids = bench.store.recapture(bench.key.clone(), change).await.unwrap();
    assert_eq!(ids, ["c_1"]);
    bench.vault.recapture(&bench.key, &ids, &names, &values);
}

async fn site(bench: &Bench) -> Option<String> {
    bench.vault.token_for(&bench.key).await.unwrap().captured.get("site").cloned()
}

#[tokio::test]
async fn what_is_chosen_while_a_refresh_is_under_way_stays_chosen_however_that_ends() {
    let endings = [
        (grant("at2", Some("rt2")), "at2"),
        (failed("{\"error\":\"invalid_client\"}"), "at1"),
        (failed("{\"error\":\"invalid_grant\"}"), "at1"),
        (Scripted::Panic, "at1"),
    ];
    for (ending, token) in endings {
        let bench = Bench::new("quickbooks", [ending]).await;
        choose(&bench, "a").await;
        bench.provider.gate.forget_permits(1000);
        bench.clock.advance(HOUR - Duration::from_secs(299));
        assert_eq!((bench.token().await.unwrap().as_str(), site(&bench).await.as_deref()), ("at1", Some("a")));
        while bench.requests() == 0 {
            tokio::task::yield_now().await;
        }
        choose(&bench, "b").await;
        assert_eq!(site(&bench).await.as_deref(), Some("b"), "at once");
        bench.provider.gate.add_permits(1);
        bench.vault.settled().await;
        assert_eq!((bench.token().await.unwrap().as_str(), site(&bench).await.as_deref()), (token, Some("b")));
        assert_eq!(bench.stored().await.captured["site"], "b");
    }
}

#[tokio::test]
async fn a_connection_that_has_taken_the_place_of_that_one_is_left_alone() {
    let bench = Bench::new("quickbooks", []).await;
    choose(&bench, "a").await;
    assert_eq!(site(&bench).await.as_deref(), Some("a"));
    let names = BTreeSet::from(["site".to_owned()]);
    bench.vault.recapture(&bench.key, &["c_0".to_owned()], &names, &Captured::new());
    assert_eq!(site(&bench).await.as_deref(), Some("a"));
}
