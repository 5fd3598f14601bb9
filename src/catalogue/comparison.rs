//! Our endpoints against those in catalogues that others keep (`e2e/catalogues`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::catalogue::Catalogue;
use crate::catalogue::lint::inherited_example;

#[derive(Deserialize)]
struct Table {
    endpoints: Vec<Endpoints>,
}

#[derive(Deserialize)]
struct Endpoints {
    entry: String,
    package: String,
    authorize_url: String,
    token_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    disagreements: Vec<Disagreement>,
    unknown: Vec<Unknown>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disagreement {
    entry: String,
    package: String,
    keys: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unknown {
    entry: String,
    reason: String,
}

fn table() -> Table {
    toml::from_str(include_str!("../../e2e/catalogues/endpoints.toml")).expect("a table")
}

fn answers() -> Answers {
    toml::from_str(include_str!("../../e2e/catalogues/disagreements.toml")).expect("answers")
}

/// What stands in for a part that the operator chooses is what our entry has as example.
fn filled(url: &str, example: Option<&String>) -> String {
    example.map_or_else(|| url.to_owned(), |example| url.replace("[subdomain]", example))
}

#[test]
fn every_disagreement_has_its_reason_and_no_reason_is_left_over() {
    let catalogue = Catalogue::bundled();
    let mut found = BTreeSet::new();
    for theirs in table().endpoints {
        let selection = inherited_example(&catalogue, &theirs.entry);
        let ours = catalogue.select(&theirs.entry, &selection).expect("an entry of ours");
        let example = selection.inputs.values().next();
        for (key, ours, theirs_url) in [
            ("authorize_url", ours.authorize.url.to_string(), &theirs.authorize_url),
            ("token_url", ours.token.url.to_string(), &theirs.token_url),
        ] {
            if ours != filled(theirs_url, example) {
                found.insert((theirs.entry.clone(), theirs.package.clone(), key.to_owned()));
            }
        }
    }
    let mut listed = BTreeSet::new();
    for Disagreement { entry, package, keys, reason } in answers().disagreements {
        assert!(reason.len() > 40 && reason.ends_with('.'), "{entry}: {reason:?} is no reason");
        listed.extend(keys.into_iter().map(|key| (entry.clone(), package.clone(), key)));
    }
    let unlisted: Vec<_> = found.difference(&listed).collect();
    assert!(unlisted.is_empty(), "our entries differ, and nobody has said why: {unlisted:#?}");
    let over: Vec<_> = listed.difference(&found).collect();
    assert!(over.is_empty(), "these do not differ anymore: {over:#?}");
}

#[test]
fn every_entry_is_known_elsewhere_or_listed_as_one_that_is_not() {
    let known: BTreeSet<String> = table().endpoints.into_iter().map(|endpoints| endpoints.entry).collect();
    let unknown: BTreeMap<String, String> =
        answers().unknown.into_iter().map(|unknown| (unknown.entry, unknown.reason)).collect();
    let catalogue = Catalogue::bundled();
    let names = catalogue.names();
    assert!(unknown.keys().all(|name| names.contains(&name.as_str())), "an entry is listed that is gone");
    for name in names {
        match unknown.get(name) {
            Some(reason) => {
                assert!(!known.contains(name), "{name} is known by now");
                assert!(reason.len() > 40 && reason.ends_with('.'), "{name}: {reason:?} is no reason");
            }
            None => assert!(known.contains(name), "{name} is in no other catalogue, and nobody has said so"),
        }
    }
}
