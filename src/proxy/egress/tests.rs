use super::route::captured_upstream;
use crate::base::outbound::{Outbound, OutboundSettings};
use crate::catalogue::Api;
use crate::catalogue::entry::ApiEntry;
use crate::catalogue::provider::tests::provider;
use crate::model::connection::Captured;

fn salesforce_like(instance_url: &str) -> Option<String> {
    let declared = serde_json::json!({
        "origin": "{instance_url}", "origin_suffixes": [".salesforce.example"], "base_path": "/services"
    });
    let declared: ApiEntry = serde_json::from_value(declared).expect("an API");
    let owner = provider("github");
    let api = Api::prepare(&owner.name, "crm", &declared, &owner.entry).expect("sound");
    let captured = Captured::from([("instance_url".to_owned(), instance_url.to_owned())]);
    captured_upstream(&api, &captured, &Outbound::of_tests(OutboundSettings::default(), &[]))
        .map(|upstream| upstream.prefix)
}

#[test]
fn a_captured_host_must_be_within_bounds() {
    assert_eq!(
        salesforce_like("https://acme.my.salesforce.example").as_deref(),
        Some("https://acme.my.salesforce.example/services")
    );
    assert!(salesforce_like("https://acme.salesforce.example/").is_some());
    for out in [
        "https://evil.example",
        "https://salesforce.example.evil.example",
        "https://evilsalesforce.example",
        "http://acme.salesforce.example",
        "https://acme.salesforce.example/path",
        "https://u@acme.salesforce.example",
        "https://127.0.0.1",
        "http://127.0.0.1",
        "",
    ] {
        assert_eq!(salesforce_like(out), None, "{out}");
    }
}

#[test]
fn an_access_token_parameter_is_seen_in_any_spelling() {
    for query in [
        "access_token=x",
        "a=b&access_token",
        "ACCESS_TOKEN=1",
        "access%5Ftoken=1",
        "a=1;access_token=1",
        "private_token=x",
    ] {
        assert!(crate::proxy::has_access_token(query), "{query}");
    }
    assert!(!crate::proxy::has_access_token("a=access_token&my_access_token=1"));
}
