//! The catalogue: what Sidekey knows about each provider, declared in TOML.
//!
//! The bundled files are `config/providers/*.toml`; an operator's own directory may hold further ones and replacements.
//! [`load`] lays a file over the one it `extends`, applies the chosen environment and the operator's inputs, checks the
//! result, and returns a typed [`Entry`]. Nothing about a particular provider stands in Rust.

mod builtin;
#[cfg(test)]
mod comparison;
pub mod entry;
mod hosts;
pub mod lint;
pub mod load;
#[cfg(test)]
mod overview;
pub mod place;
pub mod provider;
pub mod recipe;
mod sense;
pub mod template;
mod trust;
pub mod uses;

pub use entry::Entry;
pub use load::{Catalogue, Selection};
pub use provider::{Api, Client, Provider};
pub use trust::unverified;
