use super::*;

fn written(entries: &[(&str, &str)]) -> OutboundSettings {
    let address = |text: &str| Arc::new([text.parse().expect("an address")]) as Arc<[SocketAddr]>;
    let resolve = entries.iter().map(|(host, text)| ((*host).to_owned(), address(text))).collect();
    OutboundSettings { resolve, ..OutboundSettings::default() }
}

fn url(text: &str) -> SafeUrl {
    text.parse().expect("safe")
}

fn first(way: &Way) -> String {
    way.addresses()[0].to_string()
}

#[tokio::test]
async fn what_is_written_down_needs_no_asking_and_the_port_counts() {
    let outbound = Outbound::of_tests(written(&[("a.example", "10.0.0.7:443"), ("a.example:8443", "10.0.0.8:1")]), &[]);
    assert_eq!(first(&outbound.way_to(&url("https://a.example/")).await.expect("a way")), "10.0.0.7:443");
    assert_eq!(first(&outbound.way_to(&url("https://a.example:8443/")).await.expect("a way")), "10.0.0.8:1");
    assert_eq!(outbound.way_to(&url("https://b.example/")).await.expect_err("none"), NoWay::Unresolved);
}

#[tokio::test]
async fn this_machine_is_reached_only_by_its_own_names() {
    let outbound = Outbound::of_tests(OutboundSettings::default(), &[]);
    assert_eq!(first(&outbound.way_to(&url("http://localhost:83/")).await.expect("a way")), "127.0.0.1:83");
    assert_eq!(first(&outbound.way_to(&url("http://127.0.0.1:84/")).await.expect("a way")), "127.0.0.1:84");
    assert_eq!(outbound.way_to(&url("https://x.localhost/")).await.expect_err("none"), NoWay::Unresolved);
}

#[tokio::test]
async fn no_way_leads_to_a_listener_of_ours() {
    let proxy = "http://127.0.0.1:8701".parse().ok();
    let settings =
        OutboundSettings { proxy, ..written(&[("a.example", "127.0.0.1:8701"), ("b.example", "127.0.0.1:9")]) };
    let outbound = Outbound::of_tests(settings, &[8701]);
    for loops in ["https://a.example/", "http://127.0.0.1:8701/", "http://localhost:8701/", "https://proxied.example/"]
    {
        assert_eq!(outbound.way_to(&url(loops)).await.expect_err("a loop"), NoWay::Loop, "{loops}");
        assert!(outbound.settled_way(&url(loops)).is_none(), "{loops}");
    }
    assert!(outbound.way_to(&url("https://b.example/")).await.is_ok());
}

#[tokio::test]
async fn a_proxy_leads_everywhere_but_to_this_machine_and_to_what_is_written_down() {
    let proxy = "http://127.0.0.1:3128".parse().ok();
    let outbound = Outbound::of_tests(OutboundSettings { proxy, ..written(&[("a.example", "10.0.0.7:443")]) }, &[]);
    let Way::Tunnel(tunnel) = outbound.way_to(&url("https://b.example/")).await.expect("a way") else {
        panic!("no tunnel");
    };
    assert_eq!((tunnel.target.as_str(), tunnel.addresses[0].port()), ("b.example:443", 3128));
    let Way::Tunnel(other) = outbound.way_to(&url("https://b.example:8443/")).await.expect("a way") else {
        panic!("no tunnel");
    };
    assert_ne!(tunnel.key, other.key);
    assert!(matches!(outbound.way_to(&url("https://10.1.1.1/")).await, Ok(Way::Tunnel(_))));
    for direct in ["https://a.example/", "http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/"] {
        assert!(matches!(outbound.way_to(&url(direct)).await, Ok(Way::Direct(_))), "{direct}");
    }
}
