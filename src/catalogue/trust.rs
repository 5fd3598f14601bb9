//! What an entry says from memory only, where tokens and codes would go.

use super::entry::Entry;

/// The places that browsers, codes and tokens are sent to and that no source was read for: key and value. Of the APIs only
/// those that are enabled count.
pub fn unverified<'a>(entry: &Entry, apis: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut places = vec![
        ("authorize.url".to_owned(), entry.authorize.url.to_string()),
        ("token.url".to_owned(), entry.token.url.to_string()),
    ];
    places.extend(entry.token.refresh_url.as_ref().map(|url| ("token.refresh_url".to_owned(), url.to_string())));
    for name in apis {
        places.extend(entry.apis.get(name).map(|api| (format!("apis.{name}.origin"), api.origin.clone())));
    }
    places.retain(|(key, _)| is_recall(entry, key));
    places
}

/// Whether the entry lists this key, or what it stands in.
fn is_recall(entry: &Entry, key: &str) -> bool {
    let covers =
        |recall: &String| key.strip_prefix(recall).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    entry.trust.recall.iter().any(covers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::catalogue::provider::tests::provider;

    #[test]
    fn a_key_stands_for_what_is_below_it() {
        let mut entry = provider("github").entry;
        let mut of = |recall: &str| {
            entry.trust.recall = vec![recall.to_owned()];
            let found = unverified(&entry, ["github"].into_iter());
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(of("token.url"), ["token.url"]);
        assert_eq!(of("token"), ["token.url"]);
        assert_eq!(of("authorize"), ["authorize.url"]);
        assert_eq!(of("apis.github"), ["apis.github.origin"]);
        for other in ["tok", "token.response", "apis.github-git", "apis.github.scopes", "api"] {
            assert_eq!(of(other), Vec::<String>::new(), "{other}");
        }
    }

    #[test]
    fn no_bundled_entry_sends_tokens_where_nobody_has_looked() {
        for name in Catalogue::bundled().names() {
            let entry = provider(name).entry;
            assert_eq!(unverified(&entry, entry.apis.keys().map(String::as_str)), [], "{name}");
        }
    }
}
