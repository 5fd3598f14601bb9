//! Judges a client of the simulator: by the ledger, which knows what really happened, and by what the client has stored.
//!
//! All rules are pure functions. Tokens appear as SHA-256 in hexadecimal, as they do in the ledger.
//!
//! * `grants` — no grant is lost, unless the client has written down that it may be, and why ([`judge_grant`]).
//! * `reuse` — no dead refresh token comes again, but for the one probe of one that was in doubt ([`judge_reuse`]).
//! * `access` — no access token is used for another user ([`crossed_calls`]), and none before what came with it was
//!   stored ([`used_before_durable`]).
//! * `requests` — no request fails while the client has a valid access token ([`failed_while_valid`]).
//! * `economy` — no refresh is asked for without need ([`excess_refreshes`]).
//! * `ended` — nothing is used after its connection was ended ([`used_after_end`]).
//! * `secrets` — no token and no client secret stands in a log, a metric or a file ([`leaks`]).
//! * `tally` — what is counted of all this, and the verdict ([`Counts`]).

mod access;
mod economy;
mod ended;
mod grants;
#[cfg(test)]
mod history;
mod requests;
mod reuse;
mod secrets;
mod tally;

pub use access::{crossed_calls, used_before_durable};
pub use economy::excess_refreshes;
pub use ended::used_after_end;
pub use grants::{GrantVerdict, judge_grant};
pub use requests::{RequestOutcome, RequestRecord, failed_while_valid};
pub use reuse::{ReuseVerdict, judge_reuse};
pub use secrets::leaks;
pub use tally::Counts;

/// What a client has stored for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose connection it is.
    pub user: String,
    /// The refresh tokens that the client can still use, the current one first.
    pub refresh_tokens: Vec<String>,
    /// The access token that it uses.
    pub access_token: String,
    /// What it knows about them.
    pub standing: Standing,
}

/// What a client has written down about its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are in use.
    Active,
    /// A refresh token was sent, or was about to be, and it is unknown what the provider did.
    InDoubt {
        /// The refresh token.
        refresh_token: String,
        /// Why it is unknown.
        cause: String,
    },
    /// The client gave the grant up: the user must connect again.
    GivenUp {
        /// Why.
        cause: String,
    },
}
