use super::*;
use crate::base::files::create_private;
use crate::base::random::SystemRandom;
use crate::store::keyring::generate_key;

fn environment(name: &str) -> Option<String> {
    match name {
        "KEY" => Some(generate_key(&SystemRandom).expose().to_owned()),
        "SECRET" => Some("s3cret".to_owned()),
        "ZERO" => Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
        _ => None,
    }
}

fn settings(text: &str) -> Result<Settings, Vec<String>> {
    load_text(Path::new("sidekey.toml"), text, &environment)
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn refused(text: &str) -> Vec<String> {
    settings(text).err().expect("refused")
}

/// These problems and no others, by how each begins.
fn assert_begin(problems: &[String], expected: &[&str]) {
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "\n{problem}\n{expected}");
    }
}

const GOOD: &str = "[store]\nkeys = ['env:KEY']\n";

#[test]
fn the_annotated_configuration_is_valid() {
    let home = tempfile::tempdir().expect("a directory");
    let text = include_str!("../../../config/sidekey.toml");
    create_private(&home.path().join("sidekey.key"), generate_key(&SystemRandom).expose().as_bytes()).expect("written");
    create_private(&home.path().join("quickbooks.secret"), b"s").expect("written");
    let settings = load_text(&home.path().join("sidekey.toml"), text, &environment);
    let settings = settings.unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(settings.providers.len(), 1);
    assert_eq!(settings.public_url.to_string(), "http://127.0.0.1:8700/");
}

/// Every key that the file may hold stands in the annotated one, be it as a comment.
#[test]
fn the_annotated_configuration_shows_every_key() {
    let text = include_str!("../../../config/sidekey.toml");
    let schema = schema_of::<ConfigFile>();
    let definitions = schema["definitions"].as_object().expect("tables");
    let tables = std::iter::once(&schema).chain(definitions.values());
    for table in tables.filter_map(|table| table["properties"].as_object()) {
        for key in table.keys() {
            assert!(text.contains(key.as_str()), "{key} is not shown in config/sidekey.toml");
        }
    }
}

/// Regenerated with `make schema`.
#[test]
fn the_json_schema_is_current() {
    let checked_in = include_str!("../../../config/sidekey.schema.json");
    let current = serde_json::to_string_pretty(&schema_of::<ConfigFile>()).expect("serializes") + "\n";
    if std::env::var_os("SIDEKEY_WRITE_SCHEMA").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/config/sidekey.schema.json"), current).expect("written");
    } else {
        assert!(checked_in == current, "config/sidekey.schema.json is stale: run `make schema`");
    }
}

/// The reference for people, from the same schema. Regenerated with `make schema`.
#[test]
fn the_reference_is_current() {
    let current = reference(&schema_of::<ConfigFile>());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("SIDEKEY_WRITE_SCHEMA").is_some() {
        std::fs::write(path, current).expect("written");
    } else {
        let checked_in = std::fs::read_to_string(path).expect("there");
        assert!(checked_in == current, "docs/configuration.md is stale: run `make schema`");
    }
}

fn reference(schema: &Value) -> String {
    let mut text = String::from(
        "# Configuration reference\n\nGenerated from the configuration's own types (`make schema`); do not edit. \
         [config/sidekey.toml](../config/sidekey.toml)\nshows every key with its default, \
         [config/sidekey.schema.json](../config/sidekey.schema.json) lets editors complete and check.\n\
         `sidekey check FILE` reports every problem at once, with line and column; `sidekey config explain KEY` says the same as this page.\n\
         A change takes effect with a [reload](operations.md#reload) unless it says otherwise.\n",
    );
    table(&mut text, "Top level", "", schema);
    tables(&mut text, schema, "", schema);
    text
}

/// One table for each table of the file, those inside others after them.
fn tables(text: &mut String, schema: &Value, path: &str, table_of: &Value) {
    for (name, property) in table_of["properties"].as_object().expect("an object") {
        let (inner, key) = match property["additionalProperties"].is_object() {
            true => (&property["additionalProperties"], format!("{path}{name}.NAME")),
            false => (property, format!("{path}{name}")),
        };
        let Some(definition) = definition(schema, inner) else { continue };
        table(text, &format!("`[{key}]`"), &format!("{key}."), definition);
        tables(text, schema, &format!("{key}."), definition);
    }
}

fn definition<'s>(schema: &'s Value, property: &Value) -> Option<&'s Value> {
    let all_of = property["allOf"][0]["$ref"].as_str();
    let any_of = property["anyOf"][0]["$ref"].as_str();
    let name = property["$ref"].as_str().or(all_of).or(any_of)?.rsplit('/').next()?;
    schema["definitions"].get(name).filter(|definition| definition["properties"].is_object())
}

fn table(text: &mut String, title: &str, path: &str, schema: &Value) {
    text.push_str(&format!("\n## {title}\n\n| key | meaning |\n|---|---|\n"));
    for (key, property) in schema["properties"].as_object().expect("an object") {
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let needs_restart = crate::config::restart::reason(&format!("{path}{key}")).is_some();
        let restart = if needs_restart { " **A change needs a restart.**" } else { "" };
        text.push_str(&format!("| `{key}` | {meaning}{restart} |\n"));
    }
}

#[test]
fn defaults_are_loopback_and_the_public_url_follows() {
    let settings = settings(GOOD).expect("valid");
    assert_eq!(settings.public_url.to_string(), "http://127.0.0.1:8700/");
    assert!(settings.public.listen.ip().is_loopback() && settings.egress.listen[0].ip().is_loopback());
    assert!(settings.metrics_listen.ip().is_loopback());
    assert_eq!(settings.egress.subject, None);
    assert_eq!(settings.admin_socket, Path::new("data/admin.sock"));
}

#[test]
fn redirect_uris_come_from_the_public_url() {
    let text = format!(
        "public_url = 'https://sidekey.example'\n{GOOD}[public]\nlisten = '0.0.0.0:8700'\n\
         [providers.books]\nentry = 'quickbooks'\nclient_id = 'env:SECRET'\nclient_secret = 'env:SECRET'\n"
    );
    let settings = settings(&text).expect("valid");
    let provider = &settings.providers.values().next().expect("one");
    assert_eq!(provider.redirect_uri, "https://sidekey.example/callback/books");
    assert_eq!(provider.client.id, "s3cret");
}

#[test]
fn a_public_url_is_required_beyond_loopback() {
    let expected = "sidekey.toml: public_url: is missing; it is required because not every listener is on a loopback \
        address (for example \"https://sidekey.example.com\"; redirect URIs are made from it)";
    assert_eq!(refused(&format!("{GOOD}[public]\nlisten = '0.0.0.0:1'\n")), [expected]);
    assert!(refused(&format!("public_url = 'http://a.example'\n{GOOD}"))[0].contains("is not an https:// URL"));
    assert!(refused(&format!("public_url = 'https://a.example/x'\n{GOOD}"))[0].contains("has a path"));
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "\
pubilc_url = 'https://a.example'
[store]
keys = ['my-own-secret-key', 'env:NONE', 'env:ZERO']
[egress]
listen = '0.0.0.0:8701'
subject = 'alice'
[refresh]
ahead = '5'
[logging]
level = 'verbose'
[providers.quickboks]
client_id = 'x'
[providers.github]
client_id = 'x'
client_secret = 'ghs_0123456789'
[providers.google]
client_id = 'x'
apis = ['gmial']
[providers.gitlab]
client_id = 'x'
environment = 'sandbox'
";
    let problems = refused(text);
    let expected = [
        "sidekey.toml: public_url: is missing; it is required because not every listener is on a loopback address",
        "sidekey.toml:1:1: pubilc_url: is not a known key (did you mean `public_url`?)",
        "sidekey.toml:3:9: store.keys[0]: the value is not \"env:NAME\" or \"file:PATH\"",
        "sidekey.toml:6:11: egress.subject: a fixed subject is only allowed on a loopback address, and egress.listen is 0.0.0.0:8701",
        "sidekey.toml:8:9: refresh.ahead: \"5\" is not a duration such as",
        "sidekey.toml:10:9: logging.level: \"verbose\" is not allowed here; expected one of",
        "sidekey.toml:11:12: providers.quickboks: there is no provider entry \"quickboks\" (did you mean `quickbooks`?)",
        "sidekey.toml:15:17: providers.github.client_secret: the value is not \"env:NAME\" or \"file:PATH\"",
        "sidekey.toml:18:8: providers.google.apis: \"gmial\" is not an API of this provider; it has",
        "sidekey.toml:21:15: providers.gitlab.environment: this provider has no environments",
    ];
    assert_begin(&problems, &expected);
    let all = problems.join("\n");
    assert!(!all.contains("my-own") && !all.contains("ghs_"), "a misplaced secret is not repeated: {all}");
}

/// A mistake in one table is said there, and neither hides others nor makes false what names the table.
#[test]
fn one_key_too_many_hides_nothing_and_accuses_nobody() {
    let text = "[store]
keys = ['env:KEY']
[providers.github]
client_id = 'x'
client_secret = 'env:KEY'
scope = ['x']
[providers.gitlab]
client_id = 7
[issuer]
identity = 'github'
[servers.hub]
upstream = 'http://127.0.0.1:1'
providers = ['github', 'gitlab', 'slack']
path = '/token/x'
foo = 1
[api.keys.a]
hash = 'x'
providers = ['github', 'gitlab']
";
    let problems = refused(text);
    let expected = [
        "sidekey.toml:6:1: providers.github.scope: is not a known key (did you mean `scopes`?)",
        "sidekey.toml:8:13: providers.gitlab.client_id: 7 is not allowed here",
        "sidekey.toml:13:34: servers.hub.providers[2]: \"slack\" is none of the [providers]",
        "sidekey.toml:14:8: servers.hub.path: ",
        "sidekey.toml:15:1: servers.hub.foo: is not a known key",
        "sidekey.toml:17:8: api.keys.a.hash: ",
    ];
    assert_begin(&problems, &expected);
}

#[test]
fn keys_are_required_and_must_be_good() {
    assert!(refused("")[0].contains("store.keys: is missing; without a key nothing can be stored (make one with"));
    assert!(refused("[store]\nkeys = []\n")[0].contains("store.keys: is missing"));
    assert_eq!(
        refused("[store]\nkeys = ['env:NONE', 'env:SECRET', 'env:ZERO']\n"),
        [
            "sidekey.toml:2:9: store.keys[0]: the environment variable NONE is not set",
            "sidekey.toml:2:21: store.keys[1]: is not a key: expected 32 random bytes in base64, as `sidekey keys generate` prints them",
            "sidekey.toml:2:35: store.keys[2]: is not a random key; make one with `sidekey keys generate`",
        ]
    );
}

#[test]
fn names_at_the_egress_listener_are_unique() {
    let text = format!(
        "{GOOD}[providers.g1]\nentry = 'google'\nclient_id = 'x'\napis = ['gmail']\n\
         [providers.g2]\nentry = 'google'\nclient_id = 'x'\napis = ['gmail']\n"
    );
    assert!(refused(&text)[0].contains("providers.g2.apis: the name \"gmail\" of an API is taken by the provider g1"));
    let text = format!(
        "{GOOD}[providers.gmail]\nentry = 'github'\nclient_id = 'x'\n[providers.google]\nclient_id = 'x'\napis = ['gmail']\n"
    );
    assert!(
        refused(&text)[0]
            .contains("providers.google.apis: the name \"gmail\" of an API is taken by the provider gmail")
    );
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let problem = load(Path::new("/nonexistent/sidekey.toml"), &environment).err().expect("refused").remove(0);
    assert!(problem.to_string().contains("`sidekey init` writes one"), "{problem}");
}

#[test]
fn an_entry_from_memory_must_be_accepted() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(home.path().join("own")).expect("made");
    let entry = "extends = 'notion'\n[trust]\nrecall = ['token', 'apis.notion.origin', 'api.expired']\n";
    std::fs::write(home.path().join("own/notion.toml"), entry).expect("written");
    let load = |more: &str| {
        let text = format!(
            "provider_directory = 'own'\n{GOOD}[providers.notion]\nclient_id = 'c'\nclient_secret = 'env:SECRET'\n{more}"
        );
        load_text(&home.path().join("sidekey.toml"), &text, &environment)
            .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>())
    };
    let problems = load("").err().expect("refused");
    let place = format!("{}:4:12: providers.notion: ", home.path().join("sidekey.toml").display());
    let hint = "no source was read for it (compare it with the provider's documentation, then set `accept_unverified = true` here)";
    assert_eq!(
        problems,
        [
            format!(
                "{place}the entry \"notion\" has its apis.notion.origin (https://api.notion.com) from memory: {hint}"
            ),
            format!(
                "{place}the entry \"notion\" has its token.url (https://api.notion.com/v1/oauth/token) from memory: {hint}"
            ),
        ]
    );
    assert!(load("accept_unverified = true\n").is_ok());
}

#[test]
fn who_signs_with_the_secret_needs_one() {
    let text = format!("{GOOD}[providers.shopify]\nclient_id = 'c'\ninputs = {{ shop = 'acme-goods' }}\n");
    let missing = "providers.shopify.client_secret: is missing: this provider signs its callbacks with it";
    let problems = refused(&text);
    assert!(problems.len() == 1 && problems[0].contains(missing), "{problems:?}");
    assert!(settings(&format!("{text}client_secret = 'env:SECRET'\n")).is_ok());
    let nowhere = refused(&text.replace("inputs = { shop = 'acme-goods' }\n", "client_secret = 'env:SECRET'\n"));
    let missing = "providers.shopify.inputs.shop: is missing: the shop: what stands before .myshopify.com, such as \"acme-goods\"";
    assert!(nowhere.len() == 1 && nowhere[0].contains(missing), "{nowhere:?}");
}
