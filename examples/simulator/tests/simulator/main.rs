//! The simulator, seen from outside: over sockets, with a client that hides nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, in real time")]

mod api;
mod calls;
mod client;
mod companies;
mod control;
mod faults;
mod flow;
mod hosts;
mod identity;
mod rotation;
mod shapes;
mod slack;
mod tls;
mod user;
mod users;
