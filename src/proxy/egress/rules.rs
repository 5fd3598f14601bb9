//! The operator's rules: what a call must get past besides the provider's entry.

use super::policy::PolicyError;
use crate::model::access_policy::{AccessPolicy, Rule};

/// A call as it will go out.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// The provider's host, in lower case.
    pub host: &'c str,
    /// The method.
    pub method: &'c str,
    /// The path that goes out, with or without its query.
    pub target: &'c str,
}

/// Whether all of these rules let a call pass: those for the provider, and those for the MCP server at that provider. A denial
/// goes before any permission; the error names the rule.
pub fn check<'p>(policies: impl IntoIterator<Item = &'p AccessPolicy>, call: &Call<'_>) -> Result<(), PolicyError> {
    let mut policies = policies.into_iter().peekable();
    if policies.peek().is_none() {
        return Ok(());
    }
    let path = call.target.split('?').next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments: Vec<&str> = path.split('/').collect();
    // What ends with a slash is below the same prefixes as what does not.
    segments.pop_if(|last| last.is_empty());
    for policy in policies {
        let denied = |key: String| Err(PolicyError::Denied { key });
        if let Some(index) = policy.deny.iter().position(|rule| fits(rule, call, &segments, true)) {
            return denied(format!("{}.deny[{index}]", policy.key));
        }
        let allow = policy.allow.as_deref();
        if allow.is_some_and(|allow| !allow.iter().any(|rule| fits(rule, call, &segments, false))) {
            return denied(format!("{}.allow", policy.key));
        }
    }
    Ok(())
}

fn fits(rule: &Rule, call: &Call<'_>, segments: &[&str], is_to_deny: bool) -> bool {
    let host = rule.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|host| host.fits(call.host)));
    let method = rule.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| method == call.method));
    let path = rule.paths.as_ref().is_none_or(|paths| {
        paths.iter().any(|path| if is_to_deny { path.could_fit(segments) } else { path.fits(segments) })
    });
    host && method && path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(hosts: &[&str], methods: &[&str], paths: &[&str]) -> Rule {
        let some = |list: &[&str]| (!list.is_empty()).then(|| list.iter().map(|item| (*item).to_owned()).collect());
        Rule {
            hosts: (!hosts.is_empty()).then(|| hosts.iter().map(|host| host.parse().expect("a host")).collect()),
            methods: some(methods),
            paths: (!paths.is_empty()).then(|| paths.iter().map(|path| path.parse().expect("a path")).collect()),
        }
    }

    fn policy(allow: Option<Vec<Rule>>, deny: Vec<Rule>) -> AccessPolicy {
        AccessPolicy { key: "providers.x.policy".to_owned(), allow, deny }
    }

    fn checked(policies: &[&AccessPolicy], method: &str, target: &str) -> Result<(), String> {
        check(policies.iter().copied(), &Call { host: "api.x.example", method, target }).map_err(|error| match error {
            PolicyError::Denied { key } => key,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_is_absent_allows_and_what_is_empty_does_not() {
        assert_eq!(checked(&[], "GET", "/a"), Ok(()));
        assert_eq!(checked(&[&policy(None, vec![])], "GET", "/a"), Ok(()));
        assert_eq!(checked(&[&policy(Some(vec![]), vec![])], "GET", "/a"), Err("providers.x.policy.allow".to_owned()));
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let policy = policy(Some(vec![rule(&["api.x.example"], &["GET", "HEAD"], &["/repos/", "/user"])]), vec![]);
        for good in ["/repos", "/repos/", "/repos/a?b=/admin", "/user"] {
            assert_eq!(checked(&[&policy], "GET", good), Ok(()), "{good}");
        }
        for bad in ["/", "/repositories", "/users", "/admin?x=/repos/"] {
            assert!(checked(&[&policy], "GET", bad).is_err(), "{bad}");
        }
        assert!(checked(&[&policy], "POST", "/repos/a").is_err());
        let elsewhere = Call { host: "uploads.x.example", method: "GET", target: "/repos/a" };
        assert!(check([&policy], &elsewhere).is_err());
    }

    #[test]
    fn a_denial_goes_before_any_permission_and_is_named() {
        let denying = policy(
            Some(vec![rule(&[], &[], &["/"])]),
            vec![rule(&[], &["DELETE"], &[]), rule(&[], &[], &["/repos/acme/secret"])],
        );
        assert_eq!(checked(&[&denying], "GET", "/repos/acme"), Ok(()));
        assert_eq!(checked(&[&denying], "DELETE", "/repos/acme"), Err("providers.x.policy.deny[0]".to_owned()));
        for target in ["/repos/acme/secret", "/repos/ACME/secret/", "/repos/acme%2Fsecret", "/repos/acme/secret?x"] {
            assert_eq!(checked(&[&denying], "GET", target), Err("providers.x.policy.deny[1]".to_owned()), "{target}");
        }
    }

    #[test]
    fn every_policy_must_let_it_pass() {
        let provider = policy(Some(vec![rule(&[], &["GET"], &[])]), vec![]);
        let server = AccessPolicy {
            key: "servers.notes.policy.x".to_owned(),
            ..policy(Some(vec![rule(&[], &[], &["/user"])]), vec![])
        };
        assert_eq!(checked(&[&provider, &server], "GET", "/user"), Ok(()));
        assert_eq!(checked(&[&provider, &server], "GET", "/a"), Err("servers.notes.policy.x.allow".to_owned()));
        assert_eq!(checked(&[&provider, &server], "PUT", "/user"), Err("providers.x.policy.allow".to_owned()));
    }
}
