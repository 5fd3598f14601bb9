//! A simulated OAuth provider.
