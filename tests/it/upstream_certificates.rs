//! A provider must prove who it is before it gets a byte: in API calls and in token calls, at the start and in the middle.

use std::process::Stdio;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use sidekey::base::clock::ManualClock;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::front::assert_problem;
use crate::upstream_support::{Identity, Reach, Switch, TlsServer, connected, while_time_passes, world};
use crate::world::{World, eventually, free_address};

/// An authority, its certificate in PEM.
pub fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).expect("signed").pem();
    (Issuer::new(parameters, key), pem)
}

pub fn issued(issuer: &Issuer<'_, KeyPair>, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("parameters");
    change(&mut parameters);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.signed_by(&key, issuer).expect("signed").pem();
    Identity { certificate, key: key.serialize_pem() }
}

/// The names of both hosts that are called.
const NAMES: [&str; 2] = ["github.com", "api.github.com"];

/// Certificates that prove nothing; each is what its name says, and right in all else.
fn bad(trusted: &Issuer<'_, KeyPair>) -> Vec<(&'static str, Identity)> {
    let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned).to_vec()).expect("a certificate");
    let self_signed = Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() };
    let (stranger, _) = authority();
    vec![
        ("another name", issued(trusted, &["github.example", "github.com.example", "xapi.github.com"], |_| {})),
        ("a wildcard of another level", issued(trusted, &["*.api.github.com", "*.com"], |_| {})),
        (
            "expired",
            issued(trusted, &NAMES, |parameters| {
                parameters.not_before = date_time_ymd(2020, 1, 1);
                parameters.not_after = date_time_ymd(2021, 1, 1);
            }),
        ),
        ("not valid yet", issued(trusted, &NAMES, |parameters| parameters.not_before = date_time_ymd(2999, 1, 1))),
        ("signed by itself", self_signed),
        ("signed by a stranger", issued(&stranger, &NAMES, |_| {})),
        ("the address instead of the name", issued(trusted, &["127.0.0.1"], |_| {})),
        (
            "the name in the subject only",
            issued(trusted, &["other.example"], |parameters| {
                parameters.distinguished_name.push(DnType::CommonName, "api.github.com");
            }),
        ),
    ]
}

/// A world whose token endpoint and API can be led elsewhere, and a handle of somebody who is connected.
async fn led(trusted: String) -> (World, ManualClock, [Switch; 2], String) {
    let switches = [Switch::start().await, Switch::start().await];
    let resolve = NAMES.iter().zip(&switches).map(|(name, switch)| (*name, switch.address)).collect();
    let (world, clock) = world(Reach { resolve: Some(resolve), trusted, ..Reach::default() }).await;
    lead_back(&world, &switches).await;
    let handle = connected(&world, "github", "alice").await;
    (world, clock, switches, handle)
}

async fn lead_back(world: &World, switches: &[Switch; 2]) {
    for switch in switches {
        switch.to(world.simulator.hosts_address().expect("played")).await;
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_a_bad_certificate() {
    let (trusted, pem) = authority();
    let (world, clock, switches, handle) = led(pem).await;
    for (what, identity) in bad(&trusted) {
        assert_eq!(world.call(&handle, "/github/user").await.status, 200, "before: {what}");
        let server = TlsServer::start(&identity).await;
        for switch in &switches {
            switch.to(server.address).await;
        }
        let answer = world.call(&handle, "/github/user").await;
        assert_eq!(answer.status, 502, "{what}: {}", answer.text());
        assert_problem(&answer, 502, "provider-certificate");
        let tried = server.accepted();
        assert!(tried >= 1, "{what}");
        // The token endpoint likewise; what was not sent is tried again, and no grant is in doubt.
        let refreshed = world.simulator.profile_counters("github").refreshes_ok;
        clock.advance(Duration::from_secs(9 * 3600));
        world.simulator.expire("github");
        let answer = while_time_passes(&clock, world.call(&handle, "/github/user")).await;
        assert_problem(&answer, 503, "token-unavailable");
        assert!(server.accepted() > tried, "{what}");
        assert_eq!(server.received(), 0, "{what}");
        lead_back(&world, &switches).await;
        eventually(what, async || {
            clock.advance(Duration::from_secs(120));
            while_time_passes(&clock, world.call(&handle, "/github/user")).await.status == 200
        })
        .await;
        let counters = world.simulator.profile_counters("github");
        assert_eq!((counters.refreshes_ok, counters.reuse_detected), (refreshed + 1, 0), "{what}");
    }
    assert_eq!(world.simulator.profile_counters("github").refreshes_rejected, 0);
    world.stop().await;
}

/// What [`TlsServer`] would count, it does count: a good certificate gets the call.
#[tokio::test]
async fn a_server_with_a_good_certificate_is_called() {
    let (trusted, pem) = authority();
    let (world, _, switches, handle) = led(pem).await;
    let server = TlsServer::start(&issued(&trusted, &NAMES, |_| {})).await;
    switches[1].to(server.address).await;
    let answer = world.call(&handle, "/github/user").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert!(server.received() > 100);
    world.stop().await;
}

#[tokio::test]
async fn an_old_version_of_tls_is_not_spoken() {
    let (trusted, pem) = authority();
    let (world, _, switches, handle) = led(pem).await;
    let identity = issued(&trusted, &NAMES, |_| {});
    let (certificate, key) = (world.files.home.path().join("old.pem"), world.files.home.path().join("old.key"));
    std::fs::write(&certificate, &identity.certificate).expect("written");
    std::fs::write(&key, &identity.key).expect("written");
    for (version, expected) in [("-tls1_2", 504), ("-tls1_1", 502), ("-tls1", 502)] {
        let address = free_address();
        let mut old = Command::new("openssl");
        old.args(["s_server", "-accept", &address.to_string(), version, "-cipher", "ALL:@SECLEVEL=0", "-cert"]);
        old.arg(&certificate).arg("-key").arg(&key).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut old) = old.kill_on_drop(true).spawn() else {
            eprintln!("not tried: there is no openssl here");
            return;
        };
        eventually("it listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        switches[1].to(address).await;
        let called = world.call(&handle, "/github/user");
        let answer = tokio::time::timeout(Duration::from_secs(3), called).await;
        old.kill().await.expect("killed");
        let mut seen = Vec::new();
        old.stdout.take().expect("piped").read_to_end(&mut seen).await.expect("read");
        let got_the_request = seen.windows(4).any(|window| window == b"GET ");
        match expected {
            // Nobody answers, but TLS 1.2 is good enough to ask.
            504 => assert!(answer.is_err() && got_the_request, "{version}"),
            _ => {
                assert_problem(&answer.expect("an answer"), 502, "provider-certificate");
                assert!(!got_the_request, "{version}");
            }
        }
    }
    world.stop().await;
}
