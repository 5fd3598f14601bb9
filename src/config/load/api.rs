//! The HTTP API for partners: who may use it, and where browsers may be led back to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::Loader;
use crate::base::clock::Timestamp;
use crate::base::toml_document::join;
use crate::catalogue::Provider;
use crate::config::file::{ApiKeyTable, ApiTable};
use crate::config::settings::Api;
use crate::model::api_key::{ApiKey, EXPECTED_HASH, EXPECTED_NAME, SubjectPrefix, parse_hash};
use crate::model::names::ProviderName;
use crate::model::return_to::{Listed, ReturnTargets};

/// What a day or a moment looks like, for messages.
const EXPECTED_TIME: &str = "a day such as \"2027-06-30\", or a moment such as \"2027-06-30T12:00:00Z\"";

impl Loader<'_> {
    pub(super) fn api(&mut self, table: &ApiTable, providers: &BTreeMap<ProviderName, Arc<Provider>>) -> Api {
        let mut listed = Vec::new();
        for (index, text) in table.return_to.iter().enumerate() {
            listed.extend(self.parsed::<Listed>(&format!("api.return_to[{index}]"), text, Listed::EXPECTED));
        }
        let mut api = Api { return_to: ReturnTargets::new(listed), ..Api::default() };
        for (name, key) in &table.keys {
            let path = join("api.keys", name);
            let digest = parse_hash(&key.hash);
            if digest.is_none() {
                // What stands there may be the key itself: it is not repeated.
                self.problem(&format!("{path}.hash"), format!("is not a hash; expected {EXPECTED_HASH}"));
            }
            let (Some(key), Some(digest)) = (self.api_key(&path, name, key, providers), digest) else { continue };
            if let Err(other) = api.keys.add(digest, key) {
                self.problem(&format!("{path}.hash"), format!("is that of [api.keys.{other}] too"));
            }
        }
        api
    }

    fn api_key(
        &mut self,
        path: &str,
        name: &str,
        table: &ApiKeyTable,
        providers: &BTreeMap<ProviderName, Arc<Provider>>,
    ) -> Option<ApiKey> {
        let named = self.parsed::<ProviderName>(path, name, EXPECTED_NAME);
        let mut scope = BTreeSet::new();
        for (index, text) in table.providers.iter().flatten().enumerate() {
            let key = format!("{path}.providers[{index}]");
            let Some(provider) = self.parsed::<ProviderName>(&key, text, ProviderName::EXPECTED) else { continue };
            if !providers.contains_key(&provider) && !self.declares_provider(provider.as_str()) {
                self.problem_with_hint(&key, format!("{text:?} is not configured"), "add it to [providers]");
            }
            scope.insert(provider);
        }
        if table.providers.as_ref().is_some_and(Vec::is_empty) {
            let hint = "leave it out for all providers";
            self.problem_with_hint(&format!("{path}.providers"), "is empty: the key would be good for nothing", hint);
        }
        let subjects = table.subject_prefix.as_ref().map_or(Some(None), |text| {
            self.parsed(&format!("{path}.subject_prefix"), text, SubjectPrefix::EXPECTED).map(Some)
        });
        let expires_at = table.expires.as_ref().map_or(Some(None), |text| {
            let moment = moment(text);
            if moment.is_none() {
                let message = format!("{text:?} is not allowed here; expected {EXPECTED_TIME}");
                self.problem(&format!("{path}.expires"), message);
            }
            moment.map(Some)
        });
        // A key that is not limited as was meant is none.
        Some(ApiKey {
            name: named?.as_str().into(),
            providers: table.providers.is_some().then_some(scope),
            subjects: subjects?,
            expires_at: expires_at?,
        })
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    let day = format!("{text}T00:00:00Z");
    let time = humantime::parse_rfc3339(text).or_else(|_| humantime::parse_rfc3339(&day)).ok()?;
    let millis = time.duration_since(UNIX_EPOCH).ok()?.as_millis();
    i64::try_from(millis).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::base::digest::sha256;
    use crate::config::load::load_text;
    use crate::config::settings::Api;
    use crate::model::api_key::hash_text;

    fn loaded(text: &str) -> Result<Api, Vec<String>> {
        let key = |name: &str| (name == "KEY").then(|| "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned());
        let text = format!(
            "[store]\nkeys = ['env:KEY']\n[providers.quickbooks]\nclient_id = 'a'\nclient_secret = 'env:KEY'\n{text}"
        );
        load_text(Path::new("/x/sidekey.toml"), &text, &key)
            .map(|settings| settings.api)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn hash() -> String {
        hash_text(&sha256(b"a key"))
    }

    #[test]
    fn keys_and_pages_are_taken() {
        assert!(loaded("").expect("valid").keys.all().is_empty(), "without keys nobody may do anything");
        let api = loaded(&format!(
            "[api]\nreturn_to = ['https://app.example.com/x']\n[api.keys.books]\nhash = '{}'\nproviders = ['quickbooks']\n\
             subject_prefix = 'org-'\nexpires = '2027-06-30'\n[api.keys.wide]\nhash = '{}'\nexpires = '2027-06-30T12:00:00Z'\n",
            hash(),
            hash_text(&sha256(b"another"))
        ))
        .expect("valid");
        assert!(api.return_to.allows("https://app.example.com/x/y"));
        let key = api.keys.find(&sha256(b"a key")).expect("there");
        assert_eq!(
            (&*key.name, key.expires_at.expect("ends").to_string()),
            ("books", "2027-06-30T00:00:00Z".to_owned())
        );
        assert_eq!(key.subjects.as_ref().map(|prefix| prefix.as_str()), Some("org-"));
        let wide = api.keys.find(&sha256(b"another")).expect("there");
        assert!(wide.providers.is_none() && wide.subjects.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_never_with_the_key() {
        let hash = hash();
        for (tables, what) in [
            (
                "[api]\nreturn_to = ['https://*.example.com/']".to_owned(),
                "7:14: api.return_to[0]: \"https://*.example.com/\" is not",
            ),
            (
                "[api.keys.a]\nhash = 'sidekey_api_secret'".to_owned(),
                "7:8: api.keys.a.hash: is not a hash; expected \"sha256:\"",
            ),
            ("[api.keys.a]\n".to_owned(), "api.keys.a.hash: is missing; expected a string"),
            ("[api.keys.A]\nhash = 'HASH'".to_owned(), "api.keys.A: \"A\" is not allowed here; expected 1 to 40"),
            (
                "[api.keys.a]\nhash = 'HASH'\nproviders = []".to_owned(),
                "api.keys.a.providers: is empty: the key would be good",
            ),
            (
                "[api.keys.a]\nhash = 'HASH'\nproviders = ['xero']".to_owned(),
                "api.keys.a.providers[0]: \"xero\" is not configured",
            ),
            (
                "[api.keys.a]\nhash = 'HASH'\nsubject_prefix = 'org'".to_owned(),
                "api.keys.a.subject_prefix: \"org\" is not allowed",
            ),
            (
                "[api.keys.a]\nhash = 'HASH'\nexpires = 'soon'".to_owned(),
                "api.keys.a.expires: \"soon\" is not allowed here",
            ),
            (
                "[api.keys.a]\nhash = 'HASH'\n[api.keys.b]\nhash = 'HASH'".to_owned(),
                "api.keys.b.hash: is that of [api.keys.a] too",
            ),
        ] {
            let problems = loaded(&tables.replace("HASH", &hash)).expect_err("refused");
            assert!(problems.len() == 1 && problems[0].contains(what), "{tables}: {problems:?}");
            assert!(!problems[0].contains("sidekey_api_secret"), "{problems:?}");
        }
    }
}
