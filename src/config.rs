//! The operator's TOML -> valid settings. Every problem is reported at once, with file, line, column and key.
//!
//! [`file`] is the shape of the file and its documentation; [`load`] checks it and makes [`Settings`] of it.

pub mod diff;
pub mod explain;
pub mod file;
pub mod key_sources;
pub mod load;
pub mod outline;
pub mod places;
pub mod reading;
pub mod restart;
pub mod secret_ref;
pub mod settings;

pub use load::{Loaded, load, load_beside, load_text};
pub use outline::{Outline, outline};
pub use places::{Places, places, usual_metrics_address};
pub use settings::Settings;
