//! What is wrong with a provider file before anybody has configured the provider, and what its author should look at.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::toml_document::{Document, Problem, join};
use crate::catalogue::entry::{Cascade, ClientAuthentication, Entry, IdentitySource, RotationModel};
use crate::catalogue::load::{SelectError, check_shape};
use crate::catalogue::provider::origin;
use crate::catalogue::template::variables;
use crate::catalogue::{Catalogue, Selection};
use crate::model::names::ProviderName;

/// One thing about a provider file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What, where, and what to do.
    pub problem: Problem,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The entry cannot be used, or says something that is not so.
    Error,
    /// It can be used, but its users will be surprised.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
        }
    }
}

/// Facts about providers age fast: an entry that nobody looked at for so many days is worth a look.
const OLD_AFTER_DAYS: i64 = 365;

/// Everything about the file that stands for `name`. `today` is the number of days since 1970-01-01.
pub fn lint(catalogue: &Catalogue, name: &str, today: i64) -> Vec<Finding> {
    let Some(document) = catalogue.document(name) else { return Vec::new() };
    let shape = check_shape(document);
    let mut findings: Vec<Finding> = shape.into_iter().map(error).collect();
    // What is misspelt is missing too: one word about it is enough.
    if findings.is_empty() {
        findings.extend(inputs(document).into_iter().map(error));
        let (entry, problems) = in_every_environment(catalogue, name, document);
        findings.extend(problems.into_iter().map(error));
        if let Some(entry) = entry {
            findings.extend(taken_names(catalogue, name, document, &entry).into_iter().map(error));
            findings.extend(will_not_work(document, &entry).into_iter().map(error));
            findings.extend(advice(document, &entry, today));
        }
        findings.extend(checked_on(document).err().map(error));
        findings.extend(odd_name(name, document).map(error));
        findings.extend(unknown_recall(catalogue, name, document).into_iter().map(error));
    }
    findings.sort_by(|a, b| (a.problem.line, a.problem.column, a).cmp(&(b.problem.line, b.problem.column, b)));
    findings.dedup();
    findings
}

fn error(problem: Problem) -> Finding {
    Finding { severity: Severity::Error, problem }
}

/// The choice that an operator without wishes makes: examples where there is no default. Defaults are left to the entry, for an
/// environment may have others.
pub fn example_selection(document: &Document) -> Selection {
    let declared = document.value["inputs"].as_object().into_iter().flatten();
    let without_default = declared.filter(|(_, input)| input["default"].is_null());
    let example = |input: &Value| input["example"].as_str().map(str::to_owned);
    let inputs = without_default.filter_map(|(name, input)| Some((name.clone(), example(input)?))).collect();
    Selection { environment: None, inputs, client_id: "client-id".to_owned() }
}

/// An input has something to start from, and that is what it says it must be.
fn inputs(document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, input) in document.value["inputs"].as_object().into_iter().flatten() {
        let path = join("inputs", name);
        if input["default"].is_null() && input["example"].is_null() && !input["pattern"].is_null() {
            let problem = document.problem(&path, "has neither a default nor an example");
            problems.push(problem.with_hint("an operator must know what to write here"));
        }
        let pattern = input["pattern"].as_str().and_then(|pattern| regex_lite::Regex::new(pattern).ok());
        for key in ["default", "example"] {
            if let (Some(value), Some(pattern)) = (input[key].as_str(), &pattern)
                && !pattern.is_match(value)
            {
                let message = format!("{value:?} does not match the pattern {:?}", pattern.as_str());
                problems.push(document.problem(&join(&path, key), message));
            }
        }
    }
    problems
}

/// The entry as most will use it, if it can be used, and what is wrong with it in any of its environments.
fn in_every_environment(catalogue: &Catalogue, name: &str, document: &Document) -> (Option<Entry>, Vec<Problem>) {
    let example = inherited_example(catalogue, name);
    let environments = document.value["environments"].as_object().into_iter().flat_map(|map| map.keys().cloned());
    let selections = environments.map(|environment| Selection { environment: Some(environment), ..example.clone() });
    let (mut usual, mut problems) = (None, Vec::new());
    for selection in selections.chain([example.clone()]) {
        match catalogue.select(name, &selection) {
            Ok(entry) if selection.environment.is_none() => usual = Some(entry),
            Ok(_) => {}
            Err(errors) => problems.extend(errors.into_iter().filter_map(|error| problem(document, error))),
        }
    }
    (usual, problems)
}

/// The examples of an entry and of what it extends.
pub fn inherited_example(catalogue: &Catalogue, name: &str) -> Selection {
    let documents = catalogue.lineage(name);
    let all = documents.iter().rev().filter_map(|name| catalogue.document(name)).map(example_selection);
    all.reduce(|base, over| Selection { inputs: base.inputs.into_iter().chain(over.inputs).collect(), ..over })
        .unwrap_or_default()
}

/// What is wrong with inputs is said by [`inputs`]; no operator chose an environment here, so the default one is meant.
fn problem(document: &Document, error: SelectError) -> Option<Problem> {
    match error {
        SelectError::Entry(problem) => Some(problem),
        SelectError::Choice { key, message } if key == "environment" => {
            Some(document.problem("default_environment", message))
        }
        SelectError::Choice { .. } => None,
        SelectError::UnknownEntry { message, hint } => Some(Problem { hint, ..document.problem("", message) }),
    }
}

/// The name of the file is that of the entry.
fn odd_name(name: &str, document: &Document) -> Option<Problem> {
    name.parse::<ProviderName>().err().map(|_| {
        let message =
            format!("the name of the file, {name:?}, is not one of a provider; expected {}", ProviderName::EXPECTED);
        document.problem("", message)
    })
}

/// What only fails once somebody connects, or signs in.
fn will_not_work(document: &Document, entry: &Entry) -> Vec<Problem> {
    let mut problems = Vec::new();
    if entry.token.client_authentication.contains(&ClientAuthentication::Bearer) {
        let problem =
            document.problem("token.client_authentication", "\"bearer\" proves nothing at the token endpoint");
        problems.push(problem.with_hint("expected basic, body, basic_secret_only or none"));
    }
    for (name, api) in entry.apis.iter().filter(|(_, api)| variables(&api.origin).is_empty()) {
        if let Err(why) = origin(&api.origin) {
            let problem = document.problem(&format!("{}.origin", join("apis", name)), why);
            problems.push(problem.with_hint("a path belongs into `base_path`"));
        }
    }
    match entry.identity.as_ref().map(|identity| (identity.source, identity.jwks_url.is_some())) {
        Some((IdentitySource::Userinfo, _)) if entry.userinfo.is_none() => {
            problems.push(document.problem("identity.source", "\"userinfo\" needs a table [userinfo]"));
        }
        Some((IdentitySource::IdToken, false)) => {
            problems.push(document.problem("identity.source", "\"id_token\" needs `jwks_url` beside it"));
        }
        _ => {}
    }
    problems
}

/// Names of providers and APIs are first path segments at the egress listener.
fn taken_names(catalogue: &Catalogue, name: &str, document: &Document, entry: &Entry) -> Vec<Problem> {
    let lineage = catalogue.lineage(name);
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for other in catalogue.names() {
        // A variant of a provider shares the names of its APIs with what it extends.
        let other_lineage = catalogue.lineage(other);
        if other_lineage.iter().any(|one| lineage.contains(one)) {
            continue;
        }
        let apis = catalogue.document(other).and_then(|document| document.value["apis"].as_object());
        let names = apis.into_iter().flat_map(|apis| apis.keys().cloned()).chain([other.to_owned()]);
        taken.extend(names.map(|taken| (taken, other)));
    }
    let apis = entry.apis.keys().map(|api| (join("apis", api), api.as_str()));
    let of_others = |(path, segment): (String, &str)| {
        let other = taken.get(segment)?;
        let message = format!("{segment:?} stands for {other:?} already; expected a name of its own");
        Some(document.key_problem(&path, message))
    };
    apis.chain([(String::new(), name)]).filter_map(of_others).collect()
}

/// The day on which the sources were read, as days since 1970-01-01.
fn checked_on(document: &Document) -> Result<i64, Problem> {
    let Some(text) = document.value["checked_on"].as_str() else { return Ok(i64::MAX) };
    days(text).ok_or_else(|| {
        document.problem("checked_on", format!("{text:?} is not a date; expected one such as \"2026-11-21\""))
    })
}

/// Days since 1970-01-01 of a date written as YYYY-MM-DD.
fn days(text: &str) -> Option<i64> {
    let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let moment = plain.then(|| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok()).flatten()?;
    let since = moment.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs() / 86_400).ok()
}

/// Every key that is said to be recall must be there.
fn unknown_recall(catalogue: &Catalogue, name: &str, document: &Document) -> Vec<Problem> {
    let Ok(merged) = catalogue.merged(name, &inherited_example(catalogue, name)) else { return Vec::new() };
    let listed = document.value["trust"]["recall"].as_array().into_iter().flatten().enumerate();
    let unknown = listed.filter(|(_, key)| key.as_str().is_some_and(|key| !holds(&merged.value, key)));
    let say = |(index, key): (usize, &Value)| {
        let message = format!("{key} is not a key of this entry; expected one such as \"rotation.grace\"");
        document.problem(&format!("trust.recall[{index}]"), message)
    };
    unknown.map(say).collect()
}

/// Whether a dotted key is there; each environment may hold it too.
fn holds(value: &Value, key: &str) -> bool {
    let found = key.split('.').try_fold(value, |value, part| value.get(part));
    let overlays = || value["environments"].as_object().into_iter().flat_map(|map| map.values());
    found.is_some() || overlays().any(|overlay| holds(overlay, key))
}

/// What its author should look at.
fn advice(document: &Document, entry: &Entry, today: i64) -> Vec<Finding> {
    let mut notes = Vec::new();
    let mut note = |key: &str, message: &str, hint: &str| {
        notes.push(Finding { severity: Severity::Note, problem: document.problem(key, message).with_hint(hint) });
    };
    if entry.documentation.is_none() {
        note("documentation", "is missing", "the page that the facts come from lets others check them");
    }
    if checked_on(document).is_ok_and(|day| day.saturating_add(OLD_AFTER_DAYS) < today) {
        note("checked_on", "is more than a year ago", "read the sources again; providers change their rules");
    }
    // Who says so in the notes need not be told.
    let is_said = entry.notes.iter().any(|note| note.contains("remove") || note.contains("revo"));
    match &entry.revoke {
        _ if is_said => {}
        None => note(
            "revoke",
            "is missing: a disconnect is not told to the provider",
            "users must remove the app there themselves; say so in `notes`",
        ),
        Some(revoke) if revoke.cascades == Some(Cascade::AllAppsOfUser) => note(
            "revoke.cascades",
            "would sign the user out of everything, so a disconnect does not call it",
            "users must remove the app there themselves; say so in `notes`",
        ),
        Some(_) => {}
    }
    if entry.api.expired.is_empty() && entry.rotation.model != RotationModel::None {
        note(
            "api.expired",
            "is missing: no answer of the API is taken for an expired token",
            "say what one looks like, for example [{ status = 401 }]; then the token is refreshed and the request replayed",
        );
    }
    notes
}
