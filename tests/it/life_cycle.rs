//! The life of a connection at every provider of the catalogue, from its bundled entry as it is: connected, used, expired in that
//! provider's shape, refreshed by its rule, taken back by the user, connected again and given back. The simulator plays the
//! provider behind its real host names, and has been told how it behaves by somebody who has not read the entry.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sidekey::base::clock::{Clock, ManualClock};
use sidekey::base::files::create_private;
use sidekey::base::random::SystemRandom;
use sidekey::server::{self, Environment};
use sidekey::store::keyring::generate_key;
use sidekey_simulator::{ApiCall, Endpoint, Fault, FaultKind, Grant, Options, Rotation, Settings, host_names};

use crate::client::{Answer, send};
use crate::real_hosts::browser;
use crate::upstream_support::while_time_passes;
use crate::world::{Files, World, eventually, free_address, now};

/// What is known of a provider besides its entry.
struct Life {
    /// The entry, and the profile of the simulator.
    entry: &'static str,
    /// Further lines of `[providers.NAME]`.
    lines: &'static str,
    /// How a server calls the API.
    call: (&'static str, &'static str),
    /// Where that arrives: host and path.
    arrives: (&'static str, &'static str),
    /// What is remembered of the connection, among other things.
    captured: &'static [(&'static str, &'static str)],
    /// The rule and the lifetime of access tokens in seconds, where the provider lets an administrator choose.
    chosen: Option<(Rotation, f64)>,
    /// Calls whose answer to an expired token tells only one who knows that its time is over.
    ambiguous: &'static [&'static str],
    /// The status of an answer of which only the body says that the token has expired: it goes to the caller, and only the next call
    /// has another token.
    told_in_body: Option<u16>,
    /// What becomes of the grant when the connection is ended.
    revocation: &'static str,
}

/// What most have in common.
const USUAL: Life = Life {
    entry: "",
    lines: "",
    call: ("GET", "/"),
    arrives: ("", ""),
    captured: &[],
    chosen: None,
    ambiguous: &[],
    told_in_body: None,
    revocation: "done",
};

/// As often as an API may say so, a token is replaced ahead of its time.
const FORCED_PAUSE: Duration = Duration::from_secs(61);

macro_rules! lives {
    ($($test:ident: $life:expr;)*) => {
        const LIVES: &[Life] = &[$($life),*];
        $(
            #[tokio::test]
            async fn $test() {
                live(&$life).await;
            }
        )*
    };
}

lives! {
    airtable: Life {
        entry: "airtable",
        call: ("GET", "/airtable/v0/meta/whoami"),
        arrives: ("api.airtable.com", "/v0/meta/whoami"),
        revocation: "not_offered",
        ..USUAL
    };
    asana: Life {
        entry: "asana",
        call: ("GET", "/asana/api/1.0/users/me"),
        arrives: ("app.asana.com", "/api/1.0/users/me"),
        captured: &[("user_gid", "4673218951")],
        ..USUAL
    };
    atlassian: Life {
        entry: "atlassian",
        lines: "apis = [\"jira\", \"confluence\"]",
        call: ("GET", "/jira/ex/jira/0/rest/api/3/myself"),
        arrives: ("api.atlassian.com", "/ex/jira/11223344-a1b2-3b33-c444-def123456789/rest/api/3/myself"),
        captured: &[("cloud_id", "11223344-a1b2-3b33-c444-def123456789")],
        ambiguous: &["/confluence/ex/confluence/0/wiki/api/v2/pages", "/confluence/ex/confluence/0/wiki/rest/api/space"],
        revocation: "not_offered",
        ..USUAL
    };
    bitbucket: Life {
        entry: "bitbucket",
        call: ("GET", "/bitbucket/2.0/user"),
        arrives: ("api.bitbucket.org", "/2.0/user"),
        revocation: "not_offered",
        ..USUAL
    };
    box_: Life {
        entry: "box",
        call: ("GET", "/box/2.0/users/me"),
        arrives: ("api.box.com", "/2.0/users/me"),
        ..USUAL
    };
    discord: Life {
        entry: "discord",
        call: ("GET", "/discord/api/v10/users/@me"),
        arrives: ("discord.com", "/api/v10/users/@me"),
        ..USUAL
    };
    dropbox: Life {
        entry: "dropbox",
        call: ("POST", "/dropbox/2/users/get_current_account"),
        arrives: ("api.dropboxapi.com", "/2/users/get_current_account"),
        captured: &[("account_id", "dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc")],
        ..USUAL
    };
    figma: Life {
        entry: "figma",
        call: ("GET", "/figma/v1/me"),
        arrives: ("api.figma.com", "/v1/me"),
        captured: &[("user_id", "1234567890123456789")],
        told_in_body: Some(403),
        revocation: "not_offered",
        ..USUAL
    };
    github: Life {
        entry: "github",
        call: ("GET", "/github/user"),
        arrives: ("api.github.com", "/user"),
        ..USUAL
    };
    github_oauth_app: Life {
        entry: "github-oauth-app",
        call: ("GET", "/github-oauth-app/user"),
        arrives: ("api.github.com", "/user"),
        ..USUAL
    };
    gitlab: Life {
        entry: "gitlab",
        call: ("GET", "/gitlab/api/v4/user"),
        arrives: ("gitlab.com", "/api/v4/user"),
        ..USUAL
    };
    google: Life {
        entry: "google",
        call: ("GET", "/calendar/calendar/v3/users/me/calendarList"),
        arrives: ("www.googleapis.com", "/calendar/v3/users/me/calendarList"),
        ..USUAL
    };
    hubspot: Life {
        entry: "hubspot",
        call: ("GET", "/hubspot/account-info/v3/details"),
        arrives: ("api.hubapi.com", "/account-info/v3/details"),
        captured: &[("hub_id", "62515")],
        ..USUAL
    };
    linear: Life {
        entry: "linear",
        call: ("POST", "/linear/graphql"),
        arrives: ("api.linear.app", "/graphql"),
        told_in_body: Some(400),
        ..USUAL
    };
    microsoft: Life {
        entry: "microsoft",
        call: ("GET", "/graph/v1.0/me"),
        arrives: ("graph.microsoft.com", "/v1.0/me"),
        revocation: "not_offered",
        ..USUAL
    };
    notion: Life {
        entry: "notion",
        call: ("GET", "/notion/v1/users/me"),
        arrives: ("api.notion.com", "/v1/users/me"),
        captured: &[("workspace_id", "5b1c7a52-0000-4000-8000-73696d756c61")],
        ..USUAL
    };
    quickbooks: Life {
        entry: "quickbooks",
        call: ("GET", "/quickbooks/v3/company/0/companyinfo/0"),
        arrives: ("quickbooks.api.intuit.com", "/v3/company/9341453172058817/companyinfo/0"),
        captured: &[("realm_id", "9341453172058817")],
        ..USUAL
    };
    salesforce: Life {
        entry: "salesforce",
        call: ("GET", "/salesforce/services/oauth2/userinfo"),
        arrives: ("simulated.my.salesforce.com", "/services/oauth2/userinfo"),
        captured: &[("instance_url", "https://simulated.my.salesforce.com")],
        chosen: Some((Rotation::SingleUse, 7200.0)),
        ..USUAL
    };
    shopify: Life {
        entry: "shopify",
        lines: "inputs = { shop = \"simulated\" }",
        call: ("GET", "/shopify/admin/api/2026-10/shop.json"),
        arrives: ("simulated.myshopify.com", "/admin/api/2026-10/shop.json"),
        revocation: "not_offered",
        ..USUAL
    };
    slack: Life {
        entry: "slack",
        call: ("GET", "/slack/api/auth.test"),
        arrives: ("slack.com", "/api/auth.test"),
        captured: &[("team_id", "T0SIMULATED")],
        chosen: Some((Rotation::SingleUse, 43_200.0)),
        told_in_body: Some(200),
        ..USUAL
    };
    spotify: Life {
        entry: "spotify",
        call: ("GET", "/spotify/v1/me"),
        arrives: ("api.spotify.com", "/v1/me"),
        revocation: "not_offered",
        ..USUAL
    };
    stripe: Life {
        entry: "stripe",
        call: ("GET", "/stripe/v1/account"),
        arrives: ("api.stripe.com", "/v1/account"),
        captured: &[("stripe_user_id", "acct_1032D82eZvKYlo2C")],
        revocation: "not_offered",
        ..USUAL
    };
    stripe_connect: Life {
        entry: "stripe-connect",
        call: ("GET", "/stripe-connect/v1/account"),
        arrives: ("api.stripe.com", "/v1/account"),
        captured: &[("stripe_user_id", "acct_1032D82eZvKYlo2C")],
        ..USUAL
    };
    todoist: Life {
        entry: "todoist",
        call: ("GET", "/todoist/api/v1/user"),
        arrives: ("api.todoist.com", "/api/v1/user"),
        chosen: Some((Rotation::SingleUse, 3600.0)),
        ..USUAL
    };
    xero: Life {
        entry: "xero",
        call: ("GET", "/xero/api.xro/2.0/Organisation"),
        arrives: ("api.xero.com", "/api.xro/2.0/Organisation"),
        captured: &[("tenant_id", "70784a63-d24b-46a9-a4db-0e70a274b056")],
        ..USUAL
    };
    zendesk: Life {
        entry: "zendesk",
        lines: "inputs = { subdomain = \"simulated\" }",
        call: ("GET", "/zendesk/api/v2/users/me.json"),
        arrives: ("simulated.zendesk.com", "/api/v2/users/me.json"),
        ..USUAL
    };
    zoom: Life {
        entry: "zoom",
        call: ("GET", "/zoom/v2/users/me"),
        arrives: ("api.zoom.us", "/v2/users/me"),
        captured: &[("api_url", "https://api.zoom.us")],
        ..USUAL
    };
}

#[test]
fn every_bundled_entry_has_a_life() {
    let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers")).expect("a directory");
    let name = |file: std::fs::DirEntry| file.file_name().into_string().expect("text").replace(".toml", "");
    let entries: BTreeSet<String> = entries.map(|file| name(file.expect("a file"))).collect();
    let lives: BTreeSet<String> = LIVES.iter().map(|life| life.entry.to_owned()).collect();
    let without: Vec<_> = entries.difference(&lives).collect();
    assert!(without.is_empty(), "a line of `lives!` is missing for {without:?}");
    let gone: Vec<_> = lives.difference(&entries).collect();
    assert!(gone.is_empty(), "there is no entry {gone:?}");
}

/// A user who has let the app into several sites chooses one, and each call reaches that one.
async fn choose(life: &Life, second: &str) {
    let (world, clock) = world(life).await;
    world.simulator.set(life.entry, |settings| settings.sites = 2);
    world.connect(life.entry, "alice").await;
    let provider = Provider { life, world: &world, clock: &clock };
    let (name, first) = life.captured[0];
    assert!(provider.connection().await["captured"].get(name).is_none());
    let handle = world.handle("alice").await.1;
    let refused = provider.call(&handle).await;
    assert_eq!(refused.json()["type"], "urn:sidekey:error:choice-needed", "{}", refused.text());
    let query = format!("/v1/sites?subject=alice&provider={}", life.entry);
    let sites = world.admin("GET", &query, "").await.json();
    let of = |value: &str| {
        let sites = sites["sites"].as_array().expect("a list");
        sites.iter().find(|site| site["captured"][name] == value).expect("it is offered")["id"].clone()
    };
    assert_eq!(sites["sites"].as_array().map(Vec::len), Some(2), "{sites}");
    for chosen in [second, first] {
        let body = serde_json::json!({ "subject": "alice", "provider": life.entry, "site": of(chosen) }).to_string();
        assert_eq!(world.admin("POST", "/v1/sites", &body).await.status, 200);
        assert_eq!(provider.connection().await["captured"][name], chosen);
        let answer = provider.call(&handle).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let call = world.simulator.api_calls().pop().expect("a call");
        let in_header = answer.json().to_string().contains(chosen);
        assert!(call.path.contains(chosen) || in_header, "{call:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn atlassian_of_two_sites() {
    choose(life_of("atlassian"), "99887766-a1b2-3b33-c444-def123456789").await;
}

#[tokio::test]
async fn xero_of_two_organisations() {
    choose(life_of("xero"), "e0da6937-de07-4a14-adee-37abfac298ce").await;
}

fn life_of(entry: &str) -> &'static Life {
    LIVES.iter().find(|life| life.entry == entry).expect("it has one")
}

/// A bot's token and the user's own come in one reply, go to their own APIs, and are each refreshed with their own refresh token.
#[tokio::test]
async fn slack_as_app_and_as_user() {
    let slack = Life { lines: "apis = [\"slack\", \"slack-user\"]", ..*life_of("slack") };
    let (world, clock) = world(&slack).await;
    world.connect("slack", "alice").await;
    let handle = world.handle("alice").await.1;
    let token_of_last_call = || {
        let call = world.simulator.api_calls().pop().expect("a call");
        let grant = world.simulator.profile_ledger("slack").last_grant().expect("a grant").clone();
        let number = usize::try_from(call.generation.expect("one of its tokens")).expect("small");
        (call.accepted, grant.access_tokens[number - 1].part.clone())
    };
    for _ in 0..3 {
        for (path, part) in [("/slack/api/auth.test", None), ("/slack-user/api/auth.test", Some("user".to_owned()))] {
            let answer = world.call(&handle, path).await;
            assert_eq!(answer.json()["ok"], true, "{path}: {}", answer.text());
            assert_eq!(token_of_last_call(), (true, part), "{path}");
        }
        clock.advance(Duration::from_secs(43_200));
    }
    let counters = world.simulator.profile_counters("slack");
    assert_eq!((counters.refreshes_ok >= 4, counters.refreshes_rejected, counters.reuse_detected), (true, 0, 0));
    let connections = world.connections("alice").await;
    let scopes: Vec<_> = connections.iter().map(|connection| connection["scopes"].to_string()).collect();
    assert!(scopes[0].contains("channels:history") && !scopes[0].contains("search:read"), "{scopes:?}");
    assert!(scopes[1].contains("search:read"), "{scopes:?}");
    world.stop().await;
}

/// From the first consent to the end.
async fn live(life: &Life) {
    let (world, clock) = world(life).await;
    let provider = Provider { life, world: &world, clock: &clock };
    provider.connects().await;
    let handle = world.handle("alice").await.1;
    provider.reaches_its_api(&handle).await;
    if provider.settings().rotation != Rotation::None {
        provider.replaces_what_has_expired(&handle).await;
        provider.knows_an_expired_token_where_it_is_ambiguous(&handle).await;
        provider.refreshes_ahead(&handle).await;
        provider.survives_a_lost_reply(&handle).await;
        provider.used_no_token_twice();
        provider.takes_a_value_that_changes_now_and_then(&handle).await;
    }
    provider.notices_the_end_of_the_grant(&handle).await;
    provider.begins_anew(&handle).await;
    provider.is_given_back(&handle).await;
    world.stop().await;
}

struct Provider<'w> {
    life: &'w Life,
    world: &'w World,
    clock: &'w ManualClock,
}

impl Provider<'_> {
    async fn connects(&self) {
        self.world.connect(self.life.entry, "alice").await;
        let connection = self.connection().await;
        assert_eq!(connection["state"], "active", "{connection}");
        for (name, value) in self.life.captured {
            assert_eq!(connection["captured"][name], *value, "{connection}");
        }
        let counters = self.world.simulator.profile_counters(self.life.entry);
        assert_eq!((counters.authorize_calls, counters.code_exchanges, counters.code_exchanges_ok), (1, 1, 1));
        let wants_refresh = self.settings().rotation != Rotation::None;
        assert_eq!(connection["has_refresh_token"], wants_refresh, "{connection}");
    }

    async fn reaches_its_api(&self, handle: &str) {
        let answer = self.call(handle).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.arrived(1);
    }

    /// The token has expired and nobody but the provider knows.
    async fn replaces_what_has_expired(&self, handle: &str) {
        let before = self.world.simulator.profile_counters(self.life.entry);
        assert_eq!(self.world.simulator.expire(self.life.entry), 1);
        if let Some(status) = self.life.told_in_body {
            let answer = self.call(handle).await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        let answer = self.call(handle).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let after = self.world.simulator.profile_counters(self.life.entry);
        assert_eq!(after.api_calls_expired, before.api_calls_expired + 1, "it was told once");
        assert_eq!(after.refreshes_ok, before.refreshes_ok + 1, "and asked for another once");
        self.arrived(2);
    }

    /// The token expires on the way, and the answer could mean something else.
    async fn knows_an_expired_token_where_it_is_ambiguous(&self, handle: &str) {
        for path in self.life.ambiguous {
            let entry = self.life.entry;
            let slow = FaultKind::DelayBeforeCommit { ms: 200 };
            self.world.simulator.add_fault(Fault::new(entry, Endpoint::Api, slow).nth(1));
            let before = self.world.api_calls(entry);
            let expires = async {
                eventually("the call has arrived", async || self.world.api_calls(entry) > before).await;
                self.world.simulator.expire(entry);
                self.clock.advance(self.lifetime());
            };
            let (answer, ()) = tokio::join!(self.world.call(handle, path), expires);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            self.world.simulator.clear_faults();
        }
    }

    /// Its time is over, as everybody knows.
    async fn refreshes_ahead(&self, handle: &str) {
        for _ in 0..2 {
            let before = self.refreshes();
            let refused = self.world.simulator.profile_counters(self.life.entry).api_calls_rejected;
            match self.knows_expiry().await {
                true => self.clock.advance(self.lifetime()),
                false => {
                    self.clock.advance(FORCED_PAUSE);
                    self.world.simulator.expire(self.life.entry);
                }
            }
            let answer = self.call(handle).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(self.refreshes(), before + 1);
            let refused = self.world.simulator.profile_counters(self.life.entry).api_calls_rejected - refused;
            assert_eq!(refused, u64::from(!self.knows_expiry().await), "no call is spent on what is known");
        }
    }

    /// The reply with the new token does not arrive: where the rule allows it, the same request is made again.
    async fn survives_a_lost_reply(&self, handle: &str) {
        let settings = self.settings();
        if matches!(settings.rotation, Rotation::SingleUse | Rotation::Interval) {
            return; // What is lost there is lost; `recovery` has it.
        }
        let entry = self.life.entry;
        self.world.simulator.add_fault(Fault::new(entry, Endpoint::Refresh, FaultKind::CommitThenReset).nth(1));
        let before = self.refreshes();
        self.clock.advance(FORCED_PAUSE);
        self.world.simulator.expire(entry);
        let comes_back = async {
            eventually("the connection works again", async || self.call(handle).await.status == 200).await;
        };
        while_time_passes(self.clock, comes_back).await;
        assert_eq!(self.refreshes(), before + 2, "once for nothing, and once more");
        assert_eq!(self.connection().await["state"], "active");
        self.world.simulator.clear_faults();
    }

    /// By the ledger: the rule of rotation was kept.
    fn used_no_token_twice(&self) {
        let settings = self.settings();
        let counters = self.world.simulator.profile_counters(self.life.entry);
        assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0));
        let grant = self.grant();
        let tokens = grant.refresh_tokens.len() as u64;
        match settings.rotation {
            Rotation::Static => assert_eq!(tokens, 1),
            Rotation::Interval => assert_eq!(tokens, 1, "less than a day has passed there"),
            Rotation::SingleUse => assert_eq!(tokens, 1 + counters.refreshes_ok),
            _ => assert_eq!(tokens, 1 + counters.refreshes_ok, "each refresh has given one"),
        }
        if settings.rotation == Rotation::SingleUse {
            let used: Vec<u64> = grant.refresh_tokens.iter().map(|token| token.used_count).collect();
            assert!(used.iter().rev().skip(1).all(|count| *count == 1) && used.last() == Some(&0), "{used:?}");
        }
    }

    /// Where the refresh token changes only now and then: when it does, the new one is used.
    async fn takes_a_value_that_changes_now_and_then(&self, handle: &str) {
        if self.settings().rotation != Rotation::Interval {
            return;
        }
        self.world.simulator.set(self.life.entry, |settings| settings.interval_s = 0.0);
        for values in 2..4 {
            self.clock.advance(self.lifetime());
            assert_eq!(self.call(handle).await.status, 200);
            assert_eq!(self.grant().refresh_tokens.len(), values);
        }
        let counters = self.world.simulator.profile_counters(self.life.entry);
        assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0));
    }

    /// The user takes their consent back at the provider.
    async fn notices_the_end_of_the_grant(&self, handle: &str) {
        let entry = self.life.entry;
        assert_eq!(self.world.simulator.revoke(entry), 1);
        let before = self.world.simulator.profile_counters(entry);
        let rotation = self.settings().rotation;
        if rotation == Rotation::None {
            // Nothing can be asked for, and nothing is known but that this call was refused.
            let answer = self.call(handle).await;
            assert_eq!(answer.status, 401, "{}", answer.text());
            return;
        }
        self.clock.advance(FORCED_PAUSE);
        if self.knows_expiry().await {
            self.clock.advance(self.lifetime());
        } else {
            let answer = self.call(handle).await;
            assert_eq!(answer.status, 401, "what the provider says goes through: {}", answer.text());
        }
        let answer = self.call(handle).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:sidekey:error:needs-reauth", "{problem}");
        let hint = format!("sidekey connect {entry} --subject alice");
        assert!(problem.to_string().contains(&hint), "{problem}");
        assert_eq!(self.connection().await["state"], "needs_reauth");
        let after = self.world.simulator.profile_counters(entry);
        // Where the token before the last one may be alive, that is tried too.
        let asked = match rotation {
            Rotation::Interval | Rotation::Leeway | Rotation::UntilSuccessor | Rotation::Overlap => 2,
            _ => 1,
        };
        assert_eq!(after.refreshes_rejected - before.refreshes_rejected, asked);
        assert_eq!(self.call(handle).await.status, 403);
        assert_eq!(self.world.simulator.profile_counters(entry), after, "and then no more");
    }

    async fn begins_anew(&self, handle: &str) {
        self.world.connect(self.life.entry, "alice").await;
        assert_eq!(self.connection().await["state"], "active");
        let answer = self.call(handle).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.arrived(1);
    }

    async fn is_given_back(&self, handle: &str) {
        let entry = self.life.entry;
        let body = serde_json::json!({ "provider": entry, "subject": "alice" }).to_string();
        let answer = self.world.admin("POST", "/v1/disconnect", &body).await;
        assert_eq!(answer.json()["revocation"], self.life.revocation, "{}", answer.text());
        let is_done = self.life.revocation == "done";
        assert_eq!(self.world.simulator.profile_counters(entry).revokes, u64::from(is_done));
        assert_eq!(self.grant().revoked_at_ms.is_some(), is_done);
        let refused = self.call(handle).await;
        assert_eq!((refused.status, &refused.json()["type"]), (403, &"urn:sidekey:error:not-connected".into()));
    }

    async fn call(&self, handle: &str) -> Answer {
        let (method, path) = self.life.call;
        let request = self.world.client.request(method.parse().expect("a method"), self.world.egress(path));
        let request = if method == "POST" {
            request.header("content-type", "application/json").body("{\"query\":\"{ viewer { id } }\"}")
        } else {
            request
        };
        send(request.bearer_auth(handle)).await
    }

    /// The last call was let in, at the right place, with that one of the newest grant's access tokens.
    fn arrived(&self, generation: u64) {
        let call: ApiCall = self.world.simulator.api_calls().pop().expect("a call");
        let (host, path) = self.life.arrives;
        assert_eq!((call.accepted, call.host.as_str(), call.path.as_str()), (true, host, path));
        assert_eq!((call.grant, call.generation), (Some(self.grant().id), Some(generation)));
    }

    async fn connection(&self) -> Value {
        let mut connections = self.world.connections("alice").await;
        assert_eq!(connections.len(), 1, "{connections:?}");
        connections.remove(0)
    }

    /// Whether it is known when the access token expires.
    async fn knows_expiry(&self) -> bool {
        !self.connection().await["access_expires_at"].is_null()
    }

    fn grant(&self) -> Grant {
        self.world.simulator.profile_ledger(self.life.entry).last_grant().expect("a grant").clone()
    }

    fn settings(&self) -> Settings {
        self.world.simulator.settings(self.life.entry)
    }

    fn refreshes(&self) -> u64 {
        self.world.simulator.profile_counters(self.life.entry).refreshes_ok
    }

    /// How long an access token lives.
    fn lifetime(&self) -> Duration {
        Duration::from_secs_f64(self.settings().access_lifetime_s)
    }
}

/// A Sidekey that knows this one provider, and the simulator.
async fn world(life: &Life) -> (World, ManualClock) {
    let hosts = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let options = Options { hosts, preferred: vec![life.entry.to_owned()], ..Options::default() };
    let simulator = sidekey_simulator::start(options).await.expect("a simulator");
    if let Some((rotation, lifetime)) = life.chosen {
        simulator.set(life.entry, |settings| {
            settings.rotation = rotation;
            settings.access_lifetime_s = lifetime;
        });
    }
    let settings = simulator.settings(life.entry);
    let home = tempfile::tempdir().expect("a directory");
    let [public, egress, metrics] = [free_address(), free_address(), free_address()];
    let write = |name: &str, text: &str| create_private(&home.path().join(name), text.as_bytes()).expect("written");
    write("companies.pem", simulator.hosts_authority().expect("it plays hosts"));
    write("client.secret", &settings.client_secret);
    write("sidekey.key", generate_key(&SystemRandom).expose());
    let behind = simulator.hosts_address().expect("it plays hosts");
    let resolve: String = host_names().into_iter().map(|host| format!("\"{host}\" = \"{behind}\"\n")).collect();
    write(
        "sidekey.toml",
        &format!(
            "[public]\nlisten = \"{public}\"\n[metrics]\nlisten = \"{metrics}\"\n[store]\nkeys = [\"file:sidekey.key\"]\n\
             [egress]\nlisten = \"{egress}\"\nextra_ca = \"companies.pem\"\n[egress.resolve]\n{resolve}\n\
             [providers.{}]\nclient_id = \"{}\"\nclient_secret = \"file:client.secret\"\n{}\n",
            life.entry, settings.client_id, life.lines
        ),
    );
    let config = home.path().join("sidekey.toml");
    let files = Files { home, config, public, egress, metrics };
    let settings = files.settings();
    let clock = ManualClock::at(now());
    let environment = Environment::system(&settings).expect("an environment");
    let environment = Environment { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..environment };
    let sidekey = server::start(settings, environment).await.expect("it starts");
    let client = browser(&simulator);
    (World { simulator, files, sidekey, client }, clock)
}
