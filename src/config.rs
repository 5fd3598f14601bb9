//! The operator's TOML -> valid settings. Every problem is reported at once, with file, line, column and key.
//!
//! [`file`] is the shape of the file and its documentation; [`load`] checks it and makes [`Settings`] of it.

pub mod file;
pub mod load;
pub mod outline;
pub mod secret_ref;
pub mod settings;

pub use load::{load, load_text};
pub use outline::{Outline, outline};
pub use settings::Settings;
