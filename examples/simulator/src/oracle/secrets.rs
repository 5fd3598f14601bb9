//! Whether secrets are where they must not be.

use crate::leaks::LeakSearch;
use crate::ledger::IssuedValues;

/// The names of the texts that hold one of the newest tokens, or a client secret. Older ones would have been there when they were
/// new; all of all would take hours.
pub fn leaks<'t>(values: &IssuedValues, newest: usize, texts: &'t [(String, Vec<u8>)]) -> Vec<&'t str> {
    let last = |values: &'_ [String]| values[values.len().saturating_sub(newest)..].to_vec();
    let secrets = [last(&values.access_tokens), last(&values.refresh_tokens), values.client_secrets.clone()].concat();
    let search = LeakSearch::new(secrets);
    texts.iter().filter(|(_, text)| !search.find(text).is_empty()).map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_in_a_text_is_found() {
        let values = IssuedValues {
            access_tokens: vec!["access-token-1".to_owned(), "access-token-2".to_owned()],
            refresh_tokens: vec!["refresh-token-1".to_owned()],
            client_secrets: vec!["client-secret-1".to_owned()],
            ..IssuedValues::default()
        };
        let text = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let texts = [
            text("log", "all is well"),
            text("audit", "x access-token-2 y"),
            text("store", "cmVmcmVzaC10b2tlbi0x"),
            text("metrics", "client-secret-1"),
            text("old", "access-token-1"),
        ];
        assert_eq!(leaks(&values, 1, &texts), ["audit", "store", "metrics"]);
    }
}
