//! The files, which are part of the program.

use super::Company;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../companies/", $name, ".toml")))),*]
    };
}

/// Name and content of each, in alphabetical order.
const FILES: [(&str, &str); 19] = files![
    "airtable",
    "asana",
    "atlassian",
    "bitbucket",
    "box",
    "discord",
    "dropbox",
    "figma",
    "hubspot",
    "linear",
    "salesforce",
    "shopify",
    "spotify",
    "stripe",
    "stripe-connect",
    "todoist",
    "xero",
    "zendesk",
    "zoom",
];

/// All companies. A file that cannot be read is a mistake in the program, and a test reads them all.
pub(super) fn all() -> Vec<Company> {
    FILES.iter().map(|(name, text)| read(name, text).unwrap_or_else(|problem| panic!("{name}: {problem}"))).collect()
}

fn read(name: &str, text: &str) -> Result<Company, String> {
    let mut company: Company = toml::from_str(text).map_err(|error| error.to_string())?;
    if company.sources.is_empty() {
        return Err("it names no source".to_owned());
    }
    company.name = name.to_owned();
    Ok(company)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::profile::Profile;
    use crate::settings::Settings;

    #[test]
    fn every_file_is_read_and_its_settings_fit() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/companies");
        let there: BTreeSet<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap().replace(".toml", ""))
            .collect();
        assert_eq!(there, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
        for profile in Profile::all() {
            let settings = Settings::of(profile);
            let Some(company) = profile.company() else { continue };
            assert!(!company.api.expired.is_empty(), "{}: what does an expired token look like?", company.name);
            assert!(company.token.reply.0.to_string().contains("{access_token}"), "{}", company.name);
            assert!(settings.sites <= company.sites.len().max(1), "{}", company.name);
            let has = |endpoint: &str| company.hosts.iter().any(|host| host.endpoints.contains_key(endpoint));
            assert!(has("authorize") && has("token"), "{}", company.name);
            assert_eq!(has("revoke"), company.revoke.is_some(), "{}", company.name);
            assert_eq!(has("jwks.json"), company.issuer.is_some(), "{}", company.name);
        }
    }

    #[test]
    fn a_file_with_a_mistake_is_refused() {
        for (text, problem) in [
            ("sources = []", "missing field `hosts`"),
            (
                "sources = []\nhosts = []\n[token]\naccess = \"a\"\nreply = '{'\n[api]\nexpired = []",
                "EOF while parsing",
            ),
            ("sources = []\nhosts = []\ncolour = 1", "unknown field `colour`"),
            (
                "sources = []\nhosts = []\n[token]\naccess = \"a\"\nreply = '{}'\n[api]\nexpired = []",
                "it names no source",
            ),
        ] {
            let refused = read("test", text).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
