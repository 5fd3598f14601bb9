//! What operators allow callers to do at a provider: `policy` of a provider, and of a server at a provider.

use std::str::FromStr;

use super::Loader;
use crate::base::safe_url::SafeUrl;
use crate::base::toml_document::join;
use crate::catalogue::Provider;
use crate::config::file::{PolicyTable, RuleTable};
use crate::model::access_policy::{AccessPolicy, HostPattern, Rule};

/// The methods that APIs are called with.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl Loader<'_> {
    /// Reads the rules at `key` for one provider.
    pub(super) fn policy(&mut self, key: &str, table: &PolicyTable, provider: &Provider) -> AccessPolicy {
        let allow = table.allow.as_ref().map(|rules| self.rules(&join(key, "allow"), rules, provider));
        let deny = self.rules(&join(key, "deny"), &table.deny, provider);
        if table.allow.is_none() && deny.is_empty() {
            self.problem_with_hint(
                key,
                "holds no rule",
                "write allow or deny; allow = [] means that nothing may be called",
            );
        }
        AccessPolicy { key: key.to_owned(), allow, deny }
    }

    fn rules(&mut self, key: &str, rules: &[RuleTable], provider: &Provider) -> Vec<Rule> {
        let rule = |(index, rule)| self.rule(&format!("{key}[{index}]"), rule, provider);
        rules.iter().enumerate().map(rule).collect()
    }

    fn rule(&mut self, key: &str, table: &RuleTable, provider: &Provider) -> Rule {
        let RuleTable { hosts, methods, paths } = table;
        if hosts.is_none() && methods.is_none() && paths.is_none() {
            self.problem(key, "has no condition; expected at least one of hosts, methods and paths");
        }
        let hosts: Option<Vec<HostPattern>> = self.conditions(&join(key, "hosts"), hosts.as_deref());
        let known = hosts_of(provider);
        for (index, host) in hosts.iter().flatten().enumerate().filter(|(_, host)| !is_of(host, &known)) {
            let message =
                format!("{} is no host of {}; its hosts are {}", shown(host), provider.name, known.join(", "));
            self.problem(&format!("{key}.hosts[{index}]"), message);
        }
        for (index, method) in methods.iter().flatten().enumerate() {
            if !METHODS.contains(&method.as_str()) {
                let message = format!("{method:?} is not a method; expected {}", METHODS.join(", "));
                self.problem(&format!("{key}.methods[{index}]"), message);
            }
        }
        let methods = self.conditions(&join(key, "methods"), methods.as_deref());
        Rule { hosts, methods, paths: self.conditions(&join(key, "paths"), paths.as_deref()) }
    }

    /// What cannot be read is named, and so is a list that nothing is in: it would not say what its author meant.
    fn conditions<T: FromStr>(&mut self, key: &str, texts: Option<&[String]>) -> Option<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        let texts = texts?;
        if texts.is_empty() {
            self.problem(key, "is empty; leave it out, or write at least one");
        }
        let mut conditions = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<T>() {
                Ok(condition) => conditions.push(condition),
                Err(why) => self.problem(&format!("{key}[{index}]"), why.to_string()),
            }
        }
        Some(conditions)
    }
}

/// The hosts at which the provider's APIs are; `*.` stands before those that a connection chooses from.
fn hosts_of(provider: &Provider) -> Vec<String> {
    let entry = &provider.entry;
    let fixed = |origin: &str| origin.parse::<SafeUrl>().map(|url| url.host().to_owned()).ok();
    let apis = entry.apis.values();
    let mut hosts: Vec<String> = apis.clone().filter_map(|api| fixed(&api.origin)).collect();
    hosts.extend(apis.flat_map(|api| &api.origin_suffixes).map(|suffix| format!("*{suffix}")));
    hosts.extend(entry.userinfo.as_ref().map(|userinfo| userinfo.url.host().to_owned()));
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Whether a rule's host means any of the provider's.
fn is_of(host: &HostPattern, known: &[String]) -> bool {
    known.iter().any(|known| match (known.strip_prefix('*'), host) {
        (Some(suffix), HostPattern::Exactly(host) | HostPattern::Below(host)) => host.ends_with(suffix),
        (None, host) => host.fits(known),
    })
}

fn shown(host: &HostPattern) -> String {
    match host {
        HostPattern::Exactly(host) => host.clone(),
        HostPattern::Below(suffix) => format!("*{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load_text;
    use crate::base::random::SystemRandom;
    use crate::base::toml_document::Problem;
    use crate::config::settings::Settings;
    use crate::store::keyring::generate_key;

    const GOOD: &str = "\
[store]
keys = ['env:KEY']
[issuer]
identity = 'github'
[providers.github]
client_id = 'x'
[providers.google]
client_id = 'x'
[servers.notes]
upstream = 'http://127.0.0.1:1/mcp'
providers = ['github']
";

    fn settings(more: &str) -> Result<Settings, Vec<String>> {
        let environment = |_: &str| Some(generate_key(&SystemRandom).expose().to_owned());
        load_text(Path::new("sidekey.toml"), &format!("{GOOD}{more}"), &environment)
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn rules_of_providers_and_servers_are_read() {
        let settings = settings(
            "[providers.github.policy]\nallow = [{ hosts = ['api.github.com'], methods = ['GET'], paths = ['/repos/'] }]\n\
             deny = [{ paths = ['/repos/*/secret'] }]\n[servers.notes.policy.github]\nallow = []\n",
        )
        .expect("good");
        let policy = |name: &str| {
            let provider = settings.providers.iter().find(|(known, _)| known.as_str() == name);
            provider.expect("configured").1.policy.clone()
        };
        let github = policy("github").expect("rules");
        assert_eq!(github.key, "providers.github.policy");
        assert_eq!((github.allow.map(|rules| rules.len()), github.deny.len()), (Some(1), 1));
        assert_eq!(policy("google"), None);
        let server = settings.issuer.servers.values().next().expect("a server");
        let rules = server.policies.values().next().expect("rules");
        assert_eq!((rules.key.as_str(), &rules.allow), ("servers.notes.policy.github", &Some(Vec::new())));
    }

    #[test]
    fn a_rule_that_does_not_say_what_it_means_is_a_mistake() {
        for (rules, expected) in [
            ("deny = [{}]", "13:9: providers.github.policy.deny[0]: has no condition"),
            (
                "allow = [{ methods = ['GET'] }, { paths = [] }]",
                "13:43: providers.github.policy.allow[1].paths: is empty",
            ),
            (
                "allow = [{ methods = ['get'] }]",
                "13:23: providers.github.policy.allow[0].methods[0]: \"get\" is not a method",
            ),
            (
                "deny = [{ paths = ['repos'] }]",
                "13:20: providers.github.policy.deny[0].paths[0]: \"repos\" is not a path prefix",
            ),
            (
                "deny = [{ hosts = ['api.gihub.com'] }]",
                "13:20: providers.github.policy.deny[0].hosts[0]: api.gihub.com is no host of github; its hosts are api.github.com, github.com",
            ),
            (
                "deny = [{ hosts = ['API.github.com'] }]",
                "13:20: providers.github.policy.deny[0].hosts[0]: \"API.github.com\" is not a host",
            ),
            (
                "deny = [{ path = ['/a'] }]",
                "13:11: providers.github.policy.deny[0].path: is not a known key (did you mean `paths`?)",
            ),
            ("alow = []", "13:1: providers.github.policy.alow: is not a known key (did you mean `allow`?)"),
            ("", "providers.github.policy: holds no rule"),
        ] {
            let problems = settings(&format!("[providers.github.policy]\n{rules}\n")).err().expect(rules);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{rules}: {problems:#?}");
        }
        let problems = settings("[servers.notes.policy.google]\nallow = []\n").err().expect("refused");
        assert!(problems[0].contains("servers.notes.policy.google: \"google\" is not in `providers` of this server"));
    }
}
