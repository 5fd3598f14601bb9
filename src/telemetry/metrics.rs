//! All metrics, each named once. Labels are bounded: provider names come from the configuration, everything else from
//! fixed lists; no subject, host or path is ever a label.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::model::names::{ProviderName, ServerName};
use crate::telemetry::health::{Health, Part};

/// How an API call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiOutcome {
    /// The provider answered with 2xx or 3xx.
    Ok,
    /// The provider answered with 4xx.
    ClientError,
    /// The provider answered with 5xx.
    ServerError,
    /// Sidekey refused the request.
    Refused,
    /// The provider could not be reached, or did not answer in full.
    Failed,
    /// The caller hung up before it had all of the answer: nobody else's failure.
    CallerGone,
}

const OUTCOMES: [(ApiOutcome, &str); 6] = [
    (ApiOutcome::Ok, "ok"),
    (ApiOutcome::ClientError, "client_error"),
    (ApiOutcome::ServerError, "server_error"),
    (ApiOutcome::Refused, "refused"),
    (ApiOutcome::Failed, "failed"),
    (ApiOutcome::CallerGone, "caller_gone"),
];

/// Counters of one provider's API calls, looked up once so that a call costs no look-up.
#[derive(Clone)]
pub struct ApiMetrics {
    requests: [IntCounter; OUTCOMES.len()],
    duration: Histogram,
}

impl ApiMetrics {
    /// Counts one call.
    pub fn observe(&self, outcome: ApiOutcome, seconds: f64) {
        self.requests[outcome as usize].inc();
        self.duration.observe(seconds);
    }
}

/// Where [`ApiMetrics`] come from.
struct ApiVectors {
    requests: IntCounterVec,
    duration: HistogramVec,
}

/// Counters whose first step must be seen: one that is not there before it rises has not risen in the eyes of Prometheus.
/// What alerts watch begins with 0.
const WATCHED_REFRESHES: [&str; 8] =
    ["ok", "transient", "in_doubt", "dead", "operator", "store", "sealed", "held_back"];
const WATCHED_CONNECTS: [&str; 5] = ["ok", "registration", "wrong_issuer", "provider_down", "store"];
const WATCHED_RELOADS: [&str; 3] = ["applied", "unchanged", "refused"];
const WATCHED_REFUSALS: [&str; 4] = ["handle-would-leave", "other-tenant", "foreign-host", "token-unavailable"];

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    api: ApiVectors,
    refused: IntCounterVec,
    refreshes: IntCounterVec,
    refresh_duration: HistogramVec,
    refresh_attempts: IntCounterVec,
    mcp_calls: IntCounterVec,
    connects: IntCounterVec,
    grant_ends: IntCounterVec,
    reloads: IntCounterVec,
    config_current: IntGauge,
    connections: IntGaugeVec,
    children: ChildMetrics,
    well: IntGaugeVec,
}

/// What is counted of the child processes of MCP servers.
struct ChildMetrics {
    running: IntGaugeVec,
    oldest: IntGaugeVec,
    starts: IntCounterVec,
    start_duration: HistogramVec,
    ends: IntCounterVec,
}

impl ChildMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["server"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let start_duration = HistogramVec::new(
            HistogramOpts::new(
                "sidekey_child_start_duration_seconds",
                "From the first request for a child to its first answer, of those that started.",
            )
            .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            &["server"],
        )?;
        registry.register(Box::new(start_duration.clone()))?;
        Ok(Self {
            running: gauge("sidekey_children", "Child processes by server.")?,
            oldest: gauge("sidekey_child_oldest_seconds", "The age of the child process that has run for longest.")?,
            starts: counter(
                registry,
                "sidekey_child_starts_total",
                "Starts of child processes by server and outcome.",
                &["server", "outcome"],
            )?,
            start_duration,
            ends: counter(
                registry,
                "sidekey_child_ends_total",
                "Ends of child processes by server and reason.",
                &["server", "reason"],
            )?,
        })
    }
}

impl Metrics {
    /// The metrics for these providers.
    pub fn new<'p>(providers: impl Iterator<Item = &'p ProviderName>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let api_requests = counter(
            &registry,
            "sidekey_api_requests_total",
            "API calls by provider and outcome.",
            &["provider", "outcome"],
        )?;
        let api_duration = HistogramVec::new(
            HistogramOpts::new("sidekey_api_request_duration_seconds", "From the request's head to the answer's end.")
                .buckets(vec![0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0]),
            &["provider"],
        )?;
        registry.register(Box::new(api_duration.clone()))?;
        let refresh_duration = HistogramVec::new(
            HistogramOpts::new(
                "sidekey_refresh_duration_seconds",
                "From the decision to refresh to the durable result.",
            )
            .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            &["provider"],
        )?;
        registry.register(Box::new(refresh_duration.clone()))?;
        let gauge = Opts::new("sidekey_connections", "Connections by provider and state.");
        let connections = IntGaugeVec::new(gauge, &["provider", "state"])?;
        registry.register(Box::new(connections.clone()))?;
        let config_current = IntGauge::new(
            "sidekey_config_current",
            "1 where the configuration on the disk is in force; 0 while it is refused and the former one is.",
        )?;
        registry.register(Box::new(config_current.clone()))?;
        config_current.set(1);
        let gauge = Opts::new("sidekey_part_well", "1 where the part is well, else 0; ready means that all are.");
        let well = IntGaugeVec::new(gauge, &["part"])?;
        registry.register(Box::new(well.clone()))?;
        let gauge = Opts::new("sidekey_build_info", "Always 1; the label is the version that runs.");
        let build = IntGaugeVec::new(gauge, &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            api: ApiVectors { requests: api_requests, duration: api_duration },
            refused: counter(
                &registry,
                "sidekey_refusals_total",
                "Requests refused by Sidekey, by error type.",
                &["error"],
            )?,
            refreshes: counter(
                &registry,
                "sidekey_refreshes_total",
                "Refreshes by provider and outcome.",
                &["provider", "outcome"],
            )?,
            refresh_attempts: counter(
                &registry,
                "sidekey_refresh_attempts_total",
                "Requests to token endpoints for a refresh.",
                &["provider"],
            )?,
            mcp_calls: counter(
                &registry,
                "sidekey_mcp_requests_total",
                "Requests at the endpoints of MCP servers by server and outcome.",
                &["server", "outcome"],
            )?,
            connects: counter(
                &registry,
                "sidekey_connects_total",
                "Dances by provider and outcome.",
                &["provider", "outcome"],
            )?,
            grant_ends: counter(
                &registry,
                "sidekey_grant_ends_announced_total",
                "Grants that were announced to reach their absolute end, by provider.",
                &["provider"],
            )?,
            reloads: counter(
                &registry,
                "sidekey_config_reloads_total",
                "Attempts to take over a changed configuration, by outcome.",
                &["outcome"],
            )?,
            config_current,
            refresh_duration,
            connections,
            children: ChildMetrics::new(&registry)?,
            well,
            registry,
        };
        WATCHED_REFUSALS.iter().for_each(|slug| drop(metrics.refused.with_label_values(&[slug])));
        WATCHED_RELOADS.iter().for_each(|outcome| drop(metrics.reloads.with_label_values(&[outcome])));
        metrics.admit(providers);
        Ok(metrics)
    }

    /// Counts for these providers too, beginning with zero.
    pub fn admit<'p>(&self, providers: impl Iterator<Item = &'p ProviderName>) {
        for provider in providers {
            drop(self.api(provider));
            let provider = provider.as_str();
            WATCHED_REFRESHES.iter().for_each(|outcome| drop(self.refreshes.with_label_values(&[provider, outcome])));
            WATCHED_CONNECTS.iter().for_each(|outcome| drop(self.connects.with_label_values(&[provider, outcome])));
            drop(self.grant_ends.with_label_values(&[provider]));
        }
    }

    /// Counters of a configured provider's API calls.
    pub fn api(&self, provider: &ProviderName) -> ApiMetrics {
        let provider = provider.as_str();
        let outcome = |(_, word): (ApiOutcome, &str)| self.api.requests.with_label_values(&[provider, word]);
        ApiMetrics { requests: OUTCOMES.map(outcome), duration: self.api.duration.with_label_values(&[provider]) }
    }

    /// Counts a refusal by the slug of its error type.
    pub fn refused(&self, slug: &'static str) {
        self.refused.with_label_values(&[slug]).inc();
    }

    /// Counts a finished refresh.
    pub fn refreshed(&self, provider: &ProviderName, outcome: &'static str, seconds: f64) {
        self.refreshes.with_label_values(&[provider.as_str(), outcome]).inc();
        self.refresh_duration.with_label_values(&[provider.as_str()]).observe(seconds);
    }

    /// Counts a request to a token endpoint.
    pub fn refresh_attempted(&self, provider: &ProviderName) {
        self.refresh_attempts.with_label_values(&[provider.as_str()]).inc();
    }

    /// Counts a finished dance.
    pub fn connected(&self, provider: &ProviderName, outcome: &'static str) {
        self.connects.with_label_values(&[provider.as_str(), outcome]).inc();
    }

    /// Counts a grant that was announced to end.
    pub fn grant_ends(&self, provider: &ProviderName) {
        self.grant_ends.with_label_values(&[provider.as_str()]).inc();
    }

    /// Counts a request at the endpoint of an MCP server.
    pub fn mcp_call(&self, server: &ServerName, outcome: ApiOutcome) {
        let (_, word) = OUTCOMES[outcome as usize];
        self.mcp_calls.with_label_values(&[server.as_str(), word]).inc();
    }

    /// Has what is counted of the children of a server begin with 0.
    pub fn watch_children(&self, server: &ServerName) {
        for outcome in ["ok", "failed", "no_room"] {
            drop(self.children.starts.with_label_values(&[server.as_str(), outcome]));
        }
        drop(self.children.ends.with_label_values(&[server.as_str(), "crashed"]));
        self.set_children(server, 0, Duration::ZERO);
    }

    /// Sets how many child processes a server has, and how old the oldest is.
    pub fn set_children(&self, server: &ServerName, count: usize, oldest: Duration) {
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge.with_label_values(&[server.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.children.running, count as u64);
        set(&self.children.oldest, oldest.as_secs());
    }

    /// Counts the start of a child process, and how long it took if it worked.
    pub fn child_started(&self, server: &ServerName, outcome: &'static str, took: Duration) {
        self.children.starts.with_label_values(&[server.as_str(), outcome]).inc();
        if outcome == "ok" {
            self.children.start_duration.with_label_values(&[server.as_str()]).observe(took.as_secs_f64());
        }
    }

    /// Counts the end of a child process.
    pub fn child_ended(&self, server: &ServerName, reason: &'static str) {
        self.children.ends.with_label_values(&[server.as_str(), reason]).inc();
    }

    /// Counts an attempt to take over a changed configuration, and whether what is on the disk is in force.
    pub fn reloaded(&self, outcome: &'static str, is_current: bool) {
        self.reloads.with_label_values(&[outcome]).inc();
        self.config_current.set(i64::from(is_current));
    }

    /// Sets how many connections there are, by provider and state.
    pub fn set_connections(&self, counts: &[(String, String, i64)]) {
        self.connections.reset();
        for (provider, state, count) in counts {
            self.connections.with_label_values(&[provider, state]).set(*count);
        }
    }

    /// The text that scrapers read.
    pub fn render(&self, health: &Health) -> String {
        for part in Part::ALL {
            self.well.with_label_values(&[part.word()]).set(i64::from(health.is_well(part)));
        }
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_under_the_names_that_are_documented() {
        let provider: ProviderName = "quickbooks".parse().expect("valid");
        let metrics = Metrics::new([provider.clone()].iter()).expect("distinct names");
        metrics.api(&provider).observe(ApiOutcome::Refused, 0.001);
        metrics.refused("unknown-handle");
        metrics.refreshed(&provider, "ok", 0.2);
        metrics.connected(&provider, "ok");
        metrics.set_connections(&[("quickbooks".to_owned(), "active".to_owned(), 2)]);
        let health = Health::default();
        health.well(Part::Listeners);
        let text = metrics.render(&health);
        for line in [
            "sidekey_part_well{part=\"listeners\"} 1",
            "sidekey_part_well{part=\"store\"} 0",
            concat!("sidekey_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "sidekey_api_requests_total{outcome=\"refused\",provider=\"quickbooks\"} 1",
            "sidekey_api_requests_total{outcome=\"ok\",provider=\"quickbooks\"} 0",
            "sidekey_refusals_total{error=\"unknown-handle\"} 1",
            "sidekey_refreshes_total{outcome=\"ok\",provider=\"quickbooks\"} 1",
            "sidekey_connections{provider=\"quickbooks\",state=\"active\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn outcomes_stand_where_their_number_says() {
        for (index, (outcome, _)) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
