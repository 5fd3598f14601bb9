//! Pure data and its transitions: who is connected to what, with which tokens, and which handle stands for whom.

pub mod connection;
pub mod flow;
pub mod handle;
pub mod names;
pub mod token_set;
