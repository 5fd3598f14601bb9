//! What befalls refreshes: how long they take, and where their transport breaks.

use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::arena::Contender;
use crate::dice::Dice;
use crate::files::PROFILE;

/// Refreshes that are provided for in one round; further ones are only slow.
const REFRESHES: u64 = 24;
/// The share of refreshes whose reply is lost, at providers where no lost reply may cost anything.
const LOST: f64 = 0.35;
/// The longest time between a request's arrival at the provider and its effect, in milliseconds.
pub const LONGEST_WAY: u64 = 300;

/// Decides how the next refreshes at a provider fare, and how long the tokens live that they bring.
pub fn change(contender: &Contender, dice: &Dice) {
    let lifetime = [1.0, 1.0, 2.0, 3.0][dice.between(0, 4) as usize];
    let simulator = &contender.simulator;
    simulator.set(PROFILE, |settings| settings.access_lifetime_s = lifetime);
    simulator.clear_faults();
    for nth in 1..=REFRESHES {
        let lost = contender.model.keeps_every_grant() && dice.chance(LOST);
        let kind = if lost { lost_reply(dice) } else { slowness(dice) };
        simulator.add_fault(Fault::new(PROFILE, Endpoint::Refresh, kind).nth(nth));
    }
    simulator.add_fault(Fault::new(PROFILE, Endpoint::Refresh, FaultKind::DelayMs { ms: 400 }));
}

/// From now on everything goes well, and tokens do not live long.
pub fn clear_up(contender: &Contender) {
    contender.simulator.set(PROFILE, |settings| settings.access_lifetime_s = 3.0);
    contender.simulator.clear_faults();
}

/// The process may die before the provider has acted, or between that and the reply.
fn slowness(dice: &Dice) -> FaultKind {
    match dice.between(0, 4) {
        0 => FaultKind::DelayBeforeCommit { ms: dice.between(20, LONGEST_WAY) },
        1 => FaultKind::DelayMs { ms: dice.between(50, 600) },
        _ => FaultKind::DelayMs { ms: dice.between(400, 1800) },
    }
}

fn lost_reply(dice: &Dice) -> FaultKind {
    match dice.between(0, 8) {
        0 => FaultKind::ResetBeforeReading,
        1 => FaultKind::ResetNotCommitted,
        2 => FaultKind::CommitThenReset,
        3 => FaultKind::CommitThenResetAfterHeaders,
        4 => FaultKind::CommitHalfBody,
        5 => FaultKind::CommitThenStatus { status: 500 },
        6 => FaultKind::WrongContentLength,
        _ => FaultKind::Status {
            status: 503,
            body: None,
            content_type: None,
            headers: std::collections::BTreeMap::new(),
        },
    }
}
