//! A refresh that is killed at its first system call, its second, its third, ... to its last. What is on disk then is
//! the old or the new, never a mixture, and the next run goes on from there.
//!
//! strace counts by thread and by kind of call. One pass goes through all calls of the main thread from the opening of
//! the store to the end, the network's among them; another one through those of the store's thread that change a file:
//! between two of these the files are what they were.

use std::collections::BTreeSet;
use std::time::Duration;

use sidekey::model::connection::ConnectionState;
use sidekey_simulator::Grant;

use crate::one_refresh::{Bed, Case, Found, Rule, WRITING, hex};

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_the_main_thread_a_token_that_may_be_repeated_is_refreshed_by_the_next_run() {
    killed_at_any_call(Rule::Overlap, Thread::Main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_the_main_thread_a_token_that_works_once_is_in_doubt_and_not_sent_again() {
    killed_at_any_call(Rule::SingleUse, Thread::Main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_a_token_that_may_be_repeated_is_refreshed_by_the_next_run() {
    killed_at_any_call(Rule::Overlap, Thread::Store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_a_token_that_works_once_is_in_doubt_and_not_sent_again() {
    killed_at_any_call(Rule::SingleUse, Thread::Store).await;
}

#[derive(Clone, Copy)]
enum Thread {
    Main,
    Store,
}

/// How often what was found after a kill.
#[derive(Default, Debug)]
struct Seen {
    /// The provider had not been asked.
    before: usize,
    /// It had been asked, and the answer was not on disk.
    between: usize,
    /// The new tokens were on disk.
    after: usize,
}

async fn killed_at_any_call(rule: Rule, thread: Thread) {
    let enough = match thread {
        Thread::Main => 260,
        Thread::Store => 80,
    };
    let bed = Bed::make(rule, enough).await;
    let mut cases = (0..enough).map(|number| bed.case(number));
    let mut another = || cases.next().unwrap_or_else(|| panic!("more calls than {enough}: raise the limit"));
    let mut seen = Seen::default();
    for (call, made_before) in calls(&another(), thread).await {
        for when in made_before + 1.. {
            let case = another();
            let follow: &[&str] = if matches!(thread, Thread::Store) { &["-f"] } else { &[] };
            if case.is_killed(&call, when, follow).await {
                let found = bed.look(&case).await;
                let grant = bed.grant(&found);
                old_or_new(&found, &grant, &mut seen);
                case.run().await;
                went_on(rule, &found, &bed.look(&case).await, &bed, &grant);
            } else {
                // There are not so many of these calls: it came to its end.
                assert_eq!(bed.look(&case).await.record.generation, 2);
                break;
            }
        }
    }
    assert!(seen.before > 5 && seen.between > 1 && seen.after > 1, "{seen:?}");
    bed.stop().await;
}

/// The kinds of calls, and how many of each the thread makes before the store is opened.
async fn calls(case: &Case, thread: Thread) -> Vec<(String, usize)> {
    case.traced(&["-e", "trace=all"]).await;
    let trace = case.trace();
    let names: Vec<&str> = trace.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name).collect();
    let starts_thread = names.iter().position(|name| name.starts_with("clone")).expect("the store has a thread");
    let (before, after) = names.split_at(starts_thread + 1);
    assert!(names.contains(&"connect") && !names.iter().any(|name| WRITING.contains(name)), "{names:?}");
    let kinds: BTreeSet<&str> = match thread {
        Thread::Main => after.iter().copied().collect(),
        Thread::Store => WRITING.into(),
    };
    let made_before = |kind: &str| before.iter().filter(|name| **name == kind).count();
    kinds.into_iter().map(|kind| (kind.to_owned(), made_before(kind))).collect()
}

/// What is on disk after a kill.
fn old_or_new(found: &Found, grant: &Grant, seen: &mut Seen) {
    let was_asked = grant.refresh_tokens[0].used_count > 0;
    let record = &found.record;
    assert_eq!((&record.state, &record.trouble), (&ConnectionState::Active, &None));
    match record.generation {
        1 => {
            assert!(!was_asked || record.intent.is_some(), "the provider was asked and nothing says so");
            if let Some(intent) = &record.intent {
                assert_eq!(hex(&intent.refresh_token_digest), grant.refresh_tokens[0].value_sha256);
            }
            *if was_asked { &mut seen.between } else { &mut seen.before } += 1;
        }
        2 => {
            assert!(was_asked && record.intent.is_none(), "{:?}", record.intent);
            seen.after += 1;
        }
        generation => panic!("generation {generation}"),
    }
}

/// What the next run made of it.
fn went_on(rule: Rule, killed: &Found, found: &Found, bed: &Bed, before: &Grant) {
    let grant = bed.grant(found);
    let record = &found.record;
    let uses = |grant: &Grant| grant.refresh_tokens.iter().map(|token| token.used_count).sum::<u64>();
    assert_eq!(record.state, ConnectionState::Active);
    assert_eq!(bed.simulator.ledger().profile("quickbooks").counters.reuse_detected, 0);
    if killed.record.generation == 2 {
        assert_eq!((record.generation, uses(&grant)), (2, uses(before)), "what was fresh is left alone");
    } else if rule == Rule::SingleUse && killed.record.intent.is_some() {
        let trouble = record.trouble.as_ref().expect("recorded");
        assert!(record.generation == 1 && trouble.in_doubt_since.is_some() && record.intent.is_some(), "{trouble:?}");
        let probe = record.access_expires_at.expect("known").minus(Duration::from_secs(2));
        assert!(record.refresh_due_at >= Some(probe), "left alone until it expires");
        assert_eq!(uses(&grant), uses(before), "it was not sent again");
    } else {
        assert_eq!((record.generation, &record.trouble, &record.intent), (2, &None, &None));
        assert_eq!(uses(&grant), uses(before) + 1);
    }
}
