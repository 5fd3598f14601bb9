//! Whether the hosts of the configured providers answer, along the way that calls to them take. Nothing secret is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::DATE;
use http::{HeaderMap, Method};

use super::{Check, clock};
use crate::base::clock::{Clock, SystemClock};
use crate::base::http::{HttpClient, HttpError, Limits, NetworkClient, Request};
use crate::base::safe_url::SafeUrl;
use crate::catalogue::Provider;
use crate::catalogue::provider::Origin;
use crate::config::Settings;
use crate::server::Environment;

/// A person waits.
const LIMITS: Limits = Limits { connect: Duration::from_secs(5), total: Duration::from_secs(10), body: 64 * 1024 };

/// Asks every host, and compares our clock with theirs.
pub async fn look(settings: &Settings) -> Vec<Check> {
    let outbound = match Environment::system(settings) {
        Ok(environment) => environment.outbound,
        Err(error) => return vec![Check::fail("reach", error.to_string(), "install the package `ca-certificates`")],
    };
    let client = NetworkClient::new(LIMITS, outbound);
    let origins = origins(settings.providers.values());
    let answers = join_all(origins.iter().map(|(origin, used_by)| ask(&client, origin, used_by))).await;
    let (mut checks, mut ahead) = (Vec::new(), Vec::new());
    for (check, skew) in answers {
        checks.push(check);
        ahead.extend(skew);
    }
    if !origins.is_empty() {
        checks.push(clock(ahead));
    }
    checks
}

/// All origins that we call, and which providers they are for. Where the browser alone goes is left out: it has a network of
/// its own.
fn origins<'a>(providers: impl Iterator<Item = &'a Arc<Provider>>) -> BTreeMap<String, Vec<String>> {
    let mut origins: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for provider in providers {
        let entry = &provider.entry;
        let calls = [&entry.revoke, &entry.introspect].into_iter().flatten().map(|call| &call.url);
        let token = [Some(&entry.token.url), entry.token.refresh_url.as_ref()].into_iter().flatten();
        let userinfo = entry.userinfo.iter().map(|userinfo| &userinfo.url);
        let look_ups = entry.post_connect.iter().map(|look_up| &look_up.url);
        let apis = provider.apis.iter().filter_map(|api| match &api.origin {
            Origin::Fixed(origin) => Some(origin),
            Origin::Captured { .. } => None,
        });
        for url in token.chain(calls).chain(userinfo).chain(look_ups).chain(apis) {
            let used_by = origins.entry(url.origin()).or_default();
            if !used_by.contains(&provider.name.to_string()) {
                used_by.push(provider.name.to_string());
            }
        }
    }
    origins
}

/// Any answer will do; the host's clock, in seconds ahead of ours, comes along.
async fn ask(client: &NetworkClient, origin: &str, used_by: &[String]) -> (Check, Option<i64>) {
    let of = used_by.join(", ");
    let Ok(url) = origin.parse::<SafeUrl>() else {
        return (Check::fail("reach", format!("{of}: {origin} is no URL"), "mend the provider file"), None);
    };
    let body = Vec::new().into();
    match client.send(Request { method: Method::HEAD, url, headers: HeaderMap::new(), body }).await {
        Ok(answer) => (Check::ok("reach", format!("{of}: {origin}")), skew(&answer.headers)),
        Err(error) => {
            let next_step = match &error {
                HttpError::NotSent(why) if why.starts_with("TLS") => {
                    "if something on the way ends TLS, name its root in egress.extra_ca; otherwise somebody answers in the host's place"
                }
                HttpError::NotSent(_) => {
                    "look at DNS and firewall; egress.resolve and egress.upstream_proxy say where calls go"
                }
                HttpError::Ambiguous(_) => "the host took the connection and did not answer; try again",
            };
            (Check::fail("reach", format!("{of}: {origin}: {error}"), next_step), None)
        }
    }
}

fn skew(headers: &HeaderMap) -> Option<i64> {
    let moment = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let theirs = i64::try_from(moment.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()?;
    Some(theirs - SystemClock.now().as_seconds())
}
