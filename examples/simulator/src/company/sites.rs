//! Which sites a user has, and what their calls must name.

use hyper::HeaderMap;
use serde_json::Value;

use super::{Company, Fit, fits};

/// The sites of a user who has so many, as the company lists them.
pub(crate) fn sites_of(company: &Company, count: usize) -> Vec<&Value> {
    company.sites.iter().take(count).map(|site| &site.0).collect()
}

/// Whether there is anything at a path, for that account and a user of so many sites.
pub(crate) fn path_fit(company: &Company, path: &str, realm: &str, count: usize) -> Fit {
    let is = |name: &str, value: &str| is_own(company, name, value, realm, count);
    let mut best = if company.api.paths.is_empty() { Fit::Yes } else { Fit::No };
    for pattern in &company.api.paths {
        match fits(pattern, path, is) {
            Fit::Yes => return Fit::Yes,
            Fit::OtherValue => best = Fit::OtherValue,
            Fit::No => {}
        }
    }
    best
}

/// The first header that a call must have and has not.
pub(crate) fn headers_missing<'c>(
    company: &'c Company,
    path: &str,
    headers: &HeaderMap,
    realm: &str,
    count: usize,
) -> Option<&'c str> {
    let needed = company
        .api
        .headers
        .iter()
        .filter(|needed| needed.path.as_deref().is_none_or(|pattern| fits(pattern, path, |_, _| true) == Fit::Yes));
    let missing = needed.into_iter().find(|needed| {
        let Some(sent) = headers.get(&needed.name).and_then(|value| value.to_str().ok()) else { return true };
        match needed.value.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => !is_own(company, name, sent, realm, count),
            None => needed.value != "*" && needed.value != sent,
        }
    });
    missing.map(|needed| needed.name.as_str())
}

fn is_own(company: &Company, name: &str, value: &str, realm: &str, count: usize) -> bool {
    let id_of = |site: &Value| site.pointer(&company.site_id).and_then(Value::as_str) == Some(value);
    match name {
        "site" => sites_of(company, count).into_iter().any(id_of),
        "realm" => value == realm,
        _ => false,
    }
}
