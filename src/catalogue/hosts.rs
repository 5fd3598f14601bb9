//! The hosts that a provider's APIs and token endpoints are at: what is intercepted.

use std::collections::BTreeSet;

use super::provider::{Origin, Provider};
use crate::base::safe_url::SafeUrl;

impl Provider {
    /// Host names in lower case, and `*.suffix` for the hosts below a suffix that a connection's host must have. Where users
    /// are sent with their browsers is not among them, nor is this machine.
    pub fn hosts(&self) -> BTreeSet<String> {
        let entry = &self.entry;
        let mut urls = vec![&entry.token.url];
        urls.extend(&entry.token.refresh_url);
        urls.extend(entry.revoke.as_ref().map(|call| &call.url));
        urls.extend(entry.introspect.as_ref().map(|call| &call.url));
        urls.extend(entry.userinfo.as_ref().map(|userinfo| &userinfo.url));
        let mut hosts = BTreeSet::new();
        for api in &self.apis {
            match &api.origin {
                Origin::Fixed(url) => urls.push(url),
                Origin::Captured { suffixes, .. } => {
                    let suffixes = suffixes.iter().filter(|suffix| suffix.starts_with('.'));
                    hosts.extend(suffixes.map(|suffix| format!("*{}", suffix.to_lowercase())));
                }
            }
        }
        hosts.extend(urls.into_iter().filter_map(host));
        hosts
    }
}

/// The name of a host elsewhere that is asked over TLS.
fn host(url: &SafeUrl) -> Option<String> {
    let name = url.url().domain().filter(|_| url.is_https() && !url.is_loopback())?;
    Some(name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::provider::tests::provider;
    use super::*;

    fn names(hosts: &BTreeSet<String>) -> Vec<&str> {
        hosts.iter().map(String::as_str).collect()
    }

    #[test]
    fn all_that_is_called_with_tokens_or_for_them() {
        assert_eq!(names(&provider("github").hosts()), ["api.github.com", "github.com"]);
        let google = provider("google").hosts();
        assert_eq!(names(&google), ["oauth2.googleapis.com", "openidconnect.googleapis.com", "www.googleapis.com"]);
    }

    #[test]
    fn a_suffix_stands_for_the_hosts_below_it() {
        let mut provider = provider("github");
        let mut api = crate::catalogue::Api::prepare(
            &provider.name,
            "rest",
            &provider.entry.apis[&provider.entry.default_api],
            &provider.entry,
        )
        .expect("sound");
        api.origin = Origin::Captured {
            template: "{instance_url}".to_owned(),
            suffixes: vec![".Salesforce.example".to_owned(), "unbounded.example".to_owned()],
        };
        provider.apis = vec![std::sync::Arc::new(api)];
        assert_eq!(names(&provider.hosts()), ["*.salesforce.example", "api.github.com", "github.com"]);
    }

    #[test]
    fn this_machine_and_addresses_are_left_out() {
        for url in
            ["http://127.0.0.1:8080/token", "https://localhost/token", "https://192.0.2.1/token", "https://[::1]/"]
        {
            assert_eq!(host(&url.parse().expect("safe")), None, "{url}");
        }
        assert_eq!(host(&"https://API.example:8443/x".parse().expect("safe")).as_deref(), Some("api.example"));
    }
}
