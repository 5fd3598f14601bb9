//! Sidekey.
