//! Which scopes a provider is asked for, and what became of them: over what entries declare and connections hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::Provider;
use crate::catalogue::provider::TokenSource;
use crate::model::connection::HeldScopes;

/// How one of a provider's APIs stands at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiStanding {
    /// All its scopes are granted.
    Granted,
    /// It was asked for, and the user left it out.
    Unticked,
    /// It was never asked for.
    Missing,
    /// Nobody can tell: the provider decides by the app, or nothing was noted.
    Unknown,
}

/// The scopes to ask for: the entry's own, those of these APIs (`None`: all that are enabled), and those that are granted
/// already. Never those of the others. Where the operator has chosen the scopes, exactly these.
pub fn to_ask(provider: &Provider, apis: Option<&BTreeSet<String>>, held: HeldScopes<'_>) -> Vec<String> {
    // Tokens of one grant that are got by their scopes are all wanted, or a refresh would ask for what was never granted.
    let by_scopes = |source: &TokenSource| matches!(source, TokenSource::Scopes(_));
    if provider.are_scopes_chosen || provider.further_tokens.iter().any(|token| by_scopes(&token.source)) {
        return provider.scopes.clone();
    }
    let mut wanted = provider.entry.authorize.scopes.clone();
    let is_wanted = |name: &str| apis.is_none_or(|apis| apis.contains(name));
    let enabled = provider.apis.iter().filter(|api| is_wanted(&api.name));
    let of_apis = enabled.filter_map(|api| provider.entry.apis.get(&api.name)).flat_map(|api| api.usual_scopes());
    let known = known(provider);
    // As we write them: what providers answer is not always what they take.
    let before = known.iter().copied().chain(held.requested.unwrap_or_default()).filter(|scope| holds(held, scope));
    for scope in of_apis.chain(before) {
        if !wanted.contains(scope) {
            wanted.push(scope.clone());
        }
    }
    wanted
}

/// The scopes that go into parameters of their own: the entry's, and those of these APIs (`None`: all that are enabled).
pub fn others_to_ask(provider: &Provider, apis: Option<&BTreeSet<String>>) -> BTreeMap<String, Vec<String>> {
    if provider.are_scopes_chosen {
        return provider.other_scopes.clone();
    }
    let mut wanted = provider.entry.authorize.other_scopes.clone();
    for api in provider.apis.iter().filter(|api| apis.is_none_or(|apis| apis.contains(&api.name))) {
        let Some(declared) = provider.entry.apis.get(&api.name) else { continue };
        let Some(parameter) = &declared.scope_parameter else { continue };
        let scopes: &mut Vec<String> = wanted.entry(parameter.clone()).or_default();
        scopes.extend(declared.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect::<Vec<_>>());
    }
    wanted
}

/// How an API stands at a connection.
pub fn standing(provider: &Provider, api: &str, held: HeldScopes<'_>) -> ApiStanding {
    let scopes = provider.entry.apis.get(api).map(|api| api.usual_scopes()).unwrap_or_default();
    if scopes.is_empty() || held.effective().is_none() {
        return ApiStanding::Unknown;
    }
    if scopes.iter().all(|scope| holds(held, scope)) {
        return ApiStanding::Granted;
    }
    match held.requested {
        Some(requested) if scopes.iter().all(|scope| covers(requested, scope)) => ApiStanding::Unticked,
        // The operator has left it out: asking again would change nothing.
        _ if provider.are_scopes_chosen => ApiStanding::Unknown,
        Some(_) => ApiStanding::Missing,
        None => ApiStanding::Unknown,
    }
}

/// Whether something is granted there that is not granted here, of what the entry knows.
pub fn holds_more(provider: &Provider, there: HeldScopes<'_>, here: HeldScopes<'_>) -> bool {
    let known = known(provider);
    let (there, here) = (there.effective(), here.effective().unwrap_or_default());
    let Some(there) = there else { return false };
    known.iter().all(|scope| covers(there, scope) || !covers(here, scope))
        && known.iter().any(|scope| covers(there, scope) && !covers(here, scope))
}

/// All scopes of the entry.
fn known(provider: &Provider) -> Vec<&String> {
    let entry = &provider.entry;
    let identity = entry.identity.iter().flat_map(|identity| &identity.scopes);
    entry
        .authorize
        .scopes
        .iter()
        .chain(identity)
        .chain(entry.apis.values().flat_map(|api| api.usual_scopes()))
        .collect()
}

fn holds(held: HeldScopes<'_>, scope: &str) -> bool {
    held.effective().is_some_and(|granted| covers(granted, scope))
}

/// Some providers answer with the resource in front, or in small letters.
fn covers(granted: &[String], scope: &str) -> bool {
    granted.iter().any(|granted| {
        let short = granted.rsplit('/').next().unwrap_or(granted);
        granted.eq_ignore_ascii_case(scope) || short.eq_ignore_ascii_case(scope)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::provider::tests::{provider, provider_with_apis};

    const CALENDAR: &str = "https://www.googleapis.com/auth/calendar";
    const DRIVE: &str = "https://www.googleapis.com/auth/drive";
    const GMAIL: &str = "https://www.googleapis.com/auth/gmail.modify";

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn google() -> Provider {
        provider_with_apis("google", &["calendar", "drive", "gmail"])
    }

    #[test]
    fn what_the_server_names_is_asked_for_and_nothing_else() {
        let ask = |apis: &[&str]| to_ask(&google(), Some(&named(apis)), HeldScopes::default());
        assert_eq!(ask(&["calendar"]), ["openid", "email", CALENDAR]);
        assert_eq!(ask(&["calendar", "drive"]), ["openid", "email", CALENDAR, DRIVE]);
        assert_eq!(ask(&["sheets"]), ["openid", "email"], "an API that is not enabled is never asked for");
        assert_eq!(to_ask(&google(), None, HeldScopes::default()), ["openid", "email", CALENDAR, DRIVE, GMAIL]);
    }

    #[test]
    fn scopes_with_a_parameter_of_their_own_are_asked_for_where_the_api_is_named() {
        let slack = provider_with_apis("slack", &["slack", "slack-user"]);
        assert_eq!(others_to_ask(&slack, Some(&named(&["slack"]))), BTreeMap::new());
        assert_eq!(others_to_ask(&slack, Some(&named(&["slack-user"]))), slack.other_scopes);
        assert_eq!(others_to_ask(&slack, None), slack.other_scopes);
        assert!(!slack.other_scopes["user_scope"].is_empty());
    }

    #[test]
    fn what_is_granted_already_is_asked_for_again() {
        let (granted, requested) = (texts(&["openid", DRIVE, "junk"]), texts(&["openid", "email", DRIVE, GMAIL]));
        let held = HeldScopes { granted: Some(&granted), requested: Some(&requested) };
        let asked = to_ask(&google(), Some(&named(&["calendar"])), held);
        assert_eq!(asked, ["openid", "email", CALENDAR, DRIVE], "neither what was unticked nor what nobody knows");
        let silent = HeldScopes { granted: None, requested: Some(&requested) };
        let asked = to_ask(&google(), Some(&named(&["calendar"])), silent);
        assert_eq!(asked, ["openid", "email", CALENDAR, DRIVE, GMAIL], "no scopes in the reply: all were granted");
    }

    #[test]
    fn what_the_operator_chose_is_asked_for_as_it_is() {
        let chosen = Provider { are_scopes_chosen: true, scopes: texts(&["a"]), ..google() };
        let granted = texts(&[DRIVE]);
        let held = HeldScopes { granted: Some(&granted), requested: None };
        assert_eq!(to_ask(&chosen, Some(&named(&["calendar"])), held), ["a"]);
        assert_eq!(standing(&chosen, "calendar", held), ApiStanding::Unknown, "asking again would not help");
    }

    #[test]
    fn an_api_is_granted_missing_or_left_out_by_the_user() {
        let google = google();
        let (granted, requested) = (texts(&["openid", CALENDAR]), texts(&["openid", "email", CALENDAR, DRIVE]));
        let held = HeldScopes { granted: Some(&granted), requested: Some(&requested) };
        assert_eq!(standing(&google, "calendar", held), ApiStanding::Granted);
        assert_eq!(standing(&google, "drive", held), ApiStanding::Unticked);
        assert_eq!(standing(&google, "gmail", held), ApiStanding::Missing);
        let old = HeldScopes { granted: Some(&granted), requested: None };
        assert_eq!(standing(&google, "calendar", old), ApiStanding::Granted);
        assert_eq!(standing(&google, "drive", old), ApiStanding::Unknown, "nobody noted whether it was asked for");
        assert_eq!(standing(&google, "drive", HeldScopes::default()), ApiStanding::Unknown);
    }

    #[test]
    fn an_app_that_fixes_what_it_may_do_has_no_such_state() {
        let granted = texts(&[]);
        let held = HeldScopes { granted: Some(&granted), requested: Some(&granted) };
        assert_eq!(standing(&provider("notion"), "notion", held), ApiStanding::Unknown);
        assert_eq!(to_ask(&provider("notion"), None, held), texts(&[]));
    }

    #[test]
    fn scopes_are_known_again_in_the_provider_s_own_writing() {
        let microsoft = provider_with_apis("microsoft", &["graph", "onenote"]);
        let granted = texts(&["https://graph.microsoft.com/notes.readwrite"]);
        let held = HeldScopes { granted: Some(&granted), requested: None };
        assert_eq!(standing(&microsoft, "onenote", held), ApiStanding::Granted);
        let asked = to_ask(&microsoft, Some(&named(&["graph"])), held);
        assert_eq!(asked, ["offline_access", "openid", "User.Read", "Notes.ReadWrite"], "as the entry writes it");
    }

    #[test]
    fn of_two_grants_one_may_hold_all_that_the_other_holds_and_more() {
        let (more, less, other) = (texts(&[CALENDAR, DRIVE]), texts(&[CALENDAR]), texts(&[GMAIL]));
        let held = |granted| HeldScopes { granted: Some(granted), requested: None };
        assert!(holds_more(&google(), held(&more), held(&less)));
        assert!(!holds_more(&google(), held(&less), held(&more)) && !holds_more(&google(), held(&more), held(&more)));
        assert!(!holds_more(&google(), held(&more), held(&other)), "neither holds all of the other's");
        assert!(!holds_more(&google(), HeldScopes::default(), held(&less)));
    }
}
