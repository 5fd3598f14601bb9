//! Where calls to providers really go: addresses that the operator wrote down, upstream proxies, and never ourselves. API
//! calls and token calls take the same ways.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::{ManualClock, SystemClock};
use sidekey::base::dns::Dns;
use sidekey::base::http::{Limits, NetworkClient};
use sidekey::base::outbound::{Outbound, Parts};
use sidekey::config;
use sidekey::server::Environment;
use tokio::net::UdpSocket;

use crate::client::{http, send};
use crate::front::assert_problem;
use crate::process::Program;
use crate::upstream_support::{
    self, ConnectProxy, HANG_UP, NONSENSE, Reach, Switch, connect, connected, while_time_passes, world, world_in,
};
use crate::world::{Files, Setup, World, eventually};

/// `user:p@ss`
const CREDENTIAL: &str = "Basic dXNlcjpwQHNz";

#[tokio::test]
async fn real_host_names_lead_where_the_operator_says() {
    let (world, clock) = world(Reach::default()).await;
    let handle = connected(&world, "github", "alice").await;
    let answer = world.call(&handle, "/github/user").await;
    assert_eq!((answer.status, answer.json()["login"].as_str()), (200, Some("octocat")), "{}", answer.text());
    let handle = connected(&world, "quickbooks", "bob").await;
    let path = "/quickbooks/v3/company/0/companyinfo/0";
    assert_eq!(world.call(&handle, path).await.status, 200);
    clock.advance(Duration::from_secs(2 * 3600));
    world.simulator.expire("quickbooks");
    assert_eq!(world.call(&handle, path).await.status, 200, "a refresh goes the same way");
    let counters = world.simulator.profile_counters("quickbooks");
    assert_eq!((counters.code_exchanges_ok, counters.refreshes_ok, counters.api_calls_ok), (1, 1, 2));
    world.stop().await;
}

#[tokio::test]
async fn without_the_extra_root_nobody_is_believed() {
    let (world, clock) = world(Reach { trusts_simulator: false, ..Reach::default() }).await;
    let answer = while_time_passes(&clock, connect(&world, "github", "alice")).await;
    assert!(answer.text().contains("UnknownIssuer"), "{}", answer.text());
    assert!(world.connections("alice").await.is_empty());
    assert_eq!(world.simulator.profile_counters("github").code_exchanges, 0, "the code was not sent");
    world.stop().await;
}

/// A world that reaches the real hosts through a proxy.
async fn proxied() -> (World, ManualClock, ConnectProxy) {
    let proxy = ConnectProxy::start(CREDENTIAL).await;
    let egress = format!("upstream_proxy = \"http://user:p%40ss@{}\"", proxy.address);
    let (world, clock) = world(Reach { egress, resolve: Some(Vec::new()), ..Reach::default() }).await;
    proxy.behind.to(world.simulator.hosts_address().expect("played")).await;
    (world, clock, proxy)
}

fn targets(proxy: &ConnectProxy) -> Vec<String> {
    proxy.asked().iter().map(|head| head.split("\r\n").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_proxy_is_asked_for_tunnels_by_name_and_learns_nothing_else() {
    let (world, _, proxy) = proxied().await;
    let handle = connected(&world, "github", "alice").await;
    let (token, api) = ("CONNECT github.com:443 HTTP/1.1", "CONNECT api.github.com:443 HTTP/1.1");
    assert_eq!(targets(&proxy), [token, api], "the token call, and the question whose it is");
    for _ in 0..3 {
        let echo = world.call(&handle, "/github/echo").await;
        assert_eq!(echo.status, 200, "{}", echo.text());
        let headers = echo.json()["headers"].to_string().to_ascii_lowercase();
        assert!(!headers.contains("proxy") && !headers.contains("via"), "{headers}");
    }
    assert_eq!(targets(&proxy), [token, api, api], "calls share a tunnel");
    for head in proxy.asked() {
        let host = head.split(' ').nth(1).expect("a target");
        let wanted = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {CREDENTIAL}\r\n\r\n");
        assert_eq!(head, wanted);
    }
    let seen = String::from_utf8_lossy(&proxy.seen()).into_owned();
    let issued = world.simulator.issued_values();
    let secrets = issued.access_tokens.iter().chain(&issued.refresh_tokens).chain(&issued.client_secrets);
    assert!(seen.contains("api.github.com"), "the server name is there to be read");
    for secret in secrets {
        assert!(!seen.contains(secret.as_str()));
    }
    world.stop().await;
}

/// Two hosts behind one proxy share its address, and nothing else.
#[tokio::test]
async fn tunnels_are_not_shared_by_hosts() {
    let (world, _, proxy) = proxied().await;
    let github = connected(&world, "github", "alice").await;
    let quickbooks = connected(&world, "quickbooks", "alice").await;
    for _ in 0..2 {
        assert_eq!(world.call(&github, "/github/user").await.status, 200);
        assert_eq!(world.call(&quickbooks, "/quickbooks/v3/company/0/companyinfo/0").await.status, 200);
    }
    let asked = targets(&proxy);
    // One of those to GitHub asked whose the connection is.
    for (host, expected) in [("api.github.com", 2), ("quickbooks.api.intuit.com", 1)] {
        let count = asked.iter().filter(|target| **target == format!("CONNECT {host}:443 HTTP/1.1")).count();
        assert_eq!(count, expected, "{asked:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_token_calls_count_as_not_sent() {
    let (world, clock, proxy) = proxied().await;
    let handle = connected(&world, "github", "alice").await;
    let before = world.simulator.profile_counters("github").api_calls;
    for with in [403, 407, 502, NONSENSE, HANG_UP] {
        proxy.refuse(with).await;
        let answer = world.call(&handle, "/github/user").await;
        assert_problem(&answer, 502, "upstream-proxy");
        let text = answer.text();
        assert!(!text.contains("p@ss") && !text.contains("dXNlcjpw"), "{text}");
    }
    assert_eq!(world.simulator.profile_counters("github").api_calls, before);
    clock.advance(Duration::from_secs(9 * 3600));
    world.simulator.expire("github");
    let answer = while_time_passes(&clock, world.call(&handle, "/github/user")).await;
    assert_problem(&answer, 503, "token-unavailable");
    assert_eq!(world.simulator.profile_counters("github").refresh_attempts, 0);
    proxy.allow();
    eventually("a refresh", async || {
        clock.advance(Duration::from_secs(60));
        while_time_passes(&clock, world.call(&handle, "/github/user")).await.status == 200
    })
    .await;
    let counters = world.simulator.profile_counters("github");
    assert_eq!((counters.refresh_attempts, counters.refreshes_ok, counters.reuse_detected), (1, 1, 0));
    world.stop().await;
}

#[tokio::test]
async fn proxies_of_the_environment_do_not_count() {
    let simulator = sidekey_simulator::start(sidekey_simulator::Options::default()).await.expect("a simulator");
    let files = Files::write(&simulator.url(), &Setup::default());
    let dead = "http://127.0.0.1:9";
    let environment = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let running = Program::start(files, &environment.map(|name| (name, dead)), Stdio::null()).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", running.files.egress);
    let answer = send(http().get(url).bearer_auth(&handle)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    simulator.stop().await;
}

#[tokio::test]
async fn what_leads_back_to_us_is_refused_before_connecting() {
    let listeners: [fn(&Files) -> SocketAddr; 3] = [|files| files.egress, |files| files.public, |files| files.metrics];
    for listener in listeners {
        let simulator = upstream_support::simulator().await;
        let hosts = simulator.hosts_address().expect("played");
        // Token calls reach the simulator, so that there is something to call with.
        let resolve = Some(vec![("github.com", hosts), ("api.github.com", SocketAddr::from(([127, 0, 0, 1], 1)))]);
        let files = upstream_support::files(&simulator, &Reach { resolve, ..Reach::default() });
        let text = std::fs::read_to_string(&files.config).expect("there");
        let text = text.replace("\"127.0.0.1:1\"", &format!("\"{}\"", listener(&files)));
        std::fs::write(&files.config, text).expect("written");
        let settings = files.settings();
        let environment = Environment::system(&settings).expect("an environment");
        let sidekey = sidekey::server::start(settings, environment).await.expect("it starts");
        let world = World { simulator, files, sidekey, client: http() };
        let handle = connected(&world, "github", "alice").await;
        assert_problem(&world.call(&handle, "/github/user").await, 502, "loop");
        let metrics = world.metrics().await;
        assert!(metrics.contains("sidekey_refusals_total{error=\"loop\"} 1"), "{metrics}");
        world.stop().await;
    }
}

/// A call that is led back to us in a way that no address shows (a firewall rule) meets our own authority, which counts for
/// nothing here even where the machine trusts it.
#[tokio::test]
async fn our_own_certificates_prove_nothing_to_us() {
    let back = Switch::start().await;
    let simulator = upstream_support::simulator().await;
    let hosts = simulator.hosts_address().expect("played");
    let resolve = Some(vec![("github.com", hosts), ("api.github.com", back.address)]);
    let files = upstream_support::files(&simulator, &Reach { resolve, ..Reach::default() });
    back.to(files.egress).await;
    let started = async || {
        let settings = files.settings();
        let environment = Environment::system(&settings).expect("an environment");
        sidekey::server::start(settings, environment).await.expect("it starts")
    };
    let sidekey = started().await;
    let own = format!("http://{}/.well-known/sidekey/ca.pem", files.egress);
    let own = send(http().get(own)).await;
    assert!(own.status == 200 && own.text().contains("BEGIN CERTIFICATE"), "{}", own.text());
    sidekey.stop().await;
    let trusted = files.home.path().join("extra.pem");
    let others = std::fs::read_to_string(&trusted).expect("there");
    std::fs::write(&trusted, others + &own.text()).expect("written");
    let sidekey = started().await;
    let world = World { simulator, files, sidekey, client: http() };
    let handle = connected(&world, "github", "alice").await;
    assert_problem(&world.call(&handle, "/github/user").await, 502, "provider-certificate");
    world.stop().await;
}

/// A name server that answers every question for an IPv4 address with this one.
async fn name_server(answer: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let reply = answered(&question[..length], answer);
            let _ = socket.send_to(&reply, from).await;
        }
    });
    address
}

/// The question again, and for type A one record.
fn answered(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).expect("a name") + 5;
    let is_a = question[end - 4..end - 2] == [0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address);
    }
    reply
}

/// DNS rebinding: nothing is connected to, let alone sent.
#[tokio::test]
async fn names_that_lead_to_this_machine_or_its_metadata_are_refused() {
    for bad in
        [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0], [169, 254, 169, 254], [169, 254, 1, 1], [100, 100, 100, 200]]
    {
        let server = name_server(bad).await;
        let with_dns = |settings: &config::Settings| {
            let mut outbound = settings.egress.outbound.clone();
            outbound.resolve.retain(|host, _| host != "api.github.com");
            let parts = Parts {
                settings: outbound,
                own_ports: Vec::new(),
                dns: Dns::at(&[server]),
                clock: Arc::new(SystemClock),
            };
            let outbound = Arc::new(Outbound::new(parts).expect("roots"));
            let http = Arc::new(NetworkClient::new(Limits::default(), Arc::clone(&outbound)));
            Ok(Environment { outbound, http, ..Environment::system(settings)? })
        };
        let (world, _) = world_in(Reach::default(), with_dns).await;
        let handle = connected(&world, "github", "alice").await;
        let answer = world.call(&handle, "/github/user").await;
        assert_problem(&answer, 502, "provider-address");
        world.stop().await;
    }
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let simulator = "http://provider.example:8080";
    let files = Files::write(simulator, &Setup::default());
    let problems = config::load(&files.config, &|_| None).err().expect("refused");
    let of_origins = problems.iter().filter(|problem| problem.key.ends_with("origin")).count();
    assert!(of_origins >= 4, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.message.contains("https:// URL")), "{problems:#?}");
}
