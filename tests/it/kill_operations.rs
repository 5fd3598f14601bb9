//! The other operations of the store, killed at every call that changes a file.

use rusqlite::{Connection, OpenFlags};

use crate::one_refresh::{Bed, Case, Rule, WRITING};

/// Runs `case` once for each call that changes a file, has it killed there, and looks at it. How many kills that were.
async fn kill_at_every_write(mut case: impl FnMut() -> Case, mut look: impl AsyncFnMut(&Case, bool)) -> usize {
    let mut kills = 0;
    for call in WRITING {
        for when in 1.. {
            let case = case();
            let is_killed = case.is_killed(call, when, &["-f"]).await;
            look(&case, !is_killed).await;
            if !is_killed {
                break;
            }
            kills += 1;
        }
    }
    kills
}

/// As a program that only reads sees it.
fn ask(case: &Case, sql: &str) -> Vec<String> {
    let database = Connection::open_with_flags(case.database(), OpenFlags::SQLITE_OPEN_READ_WRITE).expect("it opens");
    let mut statement = database.prepare(sql).expect("it has the tables");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("asked");
    rows.map(|row| row.expect("it can be read")).collect()
}

fn assert_sound(case: &Case) {
    assert_eq!(ask(case, "PRAGMA integrity_check"), ["ok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_connection_replaces_another_there_is_exactly_one_of_them() {
    let bed = Bed::make(Rule::Overlap, 1).await;
    let case = || {
        let case = bed.case(0);
        let subject = case.subject().to_owned();
        case.doing(false, &["sidekey.toml", &subject, "quickbooks", "replace"])
    };
    let (mut old, mut new) = (0, 0);
    let kills = kill_at_every_write(case, async |case, is_done| {
        assert_sound(case);
        let live = ask(case, "SELECT id FROM connections WHERE deleted_at IS NULL");
        assert_eq!(live.len(), 1, "{live:?}");
        *if live[0] == "c_new" { &mut new } else { &mut old } += 1;
        assert!(!is_done || live[0] == "c_new", "what was acknowledged is there");
        let all = ask(case, "SELECT id FROM connections").len();
        assert_eq!(all, if live[0] == "c_new" { 2 } else { 1 }, "the old one is history, or there is no new one");
    })
    .await;
    assert!(kills > 10 && old > 2 && new > 2, "{kills}: {old} and {new}");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_disconnects_the_grant_is_connected_or_queued_or_given_back() {
    let bed = Bed::make(Rule::Overlap, 60).await;
    let mut number = 0;
    let case = || {
        number += 1;
        let case = bed.case(number - 1);
        let subject = case.subject().to_owned();
        case.doing(true, &["disconnect", "quickbooks", "--subject", &subject, "--config", "sidekey.toml"])
    };
    let (mut connected, mut ended) = (0, 0);
    let kills = kill_at_every_write(case, async |case, is_done| {
        assert_sound(case);
        let of_subject = format!("WHERE subject = '{}'", case.subject());
        let live = ask(case, &format!("SELECT id FROM connections {of_subject} AND deleted_at IS NULL")).len();
        let queued = ask(case, &format!("SELECT id FROM revocations {of_subject}")).len();
        let subject_number: usize = case.subject().trim_start_matches("subject-").parse().expect("a number");
        let grants = bed.simulator.ledger().profile("quickbooks").grants.clone();
        let given_back = grants[subject_number].revoked_at_ms.is_some();
        match (live, queued) {
            (1, 0) => assert!(!given_back && !is_done, "what is given back, or acknowledged, has ended"),
            (0, 1) => {}
            (0, 0) => assert!(given_back, "nobody remembers this grant"),
            other => panic!("{other:?}"),
        }
        *if live == 1 { &mut connected } else { &mut ended } += 1;
    })
    .await;
    assert!(kills > 10 && connected > 2 && ended > 2, "{kills}: {connected} and {ended}");
    bed.stop().await;
}

/// The first schema there was, with a connection in it.
const FIRST: &str = include_str!("../../src/store/sqlite/migrations/0001_connections.sql");

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_migrates_an_old_store_the_next_start_goes_on_and_nothing_is_lost() {
    let bed = Bed::make(Rule::Overlap, 1).await;
    let newest = ask(&bed.case(0), "SELECT user_version || '' FROM pragma_user_version").remove(0);
    let schema = "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY type, name";
    let expected = ask(&bed.case(0), schema);
    let case = || {
        let case = bed.case(0).doing(false, &["sidekey.toml"]);
        std::fs::write(case.database(), "").expect("emptied");
        let old = Connection::open(case.database()).expect("opens");
        old.execute_batch(FIRST).expect("made");
        old.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA user_version = 1;
             INSERT INTO connections (id, subject, provider, label, state, captured, generation, access_token_sealed, connected_at)
             VALUES ('c_old', 'alice', 'quickbooks', 'default', 'active', '{}', 7, x'01', 1)",
        )
        .expect("filled");
        case
    };
    let mut versions = std::collections::BTreeSet::new();
    let kills = kill_at_every_write(case, async |case, is_done| {
        assert_sound(case);
        let version = ask(case, "SELECT user_version || '' FROM pragma_user_version").remove(0);
        assert!(!is_done || version == newest, "{version}");
        versions.insert(version);
        case.run().await;
        assert_sound(case);
        assert_eq!(ask(case, "SELECT user_version || '' FROM pragma_user_version"), std::slice::from_ref(&newest));
        assert_eq!(ask(case, schema), expected);
        assert_eq!(ask(case, "SELECT id || generation FROM connections"), ["c_old7"]);
    })
    .await;
    assert!(kills > 10 && versions.len() > 2, "{kills}: {versions:?}");
    bed.stop().await;
}
