//! A simulated OAuth 2.0 provider: "the SaaS company" of tests and demos.
//!
//! One HTTP server plays several companies at once; the first path segment says which
//! ([`Profile`]). It issues codes and tokens, rotates refresh tokens by the company's rules,
//! and offers an API that accepts only the access token that is valid *now*. It writes every
//! token it issued, rotated, saw or killed into a ledger, so that a test can compare what a
//! client believes with what really happened, and it misbehaves on request.
//!
//! Reading order:
//!
//! * `simulator` — [`start`], [`Options`], [`Simulator`]: use inside a test process.
//! * `profile`, `settings` — which companies there are, and what can be changed about each.
//! * `company` — the companies that are described by files (`companies/*.toml`).
//! * `ledger` — what is written down ([`LedgerSnapshot`]); never a token's value.
//! * `state` — the one mutex, with ledger, values, codes and faults behind it.
//!   `rotation` holds the rules by which refresh tokens live and die.
//! * `server` — accepts connections and sends each request to its endpoint:
//!   `authorize`, `token` (with `credentials`, `token_reply`, `id_token`), `revoke`, `userinfo`,
//!   `api` (with `api_refusal`, `answers`, `notion`, `slack`, `tools`), `control`.
//!   `user` says how users appear there; `hosts` — the companies behind their real host names.
//! * `calls` — which calls reached the APIs, and with whose token ([`ApiCall`]); `mark` — how a
//!   test finds its own among them.
//! * `faults` — which misbehaviour is due ([`Fault`]); `misbehave` — doing it;
//!   `connection` — the socket that can be reset under a reply.
//! * `oracle` — what a client may be accused of, given the ledger and what the client has stored.
//! * `jwt`, `reply`, `clock`, `random` — small tools.
//!
//! Users: [`Settings::user`] approves, unless the authorization request has `simulated_user=NAME` or
//! the consent page is answered with another name. Grants, tokens, ID tokens, `/P/userinfo` and the
//! APIs remember who it was. To have a client refresh now, expire what it holds:
//! [`Simulator::expire`], [`Simulator::expire_user`], or `POST /control/expire/P?user=NAME`;
//! [`Simulator::api_calls`] then shows with which of a grant's tokens it comes back.
//!
//! It does not use the `sidekey` crate: both follow the same documents independently, which is
//! what makes one a test of the other.

mod answers;
mod api;
mod api_refusal;
mod authorize;
mod calls;
mod clock;
pub mod command_line;
mod company;
mod connection;
mod control;
mod credentials;
mod faults;
mod gitlab;
mod google;
mod hosts;
mod id_token;
mod jwt;
pub mod leaks;
mod ledger;
mod mark;
mod misbehave;
mod notion;
pub mod oracle;
mod profile;
mod random;
mod reply;
mod revoke;
mod rotation;
mod server;
mod settings;
mod simulator;
mod slack;
mod state;
mod token;
mod token_reply;
mod tools;
mod user;
mod userinfo;

pub use calls::ApiCall;
pub use faults::{Endpoint, Fault, FaultKind};
pub use hosts::host_names;
pub use ledger::{AccessToken, Counters, Event, Grant, IssuedValues, LedgerSnapshot, ProfileLedger, RefreshToken};
pub use profile::{CompanyId, Profile};
pub use settings::{ClientAuth, IdTokenAlg, IdTokenTamper, RequestFormat, Reuse, Rotation, Settings};
pub use simulator::{Options, Simulator, TlsIdentity, start};
