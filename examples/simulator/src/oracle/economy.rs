//! Whether a client asks more often than it must.

/// Refresh requests of a time in which nothing failed that brought no new tokens into the store: `asked` at the provider,
/// `stored` by the client.
pub fn excess_refreshes(asked: u64, stored: u64) -> u64 {
    asked.saturating_sub(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_brings_its_tokens() {
        assert_eq!(excess_refreshes(5, 5), 0);
        assert_eq!(excess_refreshes(5, 6), 0, "the first one was asked for before");
        assert_eq!(excess_refreshes(7, 5), 2);
    }
}
