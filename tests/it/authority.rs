//! The local authority: what it signs, how it is kept, and how one takes another's place.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::Value;
use sidekey::authority::{Authority, AuthorityError, DIRECTORY_NAME, Outlook, Parts, bundle, outlook};
use sidekey::base::clock::{Clock, ManualClock};
use sidekey::base::digest::sha256_base64url;
use sidekey::base::random::SystemRandom;
use sidekey::base::secret::SecretKey;
use sidekey::store::keyring::KeyRing;
use sidekey::store::seal::{Context, Sealed, Sealer};

use crate::client::{http, send};
use crate::process::{Program, command, out, sidekey};
use crate::world::{Files, Setup, admin, now};

const DAY: Duration = Duration::from_hours(24);

struct Home {
    directory: tempfile::TempDir,
    clock: ManualClock,
}

fn sealer(keys: &[u8]) -> Sealer {
    let keys = keys.iter().map(|byte| SecretKey::new([*byte; 32])).collect();
    Sealer::new(KeyRing::new(keys).expect("a key"), Arc::new(SystemRandom))
}

fn names(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), clock: ManualClock::at(now()) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(DIRECTORY_NAME)
    }

    fn file(&self) -> PathBuf {
        self.path().join("authority.json")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).expect("there")
    }

    fn open_with(&self, keys: &[u8], hosts: &[&str]) -> Result<Arc<Authority>, AuthorityError> {
        Authority::open(Parts {
            directory: self.path(),
            sealer: sealer(keys),
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SystemRandom),
            hosts: names(hosts),
        })
    }

    fn open(&self, hosts: &[&str]) -> Arc<Authority> {
        self.open_with(&[1], hosts).expect("opened")
    }

    /// Why it does not open; what to do about it must be said.
    fn refused(&self, keys: &[u8], hosts: &[&str]) -> String {
        self.open_with(keys, hosts).err().expect("refused").to_string()
    }

    /// What a client that trusts `roots` sees at a host now: the leaf, or why it is refused.
    fn visit(&self, roots: &str, authority: &Authority, host: &str) -> Result<CertificateDer<'static>, String> {
        let server = authority.server_config(host).ok_or("not one of ours")?;
        handshake(client(roots, &self.clock), server, host)
    }
}

#[derive(Clone)]
struct Time(ManualClock);

impl std::fmt::Debug for Time {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(self.0.now().as_seconds()).ok()?)))
    }
}

fn client(roots: &str, clock: &ManualClock) -> Arc<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(bundle::certificates(roots).expect("PEM"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider));
    let config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())));
    let config = config.with_safe_default_protocol_versions().expect("sound");
    let mut config = config.with_webpki_verifier(verifier.build().expect("roots")).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A TLS handshake in memory: the leaf that the client has accepted, or why it went away.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    host: &str,
) -> Result<CertificateDer<'static>, String> {
    let name: ServerName<'static> = host.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(client, name).expect("sound");
    let mut server = ServerConnection::new(server).expect("sound");
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("in memory");
        }
        server.read_tls(&mut wire.as_slice()).expect("in memory");
        server.process_new_packets().map_err(|error| error.to_string())?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("in memory");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("in memory");
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    Ok(client.peer_certificates().expect("some")[0].clone())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
}

/// The key that is kept for the newest authority, in PKCS#8.
fn unsealed(file: &str, sealer: &Sealer) -> Vec<u8> {
    let content: Value = serde_json::from_str(file).expect("JSON");
    let newest = content["authorities"].as_array().and_then(|all| all.last()).expect("one");
    let digest = sha256_base64url(&serde_json::to_vec(&newest["authority"]).expect("JSON"));
    let context = Context {
        purpose: "authority",
        subject: &digest,
        provider: "",
        record: newest["authority"]["id"].as_str().expect("an id"),
        field: "intermediate_key",
        generation: 0,
    };
    let sealed = STANDARD.decode(newest["sealed_key"].as_str().expect("a key")).expect("base64");
    let key = sealer.open(&context, &Sealed::from_bytes(sealed)).expect("it opens");
    STANDARD.decode(key.expose()).expect("base64")
}

/// Wherever a private key could show: as it is, in base64, in hexadecimal, its secret number alone, and a word.
fn assert_free_of(key: &[u8], place: &str, content: &[u8]) {
    // PKCS#8 of P-256: the number is the octet string of 32 bytes in the inner structure.
    let number = &key[36..68];
    let mut traces = vec![key.to_vec(), number.to_vec(), b"PRIVATE KEY".to_vec()];
    for part in [key, number] {
        traces.push(STANDARD.encode(part).into_bytes());
        traces.push(part.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
    }
    for trace in traces {
        let found = content.windows(trace.len()).any(|window| window == trace);
        assert!(!found, "{place} holds the key");
    }
}

/// F-12
#[test]
fn the_key_is_sealed_in_private_files() {
    let home = Home::new();
    let authority = home.open(&["api.one.example"]);
    assert_eq!(mode(&home.path()), 0o700);
    let key = unsealed(&home.text(), &sealer(&[1]));
    assert_eq!(key[..3], [0x30, 0x81, 0x87], "it is a key in PKCS#8");
    let mut files = 0;
    for entry in std::fs::read_dir(home.path()).expect("there") {
        let path = entry.expect("there").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        assert_free_of(&key, &path.display().to_string(), &std::fs::read(&path).expect("there"));
        files += 1;
    }
    assert_eq!(files, 2, "the authority and its lock");
    assert_free_of(&key, "the bundle", authority.bundle().as_bytes());
}

/// F-12
#[test]
fn what_others_may_read_or_has_been_changed_is_refused_with_the_remedy() {
    let home = Home::new();
    let hosts = ["api.one.example"];
    let bundle = home.open(&hosts).bundle();
    let (file, sound) = (home.file(), home.text());

    chmod(&file, 0o640);
    assert!(home.refused(&[1], &hosts).ends_with(&format!("to mend it: chmod 600 {}", file.display())));
    chmod(&file, 0o600);
    chmod(&home.path(), 0o755);
    assert!(home.refused(&[1], &hosts).ends_with(&format!("to mend it: chmod 700 {}", home.path().display())));
    chmod(&home.path(), 0o700);

    let other = Home::new();
    other.open(&hosts);
    let part = |text: &str, key: &str| {
        let content: Value = serde_json::from_str(text).expect("JSON");
        content["authorities"][0]["authority"][key].to_string()
    };
    let changed = [
        sound.replace(&part(&sound, "root"), &part(&other.text(), "root")),
        sound.replace(&part(&sound, "intermediate"), &part(&other.text(), "intermediate")),
        sound.replace("api.one.example", "api.two.example"),
        sound.replace("\"replaced_at\": null", "\"replaced_at\": 1"),
        sound[..sound.len() / 2].to_owned(),
        String::new(),
    ];
    for changed in changed {
        assert_ne!(changed, sound);
        std::fs::write(&file, &changed).expect("written");
        let why = home.refused(&[1], &hosts);
        assert!(why.contains("is damaged") && why.contains("Restore the file from a backup"), "{why}");
    }
    std::fs::write(&file, &sound).expect("written");
    let closed = home.open_with(&[2], &hosts).expect("closed");
    let why = closed.missing_key().expect("one").to_string();
    assert!(why.contains("which is not in store.keys. Put it back") && why.contains("remove the file"), "{why}");
    assert!(closed.server_config(hosts[0]).is_none() && closed.tend().is_err());
    assert_eq!(home.open(&hosts).bundle(), bundle, "nothing was changed by any of these");
}

#[test]
fn a_new_sealing_key_takes_over_when_it_is_first_in_line() {
    let home = Home::new();
    let bundle = home.open(&["api.one.example"]).bundle();
    assert_eq!(home.open_with(&[2, 1], &["api.one.example"]).expect("opened").bundle(), bundle);
    assert_eq!(home.open_with(&[2], &["api.one.example"]).expect("the old key is needed no more").bundle(), bundle);
}

/// F-11
#[test]
fn hostile_names_get_no_certificate() {
    let home = Home::new();
    let authority = home.open(&["api.one.example", "*.shop.example"]);
    let long = format!("{}.shop.example", "a".repeat(65_536));
    let deep = format!("{}shop.example", "a.".repeat(130));
    let hostile = [
        "",
        ".",
        "*",
        "*.shop.example",
        "*.one.example",
        "api.one.example.",
        "api.one.example\0",
        "\0.shop.example",
        "a\0.shop.example",
        "😀.shop.example",
        "xn--.shop.example\r\n",
        "a b.shop.example",
        "a/../b.shop.example",
        ".shop.example",
        "-.shop.example",
        "shop.example",
        "one.example",
        "b.api.one.example",
        "127.0.0.1",
        "::1",
        "api.two.example",
        "api.one.example:443",
        "api.one.example@evil.example",
        &long,
        &deep,
    ];
    for name in hostile {
        assert!(authority.server_config(name).is_none(), "{:?}", &name[..name.len().min(60)]);
    }
    for name in ["api.one.example", "API.One.Example", "a.shop.example", "xn--4ca.shop.example"] {
        assert!(authority.server_config(name).is_some(), "{name}");
    }
}

/// F-14
#[test]
fn of_ten_thousand_names_at_once_few_are_made_and_named_hosts_are_not_crowded_out() {
    let home = Home::new();
    let authority = home.open(&["api.one.example", "*.shop.example"]);
    let named = authority.server_config("api.one.example").expect("ours");
    let made = |round: u32| {
        let hosts = (0..10_000).map(|number| format!("s{number}r{round}.shop.example"));
        hosts.filter(|host| authority.server_config(host).is_some()).count()
    };
    assert_eq!(made(0), 240);
    assert!(Arc::ptr_eq(&named, &authority.server_config("api.one.example").expect("ours")));
    let known = authority.server_config("s1r0.shop.example").expect("what was made is kept");
    home.clock.advance(Duration::from_secs(15));
    assert_eq!(made(1), 60, "as many as fifteen seconds allow");
    for round in 2..12 {
        home.clock.advance(Duration::from_secs(60));
        assert_eq!(made(round), 240);
    }
    assert!(Arc::ptr_eq(&named, &authority.server_config("api.one.example").expect("ours")));
    home.clock.advance(Duration::from_secs(60));
    let again = authority.server_config("s1r0.shop.example").expect("made again");
    assert!(!Arc::ptr_eq(&known, &again), "the least used ones are dropped");
}

/// F-14
#[test]
fn many_who_ask_for_one_host_at_once_share_one_certificate() {
    let home = Home::new();
    let authority = home.open(&["api.one.example", "*.shop.example"]);
    for host in ["api.one.example", "a.shop.example"] {
        let configs: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| authority.server_config(host).expect("ours"))).collect();
            asked.into_iter().map(|thread| thread.join().expect("asked")).collect()
        });
        assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])), "{host}");
    }
}

#[test]
fn a_certificate_is_short_lived_and_made_anew_before_it_ends() {
    let home = Home::new();
    let authority = home.open(&["api.one.example"]);
    let roots = authority.bundle();
    let first = home.visit(&roots, &authority, "api.one.example").expect("trusted");
    assert_eq!(home.visit(&roots, &authority, "api.one.example").expect("trusted"), first);
    let kept = authority.server_config("api.one.example").expect("ours");
    for _ in 0..20 {
        home.clock.advance(DAY);
        home.visit(&roots, &authority, "api.one.example").expect("trusted");
    }
    let refused = handshake(client(&roots, &home.clock), kept, "api.one.example").expect_err("it has ended");
    assert!(refused.contains("expired"), "{refused}");
    assert_ne!(home.visit(&roots, &authority, "api.one.example").expect("trusted"), first);
}

/// F-13
#[test]
fn a_host_outside_the_constraints_means_another_authority_beside_the_former_one() {
    let home = Home::new();
    let before = home.open(&["api.one.example"]);
    let old_bundle = before.bundle();
    assert_eq!(before.notice(), None);

    let authority = home.open(&["api.one.example", "api.two.example"]);
    let bundle = authority.bundle();
    assert!(bundle.starts_with(&old_bundle) && bundle.matches("BEGIN").count() == 2);
    let notice = authority.notice().expect("clients must know");
    assert_eq!(notice.hosts, names(&["api.two.example"]));
    assert_eq!(notice.until, home.clock.now().plus(30 * DAY));
    let still_valid = |roots: &str| home.visit(roots, &authority, "api.one.example").map(drop);
    // All through the overlap, also in a process that is started meanwhile.
    for _ in 0..29 {
        assert_eq!((still_valid(&old_bundle), still_valid(&bundle)), (Ok(()), Ok(())));
        home.visit(&bundle, &authority, "api.two.example").expect("trusted");
        let refused = home.visit(&old_bundle, &authority, "api.two.example").expect_err("not trusted");
        assert!(refused.contains("UnknownIssuer"), "{refused}");
        authority.tend().expect("tended");
        home.clock.advance(DAY);
    }
    assert_eq!(home.open(&["api.one.example", "api.two.example"]).bundle(), bundle);

    let former = authority.roots()[0].id.clone();
    assert!(home.text().contains(&former));
    home.clock.advance(DAY);
    // At once, whether it was tended or not.
    let new_bundle = authority.bundle();
    assert_eq!(format!("{old_bundle}{new_bundle}"), bundle);
    for host in ["api.one.example", "api.two.example"] {
        home.visit(&new_bundle, &authority, host).expect("trusted");
        assert!(home.visit(&old_bundle, &authority, host).is_err(), "{host}");
    }
    assert_eq!(authority.notice(), None);
    authority.tend().expect("tended");
    assert!(!home.text().contains(&former), "its key is destroyed");
    assert_eq!(home.open(&["api.one.example", "api.two.example"]).bundle(), new_bundle);
}

/// F-13
#[test]
fn nothing_is_replaced_without_need() {
    let home = Home::new();
    let bundle = home.open(&["api.one.example", "*.shop.example"]).bundle();
    for hosts in [&["api.one.example"][..], &["a.shop.example"], &["v2.api.one.example", "*.b.shop.example"], &[]] {
        let authority = home.open(hosts);
        assert_eq!((authority.bundle(), authority.notice()), (bundle.clone(), None), "{hosts:?}");
    }
    assert!(home.open(&["a.shop.example"]).server_config("api.one.example").is_none(), "it is not listed anymore");
}

/// F-13
#[test]
fn an_authority_that_ends_soon_is_replaced_while_it_is_still_good() {
    let home = Home::new();
    let authority = home.open(&["api.one.example"]);
    let old_bundle = authority.bundle();
    home.clock.advance(3559 * DAY);
    authority.tend().expect("tended");
    assert_eq!(authority.bundle(), old_bundle);
    home.clock.advance(DAY);
    authority.tend().expect("tended");
    assert_eq!(authority.bundle().matches("BEGIN").count(), 2);
    home.visit(&old_bundle, &authority, "api.one.example").expect("trusted");
    assert_eq!(authority.notice().expect("clients must know").hosts, BTreeSet::new());
}

/// F-13
#[test]
fn processes_that_start_together_on_one_directory_have_one_authority() {
    let home = Home::new();
    let bundles: BTreeSet<String> = std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| home.open(&["api.one.example"]).bundle())).collect();
        opened.into_iter().map(|thread| thread.join().expect("opened")).collect()
    });
    assert_eq!(bundles.len(), 1);
}

/// F-13: two that have different hosts do not take turns in replacing each other's authority.
#[test]
fn a_process_takes_over_what_another_one_has_made() {
    let home = Home::new();
    let one = home.open(&["api.one.example"]);
    let two = home.open(&["api.two.example"]);
    for _ in 0..10 {
        one.tend().expect("tended");
        two.tend().expect("tended");
        home.clock.advance(DAY);
    }
    assert_eq!(one.bundle(), two.bundle());
    assert_eq!(one.bundle().matches("BEGIN").count(), 2);
}

#[test]
fn without_a_host_nothing_is_made() {
    let home = Home::new();
    let authority = home.open(&[]);
    assert_eq!((authority.bundle(), authority.notice(), home.path().exists()), (String::new(), None, false));
    authority.tend().expect("nothing to do");
    let ahead = outlook(&home.path(), &sealer(&[1]), &names(&["api.one.example"]), now());
    assert_eq!(ahead.expect("looked"), Outlook::First);
    assert!(!home.path().exists(), "looking makes nothing");
}

#[test]
fn a_disk_that_takes_nothing_is_no_reason_not_to_start() {
    let home = Home::new();
    let obstacle = home.path().join("lock");
    std::fs::create_dir_all(&obstacle).expect("made");
    chmod(&home.path(), 0o700);
    let authority = home.open(&["api.one.example"]);
    assert!(authority.server_config("api.one.example").is_none());
    std::fs::remove_dir(&obstacle).expect("removed");
    authority.tend().expect("made up for");
    let bundle = authority.bundle();
    home.visit(&bundle, &authority, "api.one.example").expect("trusted");

    // What is there is used on; what could not be stored is not used, since nobody would know it after a restart.
    let obstacle = home.path().join("authority.json.new");
    std::fs::create_dir(&obstacle).expect("made");
    let authority = home.open(&["api.one.example", "api.two.example"]);
    assert_eq!(authority.bundle(), bundle);
    home.visit(&bundle, &authority, "api.one.example").expect("trusted");
    assert!(authority.server_config("api.two.example").is_none());
    assert!(authority.tend().is_err());
    std::fs::remove_dir(&obstacle).expect("removed");
    authority.tend().expect("made up for");
    home.visit(&authority.bundle(), &authority, "api.two.example").expect("trusted");
}

/// A provider at hosts with names; the others are at an address.
fn named_provider() -> Setup {
    Setup { providers: vec![("acme", "extends = \"github\"\n", "")], ..Setup::default() }
}

fn config(files: &Files) -> String {
    files.config.to_str().expect("text").to_owned()
}

/// F-12
#[tokio::test]
async fn the_certificate_is_given_out_and_the_key_nowhere() {
    let setup = Setup { tables: "[logging]\nlevel = \"trace\"\n".to_owned(), ..named_provider() };
    let files = Files::write("http://127.0.0.1:9", &setup);
    let log = files.home.path().join("log");
    let stderr = Stdio::from(std::fs::File::create(&log).expect("made"));
    let mut running = Program::start(files, &[], stderr).await;
    let settings = running.files.settings();
    let answer = admin(&settings.admin_socket, "GET", "/v1/ca", "").await;
    let ca = answer.json();
    let pem = ca["certificates_pem"].as_str().expect("text").to_owned();
    let hosts: BTreeSet<String> = serde_json::from_value(ca["hosts"].clone()).expect("a list");
    assert!(hosts.contains("api.github.com"), "{hosts:?}");
    assert_eq!(bundle::certificates(&pem).expect("PEM").len(), 1);

    let kept = std::fs::read_to_string(running.files.data().join("authority/authority.json")).expect("made");
    let key = unsealed(&kept, &Sealer::new(settings.keys.clone(), Arc::new(SystemRandom)));
    let file = |name: &str| running.files.home.path().join(name).to_str().expect("text").to_owned();
    for format in ["pem", "der", "pkcs12"] {
        let (config, path) = (config(&running.files), file(format));
        out(&sidekey(&["ca", "export", "--format", format, "--out", &path, "--config", &config]).await);
        assert_eq!(mode(Path::new(&path)), 0o644, "everybody may read it");
        assert_free_of(&key, format, &std::fs::read(&path).expect("written"));
    }
    assert_eq!(std::fs::read_to_string(file("pem")).expect("text"), pem);
    assert_eq!(
        vec![CertificateDer::from(std::fs::read(file("der")).expect("there"))],
        bundle::certificates(&pem).expect("PEM")
    );
    for listener in [running.files.public, running.files.egress, running.files.metrics] {
        for path in [
            "/authority.json",
            "/authority/authority.json",
            "/v1/ca",
            "/.well-known/sidekey/authority.json",
            "/../data/authority/authority.json",
        ] {
            let answer = send(http().get(format!("http://{listener}{path}"))).await;
            assert_free_of(&key, path, answer.text().as_bytes());
        }
    }
    running.signal(rustix::process::Signal::TERM).await;
    let log = std::fs::read(log).expect("written");
    assert!(String::from_utf8_lossy(&log).contains("a new local authority was made"), "it is said");
    assert_free_of(&key, "the log", &log);
    assert_free_of(&key, "the answer of the socket", answer.text().as_bytes());
}

#[tokio::test]
async fn it_is_exported_without_a_server_too_in_every_form() {
    let files = Files::write("http://127.0.0.1:9", &named_provider());
    let config = config(&files);
    let pem = out(&sidekey(&["ca", "export", "--config", &config]).await);
    let text = files.home.path().join("ca.pem");
    std::fs::write(&text, &pem).expect("written");
    let shown = command_line(
        "openssl",
        &["x509", "-in", text.to_str().expect("text"), "-noout", "-ext", "nameConstraints,keyUsage,basicConstraints"],
    )
    .await;
    for expected in [
        "Name Constraints: critical",
        "DNS:api.github.com",
        "IP:0.0.0.0/0.0.0.0",
        "CA:TRUE, pathlen:1",
        "Certificate Sign",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let all = out(&sidekey(&["ca", "export", "--with-system-roots", "--config", &config]).await);
    assert!(all.starts_with(&pem) && all.matches("BEGIN").count() > 20);

    let store = files.home.path().join("trust.p12");
    let store = store.to_str().expect("text");
    out(&sidekey(&["ca", "export", "--format", "pkcs12", "--out", store, "--config", &config]).await);
    let listed = command_line("keytool", &["-list", "-keystore", store, "-storepass", "changeit"]).await;
    let trusted = listed.matches("trustedCertEntry").count();
    assert_eq!(trusted, all.matches("BEGIN").count(), "{listed}");
    let show = out(&sidekey(&["ca", "show", "--config", &config]).await);
    let fingerprint = show.split("sha256 ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("there");
    let pairs = fingerprint.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
    assert!(listed.contains(&pairs.collect::<Vec<_>>().join(":")), "{fingerprint}: {listed}");

    let wrong = sidekey(&["ca", "export", "--format", "der", "--with-system-roots", "--config", &config]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

async fn command_line(program: &str, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new(program).args(arguments).env_remove("JAVA_TOOL_OPTIONS").output().await;
    let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test (`make setup`): {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// F-12: as with everything that is sealed, no other key takes over unasked.
#[tokio::test]
async fn a_lost_key_is_named_and_can_be_given_up() {
    let files = Files::write("http://127.0.0.1:9", &named_provider());
    let config = config(&files);
    let bundle = out(&sidekey(&["ca", "export", "--config", &config]).await);
    let key = files.home.path().join("sidekey.key");
    let good = std::fs::read(&key).expect("there");
    std::fs::write(&key, out(&sidekey(&["keys", "generate"]).await)).expect("written");
    let expected = "which is not in store.keys. Put it back, or, if it is gone for good, remove the file";
    for arguments in [&["serve"][..], &["ca", "export"]] {
        let refused = sidekey(&[arguments, &["--config", &config]].concat()).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(expected), "{said}");
    }
    let said = out(&sidekey(&["ca", "show", "--config", &config]).await);
    let id = said.split("sealed with key ").nth(1).and_then(|rest| rest.split(',').next()).expect("its id");
    let settings = std::fs::read_to_string(&files.config).expect("there");
    let given_up = settings.replacen("[store]\n", &format!("[store]\nlost_keys = [\"{id}\"]\n"), 1);
    std::fs::write(&files.config, given_up).expect("written");
    let mut running = Program::start(files, &[], Stdio::null()).await;
    assert_eq!(sidekey(&["ca", "export", "--config", &config]).await.status.code(), Some(1));
    running.signal(rustix::process::Signal::TERM).await;

    std::fs::write(&key, good).expect("written");
    let back = out(&sidekey(&["ca", "export", "--config", &config]).await);
    assert_eq!(back, bundle, "with the key back, all is there");
}

/// F-13: before it is done, and after.
#[tokio::test]
async fn clients_that_need_another_bundle_are_announced() {
    let files = Files::write("http://127.0.0.1:9", &named_provider());
    let config = config(&files);
    assert!(!out(&sidekey(&["check", &config]).await).contains("note:"));
    let before = out(&sidekey(&["ca", "export", "--config", &config]).await);
    assert!(!out(&sidekey(&["check", &config]).await).contains("note:"));

    let entry = "extends = \"github\"\n[apis.github]\norigin = \"https://api.other.example\"\n";
    std::fs::write(files.home.path().join("providers/acme.toml"), entry).expect("written");
    let said = out(&sidekey(&["check", &config]).await);
    let expected = "note: the local authority may not stand for api.other.example; the next start makes a new one, and all clients must take its bundle";
    assert!(said.contains(expected), "{said}");

    let output = command(&["ca", "export", "--config", &config]).output().await.expect("it runs");
    assert!(out(&output).starts_with(&before));
    let said = out(&sidekey(&["check", &config]).await);
    assert!(said.contains("note: the local authority was replaced: all clients must take the new bundle"), "{said}");
    assert!(said.contains("those with the former one cannot reach api.other.example"), "{said}");
}
