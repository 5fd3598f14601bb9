//! From provider files to a typed entry: extend, choose the environment, fill in the inputs, check, parse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use crate::base::sources::Sources;
use crate::base::toml_document::{Document, Problem, join, merge};
use crate::base::toml_schema::{Completeness, check, did_you_mean, schema_of};
use crate::catalogue::builtin;
use crate::catalogue::entry::Entry;
use crate::catalogue::sense::check_sense;
use crate::catalogue::template::fill_everywhere;

/// All provider files: the bundled ones and the operator's.
#[derive(Clone, Debug)]
pub struct Catalogue {
    bundled: BTreeMap<String, Document>,
    own: BTreeMap<String, Document>,
}

/// What an operator chose of an entry.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Which environment; the entry's default where absent.
    pub environment: Option<String>,
    /// Values for the entry's inputs.
    pub inputs: BTreeMap<String, String>,
    /// The client identifier: some URLs contain it.
    pub client_id: String,
}

/// Why an entry cannot be used as selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectError {
    /// There is none of this name.
    UnknownEntry {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The operator's choice does not fit the entry.
    Choice {
        /// Which key of the choice.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// The provider file itself is wrong.
    Entry(Problem),
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<Entry>);

impl Catalogue {
    /// The bundled entries.
    pub fn bundled() -> Self {
        static BUNDLED: LazyLock<Catalogue> = LazyLock::new(Catalogue::parse_bundled);
        BUNDLED.clone()
    }

    fn parse_bundled() -> Self {
        let parse = |(name, text): &(&str, &str)| {
            let file = PathBuf::from(format!("(bundled) {name}.toml"));
            let document = Document::parse(&file, text).expect("the bundled files are parsed by a test");
            ((*name).to_owned(), document)
        };
        Self { bundled: builtin::FILES.iter().map(parse).collect(), own: BTreeMap::new() }
    }

    /// Adds the `*.toml` files of an operator's directory. One of a bundled name replaces that entry, or changes it if
    /// it says `extends` with the same name.
    pub fn add_directory(&mut self, directory: &Path, sources: &Sources) -> Vec<Problem> {
        let mut paths = match sources.list(directory) {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("cannot read this directory of provider files: {error}");
                return vec![Problem::of_file(directory, message)];
            }
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.iter().flat_map(|path| self.add_file(path, sources)).collect()
    }

    /// Adds one file, under the name that it has without `.toml`.
    pub fn add_file(&mut self, path: &Path, sources: &Sources) -> Vec<Problem> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let text = match sources.read_to_string(path) {
            Ok(text) => text,
            Err(error) => return vec![Problem::of_file(path, format!("cannot read this provider file: {error}"))],
        };
        match Document::parse(path, &text) {
            Ok(document) => {
                let problems = check_shape(&document);
                self.own.insert(name.to_owned(), document);
                problems
            }
            Err(problems) => problems,
        }
    }

    /// The names of all entries, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.bundled.keys().chain(self.own.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The file that stands for `name`: the operator's where there is one.
    pub fn document(&self, name: &str) -> Option<&Document> {
        self.own.get(name).or_else(|| self.bundled.get(name))
    }

    /// Whether `name` is one of the bundled entries, unchanged.
    pub fn is_bundled(&self, name: &str) -> bool {
        !self.own.contains_key(name) && self.bundled.contains_key(name)
    }

    /// The entry `name` as selected.
    pub fn select(&self, name: &str, selection: &Selection) -> Result<Entry, Vec<SelectError>> {
        let merged = self.merged(name, selection)?;
        let mut problems = check(&merged, &SCHEMA, Completeness::Whole);
        if problems.is_empty() {
            match serde_json::from_value::<Entry>(merged.value.clone()) {
                Ok(entry) => {
                    problems = check_sense(&entry, &merged);
                    if problems.is_empty() {
                        return Ok(entry);
                    }
                }
                Err(error) => problems.push(merged.problem("", error.to_string())),
            }
        }
        Err(problems.into_iter().map(SelectError::Entry).collect())
    }

    /// The file that stands for `name`, with what it says once it is laid over what it extends, and as selected.
    pub fn merged(&self, name: &str, selection: &Selection) -> Result<Document, Vec<SelectError>> {
        let chain = self.chain(name)?;
        let mut merged = Value::Object(serde_json::Map::new());
        for document in &chain {
            merge(&mut merged, &document.value);
        }
        let top = chain.last().copied().ok_or_else(Vec::new)?;
        choose_environment(&mut merged, selection)?;
        fill_inputs(&mut merged, selection)?;
        Ok(top.with_value(merged))
    }

    /// An entry's name, and those of the entries that it extends.
    pub fn lineage(&self, name: &str) -> Vec<String> {
        let documents = self.chain(name).unwrap_or_default();
        let extended = documents.iter().filter_map(|document| document.value["extends"].as_str().map(str::to_owned));
        std::iter::once(name.to_owned()).chain(extended).collect()
    }

    /// The documents to lay over each other, the innermost first.
    fn chain(&self, name: &str) -> Result<Vec<&Document>, Vec<SelectError>> {
        let mut chain: Vec<&Document> = Vec::new();
        let mut wanted = name.to_owned();
        loop {
            // A file may extend the bundled entry of its own name; beyond that, coming back to a file is a circle.
            let seen = |document: &&Document| chain.iter().any(|seen| seen.file == document.file);
            let candidates = [self.own.get(&wanted), self.bundled.get(&wanted)];
            let Some(document) = candidates.into_iter().flatten().find(|document| !seen(document)) else {
                return Err(vec![match chain.last() {
                    Some(last) if candidates.iter().any(Option::is_some) => {
                        SelectError::Entry(last.problem("extends", "extends an entry that extends this one"))
                    }
                    last => self.unknown(&wanted, last.copied()),
                }]);
            };
            chain.push(document);
            match document.value["extends"].as_str() {
                Some(extended) => wanted = extended.to_owned(),
                None => break,
            }
        }
        chain.reverse();
        Ok(chain)
    }

    fn unknown(&self, name: &str, extended_by: Option<&Document>) -> SelectError {
        let message = format!("there is no provider entry {name:?}");
        let known = self.names();
        let hint = match did_you_mean(name, known.iter().copied()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("known: {}", known.join(", ")),
        };
        match extended_by {
            Some(document) => SelectError::Entry(document.problem("extends", message).with_hint(hint)),
            None => SelectError::UnknownEntry { message, hint: Some(hint) },
        }
    }
}

/// Unknown keys and wrong types in one file, whether or not it is selected. Missing keys are another matter: they may
/// stand in the entry that it extends.
pub(super) fn check_shape(document: &Document) -> Vec<Problem> {
    let mut problems = check(document, &SCHEMA, Completeness::Partial);
    for (name, overlay) in document.value["environments"].as_object().into_iter().flatten() {
        let path = join("environments", name);
        let overlay = document.with_value(overlay.clone());
        problems.extend(check(&overlay, &SCHEMA, Completeness::Partial).into_iter().map(|problem| {
            let located = document.problem(&format!("{path}.{}", problem.key), problem.message);
            Problem { hint: problem.hint, ..located }
        }));
    }
    problems
}

fn choose_environment(merged: &mut Value, selection: &Selection) -> Result<(), Vec<SelectError>> {
    let wanted = selection.environment.as_deref().or_else(|| merged["default_environment"].as_str()).map(str::to_owned);
    let Some(wanted) = wanted else { return Ok(()) };
    match merged["environments"].get(&wanted).cloned() {
        Some(overlay) => {
            merge(merged, &overlay);
            Ok(())
        }
        None => {
            let known: Vec<&String> =
                merged["environments"].as_object().into_iter().flat_map(|map| map.keys()).collect();
            let message = if known.is_empty() {
                "this provider has no environments".to_owned()
            } else {
                format!("{wanted:?} is not an environment of this provider; expected one of {known:?}")
            };
            Err(vec![SelectError::Choice { key: "environment".to_owned(), message }])
        }
    }
}

fn fill_inputs(merged: &mut Value, selection: &Selection) -> Result<(), Vec<SelectError>> {
    let declared = merged["inputs"].as_object().cloned().unwrap_or_default();
    let mut values = BTreeMap::from([("client_id".to_owned(), selection.client_id.clone())]);
    let mut errors = Vec::new();
    let mut wrong = |name: &str, message: String| {
        errors.push(SelectError::Choice { key: join("inputs", name), message });
    };
    for name in selection.inputs.keys().filter(|name| !declared.contains_key(*name)) {
        let known: Vec<&String> = declared.keys().collect();
        wrong(name, format!("is not an input of this provider; its inputs are {known:?}"));
    }
    for (name, input) in &declared {
        let value = selection.inputs.get(name).map(String::as_str).or(input["default"].as_str());
        let pattern = input["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
        match value {
            None => {
                let example = input["example"].as_str().map(|example| format!(", such as {example:?}"));
                let description = input["description"].as_str().unwrap_or_default();
                wrong(name, format!("is missing: {description}{}", example.unwrap_or_default()));
            }
            Some(value) if pattern.is_some_and(|pattern| !pattern.is_match(value)) => {
                wrong(name, format!("{value:?} does not match {}", input["pattern"]));
            }
            Some(value) => {
                values.insert(name.clone(), value.to_owned());
            }
        }
    }
    if errors.is_empty() {
        fill_everywhere(merged, &values);
        Ok(())
    } else {
        Err(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::lint::inherited_example;

    fn shown(errors: Vec<SelectError>) -> Vec<String> {
        errors
            .into_iter()
            .map(|error| match error {
                SelectError::UnknownEntry { message, hint } => format!("{message} ({})", hint.unwrap_or_default()),
                SelectError::Choice { key, message } => format!("{key}: {message}"),
                SelectError::Entry(problem) => problem.to_string(),
            })
            .collect()
    }

    fn select(catalogue: &Catalogue, name: &str) -> Result<Entry, Vec<String>> {
        catalogue.select(name, &Selection::default()).map_err(shown)
    }

    fn with_files(files: &[(&str, &str)]) -> (Catalogue, Vec<String>) {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let mut catalogue = Catalogue::bundled();
        let problems = catalogue.add_directory(directory.path(), &Sources::default());
        let prefix = format!("{}/", directory.path().display());
        (catalogue, problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
    }

    #[test]
    fn every_bundled_entry_is_sound() {
        let catalogue = Catalogue::bundled();
        for name in catalogue.names() {
            let document = &catalogue.bundled[name];
            assert_eq!(check_shape(document), [], "{name}");
            let environments: Vec<_> =
                document.value["environments"].as_object().into_iter().flat_map(|map| map.keys()).collect();
            for environment in environments.into_iter().map(|name| Some(name.clone())).chain([None]) {
                let selection = Selection { environment, ..inherited_example(&catalogue, name) };
                let entry = catalogue.select(name, &selection).map_err(shown);
                assert!(entry.is_ok(), "{name}: {:?}", entry.err());
            }
        }
    }

    #[test]
    fn names_of_providers_and_apis_are_unique() {
        let catalogue = Catalogue::bundled();
        let mut seen = BTreeMap::new();
        // A variant of a provider shares the names of its APIs with what it extends.
        for name in catalogue.names().into_iter().filter(|name| catalogue.bundled[*name].value["extends"].is_null()) {
            let entry = catalogue.select(name, &inherited_example(&catalogue, name)).expect("sound");
            let apis = entry.apis.keys().map(String::as_str).filter(|api| *api != name);
            for segment in std::iter::once(name).chain(apis) {
                assert_eq!(seen.insert(segment.to_owned(), name), None, "{segment} stands for two things");
            }
        }
    }

    #[test]
    fn environments_and_inputs_are_applied() {
        let catalogue = Catalogue::bundled();
        let sandbox = Selection { environment: Some("sandbox".to_owned()), ..Selection::default() };
        let entry = catalogue.select("quickbooks", &sandbox).expect("sound");
        assert_eq!(entry.apis["quickbooks"].origin, "https://sandbox-quickbooks.api.intuit.com");
        let own_host = BTreeMap::from([("host".to_owned(), "git.example.org".to_owned())]);
        let entry = catalogue.select("gitlab", &Selection { inputs: own_host, ..Selection::default() }).expect("sound");
        assert_eq!(entry.token.url.to_string(), "https://git.example.org/oauth/token");
        let wrong = Selection { environment: Some("test".to_owned()), ..Selection::default() };
        assert_eq!(
            catalogue.select("quickbooks", &wrong).map_err(shown).expect_err("wrong"),
            [
                "environment: \"test\" is not an environment of this provider; expected one of [\"production\", \"sandbox\"]"
            ]
        );
        let wrong = BTreeMap::from([("host".to_owned(), "a/b".to_owned()), ("hots".to_owned(), "x".to_owned())]);
        let errors = catalogue.select("gitlab", &Selection { inputs: wrong, ..Selection::default() }).map_err(shown);
        let errors = errors.expect_err("wrong");
        assert_eq!(errors[0], "inputs.hots: is not an input of this provider; its inputs are [\"host\"]");
        assert!(errors[1].starts_with("inputs.host: \"a/b\" does not match"), "{errors:?}");
    }

    #[test]
    fn an_operators_file_changes_a_bundled_entry() {
        let text = "extends = 'quickbooks'\n[environments.production.apis.quickbooks]\norigin = 'http://127.0.0.1:9'\n";
        let (catalogue, problems) = with_files(&[("quickbooks.toml", text)]);
        assert_eq!(problems, Vec::<String>::new());
        let entry = select(&catalogue, "quickbooks").expect("sound");
        assert_eq!(entry.apis["quickbooks"].origin, "http://127.0.0.1:9");
        assert_eq!(entry.display_name, "QuickBooks Online");
    }

    #[test]
    fn mistakes_in_a_file_are_named() {
        let text =
            "extends = 'quickboks'\n[token]\nurl = 'http://a.example/'\n[environments.x.rotation]\nmodl = 'static'\n";
        let (catalogue, problems) =
            with_files(&[("mine.toml", text), ("a.toml", "extends = 'b'"), ("b.toml", "extends = 'a'")]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("mine.toml:3:7: token.url: \"http://a.example/\" is not an https:// URL"));
        assert_eq!(
            problems[1],
            "mine.toml:5:8: environments.x.rotation.modl: is not a known key (did you mean `model`?)"
        );
        let unknown = select(&catalogue, "mine").expect_err("wrong");
        assert!(unknown[0].contains("there is no provider entry \"quickboks\" (did you mean `quickbooks`?)"));
        assert!(select(&catalogue, "a").expect_err("a circle")[0].contains("extends an entry that extends this one"));
        assert_eq!(
            select(&catalogue, "notoin").expect_err("unknown"),
            ["there is no provider entry \"notoin\" (did you mean `notion`?)"]
        );
    }

    #[test]
    fn a_realm_is_made_of_what_is_captured() {
        let text = "extends = 'quickbooks'\nrealm = ['company']\n";
        let (catalogue, _) = with_files(&[("quickbooks.toml", text)]);
        let problems = select(&catalogue, "quickbooks").expect_err("wrong");
        assert!(
            problems[0].contains("realm: \"company\" is not captured; captured are [\"realm_id\"]"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_rotation_model_names_its_times() {
        for (model, key) in [("leeway", "grace"), ("interval", "interval")] {
            let text = format!("extends = 'google'\n[rotation]\nmodel = '{model}'\n{key} = '0s'\n");
            let (catalogue, _) = with_files(&[("google.toml", &text)]);
            let problems = select(&catalogue, "google").expect_err("wrong");
            assert!(
                problems[0].contains(&format!("rotation.{key}: is missing: without it this model")),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn a_token_of_an_api_must_come_from_somewhere() {
        let problem_of = |more: &str| {
            let text =
                format!("extends = 'quickbooks'\n[environments.production.apis.quickbooks]\ntoken = 'user'\n{more}");
            let (catalogue, _) = with_files(&[("quickbooks.toml", &text)]);
            select(&catalogue, "quickbooks").err().map(|problems| problems.join("; ")).unwrap_or_default()
        };
        let nowhere = problem_of("");
        assert!(nowhere.contains("apis.quickbooks.token: there is no token \"user\": expected a name of"), "{nowhere}");
        let strict = problem_of("[rotation]\nmulti_resource = true\n");
        assert!(strict.contains("used side by side: static or overlap"), "{strict}");
        assert_eq!(problem_of("[rotation]\nmulti_resource = true\nmodel = 'static'\n"), "");
        let named = "[[token.response.more_tokens]]\nname = 'user'\naccess_token = '/authed_user/access_token'\n";
        assert_eq!(problem_of(named), "");
        let no_pointer = problem_of("[[token.response.more_tokens]]\nname = 'user'\naccess_token = 'authed_user'\n");
        assert!(no_pointer.contains("[0].access_token: \"authed_user\" is not a JSON pointer"), "{no_pointer}");
        let twice = problem_of(&named.repeat(2));
        assert!(twice.contains("more_tokens[1].name: \"user\" stands there twice"), "{twice}");
        let misnamed = problem_of("[[token.response.more_tokens]]\nname = 'My Token'\naccess_token = '/a'\n");
        assert!(misnamed.contains("token.response.more_tokens[0].name: \"My Token\" is not 1 to 40"), "{misnamed}");
    }

    #[test]
    fn places_and_fills_are_checked_where_they_stand() {
        let text = "extends = 'quickbooks'\n[apis.quickbooks]\nplaces = [\n  { form = 'token' },\n  { form = 'a', json = '/a' },\n  \
                    { quary = 'x' },\n]\nfill = { query = { realmid = 'realm' } }\n";
        let (_, problems) = with_files(&[("quickbooks.toml", text)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("6:5: apis.quickbooks.places[2].quary: is not a known key (did you mean `query`?)")
        );
        let (catalogue, problems) = with_files(&[("quickbooks.toml", &text.replace("{ quary = 'x' },", ""))]);
        assert_eq!(problems, Vec::<String>::new());
        let problems = select(&catalogue, "quickbooks").expect_err("wrong");
        assert!(problems[0].contains("5:3: apis.quickbooks.places[1]: is not one place"), "{problems:?}");
        assert!(problems[1].contains("apis.quickbooks.fill.query.realmid: \"realm\" is not captured"), "{problems:?}");
    }

    #[test]
    fn look_ups_point_into_replies_and_capture_what_nothing_else_does() {
        let problems_of = |look_up: &str| {
            let text =
                format!("extends = 'quickbooks'\n[[post_connect]]\nurl = 'https://api.example/sites'\n{look_up}\n");
            let (catalogue, _) = with_files(&[("quickbooks.toml", &text)]);
            select(&catalogue, "quickbooks").err().map(|problems| problems.join("; ")).unwrap_or_default()
        };
        assert_eq!(
            problems_of(
                "items = '/values'\nitem_name = '/name'\nonly = { '/kind' = ['a'] }\ncapture = { site = '/id' }"
            ),
            ""
        );
        assert_eq!(
            problems_of("capture = { site = '' }\npatterns = { site = '^[a-z]$' }\nheaders = { x-version = '1' }"),
            ""
        );
        for (look_up, expected) in [
            ("capture = {}", "post_connect[0].capture: is empty: there is nothing to look up"),
            ("capture = { site = 'id' }", "post_connect[0].capture: \"id\" is not a JSON pointer"),
            ("items = 'values'\ncapture = { site = '/id' }", "post_connect[0].items: \"values\" is not a JSON pointer"),
            ("item_name = 'name'\ncapture = { site = '/id' }", "post_connect[0].item_name: \"name\" is not a JSON"),
            (
                "only = { kind = ['a'] }\ncapture = { site = '/id' }",
                "post_connect[0].only: \"kind\" is not a JSON pointer",
            ),
            ("only = { '/kind' = [] }\ncapture = { site = '/id' }", "post_connect[0].only: \"/kind\" has no values"),
            ("capture = { Site = '/id' }", "post_connect[0].capture: \"Site\" is not a name"),
            ("capture = { realm_id = '/id' }", "post_connect[0].capture: \"realm_id\" is captured elsewhere too"),
            (
                "capture = { site = '/id' }\npatterns = { place = '^a$' }",
                "post_connect[0].patterns: \"place\" is not captured here",
            ),
            (
                "capture = { site = '/id' }\nheaders = { Authorization = 'x' }",
                "post_connect[0].headers: \"Authorization\" is not",
            ),
        ] {
            let problems = problems_of(look_up);
            assert!(problems.contains(expected), "{look_up}: {problems}");
        }
        let (_, problems) = with_files(&[(
            "quickbooks.toml",
            "extends = 'quickbooks'\n[[post_connect]]\nurl = 'https://api.example/'\ncapture = { site = '/id' }\npatterns = { site = 'a' }\n",
        )]);
        assert!(
            problems[0].contains("post_connect[0].patterns.site: \"a\" is not a regular expression"),
            "{problems:?}"
        );
    }

    #[test]
    fn handles_look_one_way() {
        let problem_of = |look: &str| {
            let (catalogue, _) = with_files(&[("google.toml", &format!("extends = 'google'\n[handle]\n{look}\n"))]);
            select(&catalogue, "google").err().map(|problems| problems.join("; ")).unwrap_or_default()
        };
        assert_eq!(problem_of("prefix = 'ya29.a0'"), "");
        assert!(problem_of("shape = 'jwt'").contains("handle: is not one look"));
        assert!(problem_of("prefix = 'a b'").contains("3:10: handle.prefix: \"a b\" cannot stand before a handle"));
        assert!(problem_of("prefix = 'sidekey_h_'").contains("by which handles are recognized"));
        let of = |name: &str| crate::catalogue::provider::tests::provider(name).handle_prefix;
        assert_eq!([of("google"), of("github"), of("gitlab")], ["ya29.", "ghu_", ""]);
        assert!(of("microsoft").starts_with("eyJ"), "{}", of("microsoft"));
    }

    #[test]
    fn what_new_keys_say_is_checked_where_it_stands() {
        let problem_of = |text: &str| {
            let (catalogue, problems) = with_files(&[("google.toml", &format!("extends = 'google'\n{text}"))]);
            assert_eq!(problems, Vec::<String>::new());
            select(&catalogue, "google").err().map(|problems| problems.join("; ")).unwrap_or_default()
        };
        let expected = problem_of("[authorize]\nexpected = { shop = '{shop}.example' }\n");
        assert!(expected.contains("authorize.expected.shop: {shop} is not an input"), "{expected}");
        let unnamed = problem_of("[authorize.callback_signature]\nparameter = ''\n");
        assert!(unnamed.contains("authorize.callback_signature.parameter: is empty"), "{unnamed}");
        let revoke = problem_of("[revoke.body]\naccount = '{account_id}'\n");
        assert!(revoke.contains("revoke.body.account: {account_id} is none of"), "{revoke}");
    }

    #[test]
    fn an_api_may_have_its_scopes_in_a_parameter_of_its_own() {
        let mut entry = crate::catalogue::provider::tests::provider("slack").entry;
        entry.authorize.other_scopes.insert("user_scope".to_owned(), vec!["identity.basic".to_owned()]);
        let choice = crate::catalogue::provider::Choice {
            apis: Some(vec!["slack".to_owned(), "slack-user".to_owned()]),
            ..Default::default()
        };
        let name: crate::model::names::ProviderName = "slack".parse().expect("a name");
        let client = crate::catalogue::Client { id: "c".to_owned(), secret: None };
        let slack = crate::catalogue::Provider::new(name, entry, client, "https://x.example/".to_owned(), &choice);
        let slack = slack.expect("sound");
        assert!(slack.scopes.contains(&"chat:write".to_owned()) && !slack.scopes.contains(&"search:read".to_owned()));
        assert_eq!(slack.other_scopes["user_scope"][..2], ["identity.basic", "search:read"]);
    }

    #[test]
    fn a_path_may_only_name_what_is_captured() {
        let text = "extends = 'quickbooks'\n[apis.quickbooks]\npaths = ['/x/{realm}/', 'y', '/a{realm_id}/']\n";
        let (catalogue, _) = with_files(&[("quickbooks.toml", text)]);
        let problems = select(&catalogue, "quickbooks").expect_err("wrong");
        assert!(problems[0].contains("{realm} is neither an input nor captured; captured are [\"realm_id\"]"));
        assert!(problems[1].contains("\"y\" is not a path prefix"), "{problems:?}");
        assert!(problems[2].contains("\"/a{realm_id}/\" is not a path prefix"), "{problems:?}");
    }
}
