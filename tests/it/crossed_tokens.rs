//! D-15: whatever happens meanwhile, nobody's call ever carries somebody else's token.
//!
//! Many users call at once over few connections, in both directions, while tokens expire, are refused, and connections end.
//! The API answers with the digest of the token that it got, and the provider's own ledger says whose that is.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sidekey::base::clock::SystemClock;
use sidekey::base::digest::sha256;
use sidekey::base::random::SystemRandom;
use sidekey::server::{self, Environment};
use sidekey::store::Store;
use sidekey::store::seal::Sealer;
use sidekey::store::sqlite::SqliteStore;
use sidekey_simulator::Options;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::client::http;
use crate::herd::record;
use crate::world::{Files, Setup, World, now, pause};

const USERS: usize = 500;
const CLIENTS: usize = 32;

/// `make crossed` asks for more.
fn calls() -> u64 {
    std::env::var("SIDEKEY_CROSSED_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(200_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobodys_call_carries_somebody_elses_token() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let api = digests().await;
    let entry = format!(
        "display_name = \"Digests\"\nchecked_on = \"2026-11-21\"\ndefault_api = \"digests\"\n\
         [authorize]\nurl = \"SIMULATOR/generic/authorize\"\npkce = \"supported\"\n\
         [token]\nurl = \"SIMULATOR/generic/token\"\nclient_authentication = [\"body\"]\n\
         [rotation]\nmodel = \"static\"\n[[api.expired]]\nstatus = 401\n[apis.digests]\norigin = \"http://{api}\"\n"
    );
    let setup = Setup { providers: vec![("digests", entry.leak(), "")], ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    let settings = files.settings();
    let sealer = Sealer::new(settings.keys.clone(), Arc::new(SystemRandom));
    let expires_at = now().plus(Duration::from_secs(3600));
    let records =
        (0..USERS).map(|user| record(&sealer, &simulator, ("generic", "digests"), user, expires_at)).collect();
    let store = SqliteStore::open(&files.data()).expect("a store");
    store.connect(records, now()).await.expect("stored");
    drop(store);
    let environment = Environment { clock: Arc::new(SystemClock), ..Environment::system(&settings).expect("one") };
    let sidekey = server::start(settings, environment).await.expect("it starts");
    let world = World { simulator, files, sidekey, client: http() };
    let mut handles = Vec::new();
    for user in 0..USERS {
        handles.push(world.handle(&format!("user-{user}")).await.1);
    }

    let (handles, remaining) = (Arc::new(handles), Arc::new(AtomicU64::new(calls())));
    let egress = world.files.egress;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(egress, number, Arc::clone(&handles), Arc::clone(&remaining))))
        .collect();
    let trouble = make_trouble(&world, &remaining).await;
    let mut seen: HashMap<usize, HashSet<String>> = HashMap::new();
    let mut refused = 0;
    for client in clients {
        let (digests, others) = client.await.expect("a client");
        refused += others;
        digests.into_iter().for_each(|(user, digest)| {
            seen.entry(user).or_default().insert(digest);
        });
    }

    let owners: HashMap<String, String> = (world.simulator.profile_ledger("generic").grants.iter())
        .flat_map(|grant| grant.access_tokens.iter().map(|token| (token.value_sha256.clone(), grant.user.clone())))
        .collect();
    let mut different = 0;
    for (user, digests) in &seen {
        different += digests.len();
        for digest in digests {
            assert_eq!(owners.get(digest), Some(&format!("user-{user}")), "a token of somebody else");
        }
    }
    println!("{} calls of {USERS} users, {different} tokens, {refused} refused, {trouble}", calls());
    assert!(seen.len() >= USERS - USERS / 20, "everybody was served who stayed: {}", seen.len());
    assert!(different > USERS + USERS / 4, "tokens changed meanwhile: {different}");
    assert!(refused < calls() / 4, "{refused}");
    world.stop().await;
}

/// Some users disconnect, until all is done.
async fn make_trouble(world: &World, remaining: &AtomicU64) -> String {
    let mut ended = 0;
    while remaining.load(Ordering::Relaxed) > 0 {
        if ended < USERS / 20 {
            let body = format!(r#"{{"provider":"digests","subject":"user-{}"}}"#, USERS - 1 - ended);
            let answer = world.admin("POST", "/v1/disconnect", &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            ended += 1;
        }
        pause(Duration::from_millis(200)).await;
    }
    format!("{ended} disconnected")
}

/// Calls as one user after the other, over one connection; who got which digest, and how many calls were refused.
async fn client(
    egress: SocketAddr,
    number: usize,
    handles: Arc<Vec<String>>,
    remaining: Arc<AtomicU64>,
) -> (HashSet<(usize, String)>, u64) {
    let mut stream = BufReader::new(TcpStream::connect(egress).await.expect("connected"));
    let (mut digests, mut refused) = (HashSet::new(), 0);
    let mut next = number * 7919;
    while remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        next += 1;
        // A step that meets everybody, in another order for each client.
        let user = (next * (2 * number + 3)) % handles.len();
        let request =
            format!("GET /digests/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", handles[user]);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (head, body) = read(&mut stream).await.expect("an answer");
        match head.split(' ').nth(1) {
            Some("200") => {
                digests.insert((user, body));
            }
            // The API's own word: a token is replaced at once, but not again and again.
            Some("401") if body.len() == 64 => refused += 1,
            // Those that disconnected.
            Some("403") if user >= handles.len() - USERS / 20 => refused += 1,
            _ => panic!("user {user}: {head}{body}"),
        }
    }
    (digests, refused)
}

/// An API that answers with the digest of its token, and calls every token expired once, when it was used so often.
async fn digests() -> SocketAddr {
    const USES: u64 = 150;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let used: Arc<dashmap::DashMap<String, u64>> = Arc::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let used = Arc::clone(&used);
            stream.set_nodelay(true).expect("set");
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some((head, _)) = read(&mut stream).await {
                    let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
                    let digest: String =
                        sha256(token.expect("a token").as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
                    let is_expired = {
                        let mut uses = used.entry(digest.clone()).or_default();
                        *uses += 1;
                        *uses == USES
                    };
                    let status = if is_expired { "401 Unauthorized" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{digest}", digest.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// One message: its head in lower-case names as both sides write them, and its body.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let begin = head.len();
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        let line = &head[begin..];
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().unwrap_or_else(|_| panic!("{name}: {value}"));
        }
        if line.len() > "authorization".len() && line[.."authorization".len()].eq_ignore_ascii_case("authorization") {
            head.replace_range(begin..begin + "authorization".len(), "authorization");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).ok()?))
}
