//! Many users compete for few child processes: fairly, never more than there may be, and nothing of one reaches another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};
use sidekey::base::clock::{Clock, ManualClock, SystemClock};
use sidekey::base::random::SystemRandom;
use sidekey::bridge::Bridge;
use sidekey::bridge::children::Processes;
use sidekey::issuer::{Called, LiveGrant};
use sidekey::model::authorization::{Authorization, User};
use sidekey::model::grant::Grant;
use sidekey::model::handle;
use sidekey::model::server::McpServer;
use sidekey::server::{Environment, World};
use tokio::task::JoinHandle;

use crate::world::{Files, Setup, eventually, now, pause};

const SUBJECTS: usize = 200;
const AT_A_TIME: usize = 20;
const CALLS_EACH: usize = 2;

/// Answers every tool call with all that it was ever asked, and the handle that it has. In the language that starts fastest.
const SERVER: &str = r#"
heard=
while IFS= read -r line; do
    id=${line#*'"id":'}; id=${id%%,*}
    case $line in
    *'"method":"initialize"'*) answer='"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}' ;;
    *'"method":"tools/call"'*)
        who=${line#*'"who":"'}; heard="$heard ${who%%'"'*}"
        answer='"result":{"content":[{"type":"text","text":"'"$heard|$HTTPS_PROXY"'"}]}' ;;
    *'"id":'*) answer='"error":{"code":-32601,"message":"unknown"}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$answer"
done
"#;

/// Introduces itself, and answers nothing that it is asked.
const SILENT: &str = r#"
while IFS= read -r line; do
    id=${line#*'"id":'}; id=${id%%,*}
    case $line in
    *discover*) answer='"error":{"code":-32601,"message":""}' ;;
    *'"initialize"'*) answer='"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1"}}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$answer"
done
"#;

struct Crowd {
    bridge: Arc<Bridge>,
    server: Arc<McpServer>,
}

impl Crowd {
    /// Asks as this user; what the child has heard, and its handle.
    async fn ask(&self, grant: &Arc<LiveGrant>) -> Result<(Vec<String>, String), String> {
        let who = grant.grant.authorization.user.subject.to_string();
        let params = json!({
            "name": "heard",
            "arguments": { "who": who },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let called = Called { grant: Arc::clone(grant), server: Arc::clone(&self.server) };
        let request = http::Request::post("/")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "heard")
            .extension(called);
        let answer = self.bridge.call(request.body(Body::from(body.to_string())).expect("a request")).await;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("read");
        let text = String::from_utf8_lossy(&body).into_owned();
        if status != 200 {
            return Err(format!("{status}: {text}"));
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(said) = answer["result"]["content"][0]["text"].as_str() else {
            return Err(format!("{status}: {text}"));
        };
        let (heard, handle) = said.split_once('|').expect("two parts");
        Ok((heard.split_whitespace().map(str::to_owned).collect(), handle.to_owned()))
    }

    /// Asks as the user of this number, meanwhile.
    fn asking(self: &Arc<Self>, number: usize) -> JoinHandle<Result<(Vec<String>, String), String>> {
        let crowd = Arc::clone(self);
        tokio::spawn(async move { crowd.ask(&crowd.grant(number)).await })
    }

    /// Listens in a session; what comes, once the stream has ended.
    fn listening(self: &Arc<Self>, number: usize) -> JoinHandle<axum::body::Bytes> {
        let called = Called { grant: self.grant(number), server: Arc::clone(&self.server) };
        let request = http::Request::get("/").header("accept", "text/event-stream").header("mcp-session-id", "s");
        let request = request.extension(called).body(Body::empty()).expect("a request");
        let bridge = Arc::clone(&self.bridge);
        tokio::spawn(async move {
            let answer = bridge.call(request).await;
            assert_eq!(answer.status(), 200);
            axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("ended as bodies end")
        })
    }

    fn grant(&self, number: usize) -> Arc<LiveGrant> {
        let grant = Grant {
            id: format!("g_{number}"),
            authorization: Authorization {
                user: User { subject: format!("user-{number}").parse().expect("a subject"), account: None },
                client_id: "client".to_owned(),
                client_name: "A client".to_owned(),
                server: self.server.name.clone(),
                resource: self.server.resource.clone(),
                scopes: self.server.scopes.clone(),
                providers: self.server.providers.clone(),
                labels: BTreeMap::new(),
            },
            created_at: now(),
            expires_at: now().plus(Duration::from_secs(3600)),
            ended: None,
        };
        Arc::new(LiveGrant::new(grant, handle::generate(&SystemRandom)))
    }
}

/// The files of a Sidekey whose server answers nothing.
fn silent(children: &str) -> Files {
    let command = serde_json::to_string(SILENT).expect("text");
    let tables = format!(
        "[issuer]\nidentity = \"notion\"\n[servers.hub]\nproviders = [\"notion\"]\ncommand = [\"sh\", \"-c\", {command}]\n\
         [servers.hub.children]\n{children}\n"
    );
    Files::write("http://127.0.0.1:1", &Setup { tables, ..Setup::default() })
}

/// What the files say, by this clock.
async fn compose(files: &Files, clock: Arc<dyn Clock>) -> (World, Arc<Processes>, Arc<Crowd>) {
    let settings = files.settings();
    let system = Environment::system(&settings).expect("an environment");
    let environment = Environment { sidekey: env!("CARGO_BIN_EXE_sidekey").into(), clock, ..system };
    let world = World::compose(&settings, environment).await.expect("composed");
    let children = world.children.clone().expect("there is a stdio server");
    world.reach_egress_at(files.egress);
    let bridge = world.bridge.clone().expect("there is a stdio server");
    let server = settings.issuer.servers.values().next().expect("one").clone();
    (world, children, Arc::new(Crowd { bridge, server }))
}

/// What the files say now instead of what they said before.
fn reload(files: &Files, before: &World, from: &str, to: &str) -> World {
    let text = std::fs::read_to_string(&files.config).expect("there");
    assert!(text.contains(from), "{text}");
    std::fs::write(&files.config, text.replace(from, to)).expect("written");
    let next = before.under(&files.settings()).expect("good");
    before.retire(&next);
    next
}

/// Lets time pass until something is so; how much it was. It passes by the second, as it does for those who look after
/// children.
async fn time_until(clock: &ManualClock, mut asked: impl FnMut() -> bool) -> Duration {
    let begun = clock.now();
    while !asked() {
        let passed = clock.now().since(begun);
        assert!(passed < Duration::from_secs(300), "nothing happened for {passed:?}");
        clock.advance(Duration::from_secs(1));
        pause(Duration::from_millis(20)).await;
    }
    clock.now().since(begun)
}

/// How long a child may take for what it was asked, and until somebody has noticed.
const FINISH: std::ops::Range<Duration> = Duration::from_secs(60)..Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_users_share_twenty_places_and_nothing_else() {
    let command = serde_json::to_string(SERVER).expect("text");
    let tables = format!(
        "[issuer]\nidentity = \"notion\"\n[servers.hub]\nproviders = [\"notion\"]\ncommand = [\"sh\", \"-c\", {command}]\n\
         [servers.hub.children]\nmax = {AT_A_TIME}\nqueue_timeout = \"4m\"\nstop_grace = \"2s\"\n"
    );
    let files = Files::write("http://127.0.0.1:1", &Setup { tables, ..Setup::default() });
    let (_world, children, crowd) = compose(&files, Arc::new(SystemClock)).await;
    let keeper = tokio::spawn(Arc::clone(&children).look_after());

    // Never more than there may be, as often as one looks.
    let (done, watched) = (Arc::new(AtomicBool::new(false)), Arc::clone(&children));
    let watcher = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(watched.status().len());
                pause(Duration::from_millis(5)).await;
            }
            most
        }
    });
    // One of them never stops asking: it must not keep its place from others.
    let greedy = tokio::spawn({
        let (crowd, done) = (Arc::clone(&crowd), Arc::clone(&done));
        async move {
            let grant = crowd.grant(SUBJECTS);
            while !done.load(Ordering::Relaxed) {
                let (one, two) = tokio::join!(crowd.ask(&grant), crowd.ask(&grant));
                one.and(two).expect("answered");
            }
        }
    });
    let users: Vec<_> = (0..SUBJECTS)
        .map(|number| {
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move {
                let (grant, begun) = (crowd.grant(number), SystemClock.now());
                let mut answers = Vec::new();
                for _ in 0..CALLS_EACH {
                    answers.push(crowd.ask(&grant).await.expect("answered"));
                }
                (number, answers, SystemClock.now().since(begun))
            })
        })
        .collect();
    let mut owners: HashMap<String, usize> = HashMap::new();
    let mut times = Vec::new();
    for user in users {
        let (number, answers, took) = user.await.expect("no panic");
        times.push(took);
        for (heard, handle) in answers {
            assert!(
                heard.iter().all(|who| *who == format!("user-{number}")),
                "user-{number} shares a child: {heard:?}"
            );
            let owner = *owners.entry(handle).or_insert(number);
            assert_eq!(owner, number, "a handle was handed to two users");
        }
    }
    done.store(true, Ordering::Relaxed);
    greedy.await.expect("no panic");
    let most = watcher.await.expect("no panic");
    assert!((AT_A_TIME / 2..=AT_A_TIME).contains(&most), "{most} at a time");
    // Whoever came first was served first: nobody waited for as long as all together took several times over.
    times.sort();
    let (median, longest) = (times[SUBJECTS / 2], times[SUBJECTS - 1]);
    assert!(longest <= median * 4 + Duration::from_secs(2), "half within {median:?}, the last after {longest:?}");
    keeper.abort();
    children.stop().await;
    assert!(children.status().is_empty());
}

/// Where there is no room in time, that is said, with when to try again.
#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_room_is_told_when_to_come_back() {
    let files = silent("max = 1\nqueue_timeout = \"100ms\"\nstop_grace = \"2s\"");
    let (_world, children, crowd) = compose(&files, Arc::new(SystemClock)).await;
    let first = crowd.asking(1);
    eventually("the first has the place", async || children.status().iter().any(|child| child.requests == 1)).await;
    let refused = crowd.ask(&crowd.grant(2)).await.expect_err("no room");
    assert!(refused.starts_with("503") && refused.contains("urn:sidekey:error:server-busy"), "{refused}");
    children.stop().await;
    let ended = first.await.expect("no panic").expect_err("it ended");
    assert!(ended.starts_with("200") && ended.contains("urn:sidekey:error:server-ended"), "{ended}");
    let late = crowd.ask(&crowd.grant(3)).await.expect_err("no more");
    assert!(late.starts_with("503") && late.contains("urn:sidekey:error:stopping"), "{late}");
}

/// What is never answered keeps no place from others.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_gets_an_answer_makes_room_all_the_same() {
    let files = silent("max = 1\nqueue_timeout = \"10m\"");
    let clock = ManualClock::at(now());
    let (_world, children, crowd) = compose(&files, Arc::new(clock.clone())).await;
    let keeper = tokio::spawn(Arc::clone(&children).look_after());
    let first = crowd.asking(1);
    let is_served =
        |user: &str| children.status().iter().any(|child| child.subject.to_string() == user && child.requests == 1);
    eventually("the first has the place", async || is_served("user-1")).await;
    let second = crowd.asking(2);
    let took = time_until(&clock, || first.is_finished()).await;
    assert!(FINISH.contains(&took), "{took:?}");
    let ended = first.await.expect("no panic").expect_err("it ended");
    assert!(ended.starts_with("200") && ended.contains("urn:sidekey:error:server-ended"), "{ended}");
    eventually("the second has the place", async || is_served("user-2")).await;
    keeper.abort();
    children.stop().await;
    second.await.expect("no panic").expect_err("it ended");
}

/// Those that are to go have their places until they are gone, whatever the settings are by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_makes_no_room_for_more_than_there_may_be() {
    let files = silent("max = 2\nqueue_timeout = \"10m\"\nstrict = false");
    let clock = ManualClock::at(now());
    let (world, children, crowd) = compose(&files, Arc::new(clock.clone())).await;
    let asked = [crowd.asking(1), crowd.asking(2)];
    let serving = |children: &Processes| children.status().iter().filter(|child| child.requests == 1).count();
    eventually("both are asked", async || serving(&children) == 2).await;
    let next = reload(
        &files,
        &world,
        "max = 2\nqueue_timeout = \"10m\"\nstrict = false",
        "max = 1\nqueue_timeout = \"10m\"\nstrict = true",
    );
    let children = next.children.clone().expect("there is a stdio server");
    let keeper = tokio::spawn(Arc::clone(&children).look_after());
    let bridge = next.bridge.clone().expect("there is a stdio server");
    let crowd =
        Arc::new(Crowd { bridge, server: files.settings().issuer.servers.values().next().expect("one").clone() });
    let waiting = [crowd.asking(3), crowd.asking(4)];
    let mut most = 0;
    time_until(&clock, || {
        most = most.max(children.status().len());
        asked.iter().all(JoinHandle::is_finished) && serving(&children) == 1
    })
    .await;
    assert_eq!(most, 2, "of whatever settings");
    // Of the two places one is no more.
    assert_eq!(children.status().len(), 1, "{:?}", children.status());
    keeper.abort();
    children.stop().await;
    for ended in asked.into_iter().chain(waiting) {
        ended.await.expect("no panic").expect_err("it ended");
    }
}

/// What is never answered keeps no rights that were taken away, and nobody listens to a server that is no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_gets_an_answer_does_not_outlive_a_reload_for_long() {
    let files = silent("strict = false");
    let clock = ManualClock::at(now());
    let (world, children, crowd) = compose(&files, Arc::new(clock.clone())).await;
    let keeper = tokio::spawn(Arc::clone(&children).look_after());
    let (asked, listening) = (crowd.asking(1), crowd.listening(1));
    eventually("it is asked", async || children.status().iter().any(|child| child.requests == 1)).await;
    let strict = reload(&files, &world, "strict = false", "strict = true");
    keeper.abort();
    let children = strict.children.clone().expect("there is a stdio server");
    let keeper = tokio::spawn(Arc::clone(&children).look_after());
    let took = time_until(&clock, || asked.is_finished()).await;
    assert!(FINISH.contains(&took), "{took:?}");
    let ended = asked.await.expect("no panic").expect_err("it ended");
    assert!(ended.contains("urn:sidekey:error:server-ended"), "{ended}");
    eventually("it is gone", async || children.status().is_empty()).await;
    assert!(!listening.is_finished(), "its server is still there");
    // By its name in the configuration it is another one.
    let _none = reload(&files, &strict, "[servers.hub", "[servers.other");
    eventually("the stream has ended", async || listening.is_finished()).await;
    assert!(listening.await.expect("no panic").starts_with(b":"));
    keeper.abort();
    children.stop().await;
}
