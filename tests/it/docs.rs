//! Documents that name things in the code name them all, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sidekey::telemetry::health::Health;
use sidekey::telemetry::metrics::Metrics;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Quoted words of the form `a-b-c` in the code of a file, up to its tests.
fn slugs(path: &str, after: &str) -> BTreeSet<String> {
    let text = read(path);
    let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(after) {
        let rest = code[at + after.len()..].trim_start();
        let word = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
        let is_slug = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        found.extend(word.filter(is_slug).map(str::to_owned));
    }
    found
}

#[test]
fn every_error_type_has_its_paragraph() {
    let mut expected = BTreeSet::new();
    for file in ["src/proxy/egress/refusal.rs", "src/proxy/ingress/refusal.rs", "src/bridge/refusal.rs"] {
        let refusals = read(file);
        let table = refusals.split("pub fn slug").nth(1).and_then(|rest| rest.split("pub fn ").next());
        expected.extend(table.expect("the table").split('"').skip(1).step_by(2).map(str::to_owned));
    }
    let of_admin = ["grants", "handles", "links", "missing"].map(|name| format!("src/portal/admin/{name}.rs"));
    let others = ["src/portal/admin.rs", "src/proxy/public.rs"].map(str::to_owned);
    for file in of_admin.iter().chain(&others) {
        expected.extend(slugs(file, "ProblemDetails::new("));
    }
    expected.extend(slugs("src/portal/admin/status.rs", "problem("));
    expected.extend(slugs("src/portal/admin/sites.rs", "("));
    expected.extend(slugs("src/portal/admin/keys.rs", "refused("));
    expected.extend(slugs("src/portal/admin/connection.rs", "=> ("));
    for after in ["ProblemDetails::new(", "problem("] {
        expected.extend(slugs("src/portal/api/problem.rs", after));
    }
    let callbacks = read("src/portal/explain.rs");
    let table = callbacks.split("pub fn slug").nth(1).expect("the table");
    expected.extend(table.split('"').skip(1).step_by(2).map(str::to_owned));
    assert!(expected.len() > 25, "{expected:?}");
    let documented: BTreeSet<String> = read("docs/errors.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.trim_matches('`').to_owned())
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_metric_is_documented() {
    let code = read("src/telemetry/metrics.rs");
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let names: BTreeSet<_> = code.split('"').filter(|text| text.starts_with("sidekey_")).collect();
    let documents = read("docs/operations.md");
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        assert!(documents.contains(name), "{name} is not in docs/operations.md");
    }
}

/// Dashboards and alerts that name what is not there show nothing, and nobody notices.
#[test]
fn dashboards_and_alerts_name_metrics_that_are_there() {
    let code = read("src/telemetry/metrics.rs");
    let known: BTreeSet<_> = code.split('"').filter(|text| text.starts_with("sidekey_")).collect();
    let mut named = 0;
    for file in ["examples/monitoring/alerts.yaml", "examples/monitoring/dashboard.json"] {
        let text = read(file);
        let words = text.split(|character: char| !(character.is_ascii_lowercase() || "_".contains(character)));
        for word in words.filter(|word| word.starts_with("sidekey_")) {
            let metric = word.trim_end_matches("_bucket");
            assert!(known.contains(metric), "{file}: {word}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

/// `increase()` sees a first event only where the counter was there before it, and an outcome that is misspelt never comes.
#[test]
fn what_alerts_watch_is_there_before_it_happens() {
    let provider = "acme".parse().expect("a name");
    let metrics = Metrics::new([provider].iter()).expect("metrics").render(&Health::default());
    let mut watched = 0;
    for line in read("examples/monitoring/alerts.yaml").lines() {
        for (metric, label) in [
            ("sidekey_refreshes_total", "outcome"),
            ("sidekey_connects_total", "outcome"),
            ("sidekey_refusals_total", "error"),
        ] {
            for selector in line.split(&format!("{metric}{{")).skip(1) {
                let words = selector.split('"').nth(1).expect("a value").split('|');
                for word in words {
                    let begins = format!("{metric}{{{label}=\"{word}\"");
                    assert!(metrics.lines().any(|line| line.starts_with(&begins)), "{begins}\n{metrics}");
                    watched += 1;
                }
            }
        }
    }
    assert!(watched >= 12, "{watched}");
}

#[test]
fn every_alert_has_a_runbook() {
    let (alerts, operations) = (read("examples/monitoring/alerts.yaml"), read("docs/operations.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 13, "{names:?}");
    for name in names {
        assert!(operations.contains(&format!("\n### {name}\n")), "{name} has no heading in docs/operations.md");
        let link = format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} does not lead to its runbook");
    }
}

/// All Rust files below a folder, with the stems of their names.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let stem = entry.file_stem().expect("a name").to_string_lossy().into_owned();
            found.push((stem, fs::read_to_string(&entry).expect("text")));
        }
    }
}

/// A promise whose test is gone is none. `tests::` stands for the tests beside some code.
#[test]
fn every_promise_names_tests_that_are_there() {
    let mut files = Vec::new();
    for folder in ["src", "tests/it"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let promises = read("docs/promises.md");
    let mut checked = 0;
    for (file, test) in promises.split('`').skip(1).step_by(2).filter_map(|text| text.split_once("::")) {
        let head = format!("fn {test}(");
        if file == "FILE" {
            continue; // the explanation at the beginning
        }
        let is_there = files.iter().any(|(stem, text)| {
            let here = file == "tests" || stem == file;
            let at = text.find(&head).filter(|_| here);
            at.is_some_and(|at| text[..at].lines().rev().take(4).any(|line| line.contains("test")))
        });
        assert!(is_there, "{file}::{test}");
        checked += 1;
    }
    assert!(checked > 160, "{checked}");
    let rows = (1..=18).map(|row| format!("D-{row:02}")).chain((1..=20).map(|row| format!("F-{row:02}")));
    rows.for_each(|row| assert!(promises.contains(&row), "{row} is not in docs/promises.md"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/providers.md",
        "docs/recipes.md",
        "docs/run.md",
        "docs/operations.md",
        "docs/cli.md",
        "docs/errors.md",
        "docs/troubleshooting.md",
        "docs/threat-model.md",
        "docs/journeys.md",
        "docs/mcp-clients.md",
        "docs/benchmarks.md",
        "docs/chaos.md",
        "docs/promises.md",
        "docs/interception.md",
        "docs/partner-api.md",
        "docs/endpoints.md",
        "docs/kubernetes.md",
        "docs/quickstart.md",
        "examples/kubernetes/README.md",
    ] {
        let text = read(document);
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") {
                assert!(here.parent().expect("a folder").join(target).exists(), "{document}: {target}");
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "{checked}");
}

/// The paths that a router answers, as its code names them.
fn routes(file: &str, before: &str) -> BTreeSet<String> {
    let code = read(file);
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    for rest in code.split(".route(").skip(1) {
        let rest = rest.trim_start();
        if let Some(path) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
            found.insert(format!("{before}{path}"));
        }
    }
    found
}

/// The paths in the first column of the tables under a heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let document = read("docs/endpoints.md");
    let section = document.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let first = |line: &str| line.strip_prefix("| `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    section.lines().filter_map(first).collect()
}

/// Whoever adds a path says who may use it and what it answers.
#[test]
fn every_endpoint_is_listed_and_every_listed_one_is_there() {
    let mut public = routes("src/portal.rs", "");
    public.extend(routes("src/portal/api.rs", "/api/v1"));
    let by_name = ["branding::STYLESHEET_PATH", "branding::LOGO_PATH"];
    by_name.iter().for_each(|name| assert!(read("src/portal.rs").contains(&format!(".route({name},")), "{name}"));
    public.extend(["/{server}/mcp", "/assets/sidekey.css", "/assets/logo"].map(str::to_owned));
    assert_eq!(listed("Public"), public);
    assert_eq!(listed("Admin"), routes("src/portal/admin.rs", ""));
    assert_eq!(listed("Metrics"), routes("src/portal/probes.rs", ""));
}
