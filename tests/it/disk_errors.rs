//! Disks that fail at one call, or from one call on: the first, the second, the third, ... that writes or syncs.

use std::time::Duration;

use sidekey_simulator::Grant;

use crate::one_refresh::{Bed, Case, Rule};
use crate::world::eventually;

/// The calls of the store's thread that can fail, and how.
const FAULTS: [(&str, &str); 5] =
    [("fsync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EROFS"), ("ftruncate", "EIO")];

fn was_asked(grant: &Grant) -> bool {
    grant.refresh_tokens[0].used_count > 0
}

/// What was sent, and what became of it: all or nothing.
async fn stored_or_not_sent(bed: &Bed, case: &Case, fault: &str) -> bool {
    let found = bed.look(case).await;
    let asked = was_asked(&bed.grant(&found));
    assert_eq!((found.record.generation, &found.record.trouble), (if asked { 2 } else { 1 }, &None), "{fault}");
    assert_eq!(found.record.intent, None, "{fault}: nothing is left open");
    asked
}

/// A token that works once is neither lost nor left in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_or_sync_that_fails_once_loses_nothing_whichever_it_is() {
    let bed = Bed::make(Rule::SingleUse, 130).await;
    let mut cases = (0..130).map(|number| bed.case(number));
    let (mut sent, mut not_sent, mut reopened) = (0, 0, 0);
    for (call, error) in FAULTS {
        for when in 1.. {
            let case = cases.next().expect("more calls than cases: raise the limit");
            let inject = format!("inject={call}:error={error}:when={when}");
            let status = case.traced(&["-f", "-e", &format!("trace=openat,{call}"), "-e", &inject]).await;
            let trace = case.trace();
            let Some((_, afterwards)) = trace.split_once("INJECTED") else {
                assert!(status.success() && when > 2, "{call} is called");
                break;
            };
            // What a handle says after an error of the disk is not believed.
            reopened += usize::from(call == "fsync" && afterwards.contains("/sidekey.db\","));
            if stored_or_not_sent(&bed, &case, &inject).await {
                assert!(status.success(), "{inject}: {status}");
                sent += 1;
            } else {
                not_sent += 1;
                case.run().await;
                assert!(stored_or_not_sent(&bed, &case, &inject).await, "{inject}: the next run refreshes");
            }
        }
    }
    assert!(sent > 20 && not_sent > 5 && reopened > 1, "{sent}, {not_sent}, {reopened}");
    bed.stop().await;
}

/// As long as nothing can be written, nothing is sent. What had been sent before waits in memory, and is stored as soon as
/// that can be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_from_some_write_or_sync_on_loses_nothing_once_it_works_again() {
    let bed = Bed::make(Rule::SingleUse, 100).await;
    let mut cases = (0..100).map(|number| bed.case(number));
    let (mut waited, mut not_sent) = (0, 0);
    for (call, error) in [("fsync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO")] {
        for when in 1.. {
            let case = cases.next().expect("more calls than cases: raise the limit");
            let inject = format!("inject={call}:error={error}:when={when}+");
            let before = bed.simulator.ledger().profile("quickbooks").counters.refreshes_ok;
            let mut strace = case.spawn_traced(&["-f", "-e", &format!("trace={call}"), "-e", &inject]);
            eventually("it has ended, or the provider was asked", async || {
                let asked = bed.simulator.ledger().profile("quickbooks").counters.refreshes_ok > before;
                asked || strace.try_wait().expect("asked").is_some()
            })
            .await;
            // Long enough for another try.
            let ended = tokio::time::timeout(Duration::from_millis(1500), strace.wait()).await;
            if ended.is_err() {
                waited += 1;
                strace.kill().await.expect("killed");
                eventually("it goes on by itself", async || case.is_free()).await;
                assert!(stored_or_not_sent(&bed, &case, &inject).await, "{inject}");
            } else if !case.trace().contains("INJECTED") {
                break;
            } else if !bed.look(&case).await.is_refreshed() {
                not_sent += 1;
                assert!(!was_asked(&bed.grant(&bed.look(&case).await)), "{inject}: asked, and given up");
            }
        }
    }
    assert!(waited > 3 && not_sent > 5, "{waited} and {not_sent}");
    bed.stop().await;
}
