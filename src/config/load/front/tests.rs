use std::path::Path;
use std::time::Duration;

use crate::base::jws::generate_p256;
use crate::config::load::load_text;
use crate::config::settings::Settings;
use crate::model::issuer_settings::AccessTokenFormat;
use crate::model::server::Upstream;

const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const HEAD: &str =
    "[store]\nkeys = ['env:KEY']\n[providers.notion]\nclient_id = 'x'\n[providers.github]\nclient_id = 'x'\n";
const SERVER: &str = "[servers.notes]\nupstream = 'http://127.0.0.1:3000/mcp'\n";

fn settings(text: &str) -> Result<Settings, Vec<String>> {
    let pem = generate_p256().expect("a key");
    let environment = move |name: &str| match name {
        "KEY" => Some(KEY.to_owned()),
        "PEM" => Some(pem.expose().to_owned()),
        "JUNK" => Some("junk".to_owned()),
        _ => None,
    };
    let text = format!("{HEAD}{text}");
    load_text(Path::new("sidekey.toml"), &text, &environment)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The one problem of a configuration, without its place.
fn problem(text: &str) -> String {
    let problems = settings(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].split_once(": ").expect("its place").1.to_owned()
}

#[test]
fn a_server_needs_little() {
    let settings = settings(&format!("[issuer]\nidentity = 'notion'\n{SERVER}")).expect("valid");
    let server = settings.issuer.servers.values().next().expect("one");
    assert_eq!((server.path.as_str(), server.resource.as_str()), ("/notes/mcp", "http://127.0.0.1:8700/notes/mcp"));
    assert_eq!(server.handle.before, "Bearer ");
    assert!(server.scopes.contains("mcp") && server.providers.is_empty());
    assert_eq!(settings.issuer.access_token_lifetime, Duration::from_secs(3600));
    assert!(settings.issuer.reserved_names.contains(&"github".to_owned()));
}

#[test]
fn a_server_names_the_apis_that_it_uses() {
    let google = "[providers.google]\nclient_id = 'x'\napis = ['calendar', 'drive']\n[issuer]\nidentity = 'notion'\n";
    let with = |apis: &str| format!("{google}{SERVER}providers = ['google']\napis = {{ {apis} }}\n");
    let settings = settings(&with("google = ['drive']")).expect("valid");
    let server = settings.issuer.servers.values().next().expect("one");
    let (name, apis) = server.apis.iter().next().expect("one");
    assert_eq!((name.as_str(), apis.iter().map(String::as_str).collect::<Vec<_>>()), ("google", vec!["drive"]));
    let unknown = problem(&with("google = ['kalendar']"));
    assert!(
        unknown.starts_with("servers.notes.apis.google[0]: \"kalendar\" is not an API of google; it has ["),
        "{unknown}"
    );
    let hint = "list it in `apis` of [providers.google] too";
    let not_enabled = problem(&with("google = ['drive', 'gmail']"));
    assert!(
        not_enabled.starts_with("servers.notes.apis.google[1]: \"gmail\" is not enabled at google"),
        "{not_enabled}"
    );
    assert!(not_enabled.contains(hint), "{not_enabled}");
    let elsewhere = problem(&with("github = ['github']"));
    assert!(
        elsewhere.starts_with("servers.notes.apis.github: \"github\" is not in `providers` of this server"),
        "{elsewhere}"
    );
}

#[test]
fn upstreams_of_every_kind() {
    let upstream = |text: &str, more: &str| {
        let text = format!("[issuer]\nidentity = 'notion'\n[servers.notes]\nupstream = '{text}'\n{more}");
        settings(&text).map(|settings| settings.issuer.servers.values().next().expect("one").upstream.clone())
    };
    let tcp = |is_https, host: &str, port, path: &str| Upstream::Tcp {
        is_https,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    };
    assert_eq!(upstream("https://notes.example/x", ""), Ok(tcp(true, "notes.example", 443, "/x")));
    assert_eq!(upstream("http://[::1]:3000/mcp", ""), Ok(tcp(false, "[::1]", 3000, "/mcp")));
    assert_eq!(upstream("http://notes:3000/mcp", "insecure_upstream = true\n"), Ok(tcp(false, "notes", 3000, "/mcp")));
    let unix = |path: &str| Upstream::Unix { socket: "/run/n.sock".into(), path: path.to_owned() };
    assert_eq!(upstream("unix:/run/n.sock", ""), Ok(unix("/mcp")));
    assert_eq!(upstream("unix:/run/n.sock:/other", ""), Ok(unix("/other")));
    for (bad, why) in [
        ("http://notes:3000/mcp", "would send handles over http to another machine"),
        ("ftp://127.0.0.1/mcp", "is not the URL of an MCP endpoint"),
        ("http://u:p@127.0.0.1/mcp", "is not the URL of an MCP endpoint"),
        ("http://127.0.0.1/mcp?x=1", "is not the URL of an MCP endpoint"),
        ("127.0.0.1:3000", "is not the URL of an MCP endpoint"),
        ("unix:n.sock:/mcp", "is not a Unix socket and a path"),
    ] {
        let problems = upstream(bad, "").expect_err(bad);
        assert!(problems.len() == 1 && problems[0].contains(why), "{bad}: {problems:?}");
    }
}

#[test]
fn what_is_wrong_with_servers_is_said_with_its_place() {
    assert!(problem(SERVER).starts_with("issuer.identity: is missing; without it nobody knows whose connections"));
    let identity = "[issuer]\nidentity = 'notion'\n";
    for (more, expected) in [
        ("path = '/'", "servers.notes.path: \"/\" cannot be the path of an MCP endpoint"),
        ("path = '/a/'", "servers.notes.path: \"/a/\" cannot be the path of an MCP endpoint"),
        ("path = '/a b'", "servers.notes.path: \"/a b\" cannot be the path of an MCP endpoint"),
        (
            "path = '/authorize/x'",
            "servers.notes.path: \"/authorize/x\" begins with a segment that Sidekey uses itself",
        ),
        ("path = '/.well-known/x'", "servers.notes.path: \"/.well-known/x\" cannot be the path of an MCP endpoint"),
        ("providers = ['slack']", "servers.notes.providers[0]: \"slack\" is none of the [providers]"),
        (
            "providers = ['notion']\nrequired = ['github']",
            "servers.notes.required[0]: \"github\" is not in `providers` of this server",
        ),
        ("scopes = ['a b']", "servers.notes.scopes: \"a b\" is not a scope"),
        ("handle = { header = 'host' }", "servers.notes.handle.header: \"host\" cannot hold a handle"),
        (
            "handle = { header = 'mcp-session-id' }",
            "servers.notes.handle.header: \"mcp-session-id\" cannot hold a handle",
        ),
        ("handle = { prefix = 'a b' }", "servers.notes.handle.prefix: \"a b\" cannot stand before a handle"),
    ] {
        let found = problem(&format!("{identity}{SERVER}{more}\n"));
        assert!(found.starts_with(expected), "{found}");
    }
    let two = format!("{identity}{SERVER}[servers.other]\npath = '/notes/mcp'\nupstream = 'http://127.0.0.1:1/mcp'\n");
    assert!(problem(&two).starts_with("servers.other.path: \"/notes/mcp\" is the path of the server notes already"));
}

#[test]
fn what_is_wrong_with_the_issuer_is_said_with_its_place() {
    for (text, expected) in [
        ("[issuer]\nidentity = 'slack'\n", "issuer.identity: \"slack\" is none of the [providers]"),
        ("[issuer]\ncode_lifetime = '11m'\n", "issuer.code_lifetime: 11m is too long; expected at most 10m"),
        ("[issuer]\nrefresh_grace = '1h'\n", "issuer.refresh_grace: 1h is too long; expected at most 10m"),
        ("[issuer]\naccess_tokens = 'jwt'\n", "issuer.signing_keys: is missing; JWTs are signed"),
        ("[issuer]\nsigning_keys = ['env:JUNK']\n", "issuer.signing_keys[0]: expected a private key in PKCS#8 PEM"),
        ("[issuer.scopes.'a b']\n", "issuer.scopes.\"a b\": \"a b\" is not a scope"),
        (
            "[issuer.client_documents]\npinned = '/nonexistent'\n",
            "issuer.client_documents.pinned: cannot read /nonexistent",
        ),
        (
            "[issuer.client_documents]\nallow_networks = ['10.0.0.0']\n",
            "issuer.client_documents.allow_networks[0]: \"10.0.0.0\" is not a network",
        ),
        ("[limits]\nfailures_per_address = '60'\n", "limits.failures_per_address: \"60\" is not a rate"),
        (
            "[public]\nallowed_origins = ['https://a.example/']\n",
            "public.allowed_origins[0]: \"https://a.example/\" is not an origin",
        ),
        ("[public]\ntrusted_proxies = ['all']\n", "public.trusted_proxies[0]: \"all\" is not a network"),
    ] {
        let found = problem(text);
        assert!(found.starts_with(expected), "{found}");
    }
    let signed = settings("[issuer]\naccess_tokens = 'jwt'\nsigning_keys = ['env:PEM']\n").expect("valid").issuer;
    assert!(matches!(signed.access_tokens, AccessTokenFormat::Jwt(keys) if keys.len() == 1));
    assert_eq!(signed.access_token_lifetime, Duration::from_secs(900));
}

#[test]
fn what_is_wrong_with_a_client_is_said_with_its_place() {
    let client = |more: &str| {
        format!("[clients.reporting]\nname = 'Reporting'\nredirect_uris = ['https://a.example/cb']\n{more}\n")
    };
    assert_eq!(settings(&client("")).expect("valid").issuer.clients[0].id, "reporting");
    for (text, expected) in [
        (client("secret_hash = 'the-secret-itself'"), "clients.reporting.secret_hash: is not an argon2 hash"),
        (client("jwks = '/nonexistent'"), "clients.reporting.jwks: cannot read /nonexistent"),
        (client("scopes = ['\"']"), "clients.reporting.scopes: \"\\\"\" is not a scope"),
        (
            "[clients.dyn_1]\nname = 'x'\nredirect_uris = []\n".to_owned(),
            "clients.dyn_1: \"dyn_1\" cannot be a client id",
        ),
        (
            "[clients.a]\nname = 'x'\nredirect_uris = ['http://a.example/cb']\n".to_owned(),
            "clients.a.redirect_uris[0]: http is allowed for loopback addresses only; use https",
        ),
    ] {
        let found = problem(&text);
        assert!(found.starts_with(expected), "{found}");
    }
}
