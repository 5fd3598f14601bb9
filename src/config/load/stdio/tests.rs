use std::path::Path;
use std::time::Duration;

use crate::base::random::SystemRandom;
use crate::base::toml_document::Problem;
use crate::config::load::load_text;
use crate::config::settings::Settings;
use crate::model::server::Upstream;
use crate::model::stdio_server::StdioServer;
use crate::store::keyring::generate_key;

const HEAD: &str = "[store]\nkeys = ['env:KEY']\n[issuer]\nidentity = 'github'\n[providers.github]\nclient_id = 'x'\n\
                    [providers.work]\nentry = 'github'\nclient_id = 'x'\n[servers.hub]\n";

fn settings(server: &str) -> Result<Settings, Vec<String>> {
    let environment = |name: &str| (name == "KEY").then(|| generate_key(&SystemRandom).expose().to_owned());
    load_text(Path::new("sidekey.toml"), &format!("{HEAD}{server}"), &environment)
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn stdio(server: &str) -> StdioServer {
    let settings = settings(server).expect("valid");
    assert!(settings.outline.is_some());
    match &settings.issuer.servers.values().next().expect("one").upstream {
        Upstream::Stdio(server) => StdioServer::clone(server),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_enough_and_everything_else_has_a_default() {
    let server = stdio("command = ['npx', '-y', 'some-server']\n");
    assert_eq!(server.command, ["npx", "-y", "some-server"]);
    assert_eq!((server.recipe, server.largest_message), (None, 16 << 20));
    assert_eq!((server.children.max, server.children.idle_stop), (20, Duration::from_secs(600)));
    assert_eq!(server.children.limits.memory, 1 << 30);
    assert!(server.children.isolation && !server.children.strict);
}

#[test]
fn a_recipe_brings_the_command_and_every_limit_can_be_changed() {
    let server = stdio(
        "recipe = 'github'\nproviders = ['github']\nrequired = ['github']\nenvironment = { LOG_LEVEL = 'debug' }\n\
         [servers.hub.children]\nmax = 3\nqueue_timeout = '0s'\nidle_stop = '1s'\nstart_timeout = '5s'\nstop_grace = '1s'\n\
         memory = '64MiB'\ncpu_time = '1m'\nprocesses = 9\nlargest_message = '64KiB'\nstrict = true\nisolation = false\n",
    );
    assert_eq!((server.recipe.as_deref(), server.command.len()), (Some("github"), 0));
    assert_eq!(server.environment["LOG_LEVEL"], "debug");
    let children = server.children;
    assert_eq!((children.max, children.queue_timeout, children.limits.processes), (3, Duration::ZERO, 9));
    assert_eq!((children.limits.memory, server.largest_message), (64 << 20, 64 << 10));
    assert!(children.strict && !children.isolation);
}

#[test]
fn a_server_without_children_needs_no_outline() {
    let settings = settings("upstream = 'http://127.0.0.1:1/mcp'\n").expect("valid");
    assert!(settings.outline.is_none());
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_a_way_out() {
    for (server, expected) in [
        ("", "10:1: servers.hub: has nothing behind it (write upstream = "),
        (
            "upstream = 'http://127.0.0.1:1/mcp'\ncommand = ['x']",
            "11:12: servers.hub.upstream: stands beside `command` or `recipe`; expected one (`upstream` is for a server that listens",
        ),
        (
            "upstream = 'http://127.0.0.1:1/mcp'\nchildren = { max = 1 }",
            "12:12: servers.hub.children: is for servers with `command` or `recipe`",
        ),
        ("command = ['x']\nhandle = { header = 'x' }", "12:10: servers.hub.handle: is for servers with `upstream`"),
        ("command = ['']", "11:11: servers.hub.command: names no program"),
        ("command = []", "servers.hub: has nothing behind it"),
        ("command = ['x']\nenvironment = { 'A-B' = '1' }", "cannot be the name of a variable"),
        (
            "command = ['x']\nenvironment = { https_proxy = '1' }",
            "servers.hub.environment.https_proxy: is set for every child, and cannot be set otherwise",
        ),
        ("command = ['x']\nchildren = { max = 0 }", "servers.hub.children.max: 0 is not"),
        ("command = ['x']\nchildren = { memory = '1GB' }", "a size such as \"64KiB\""),
        ("command = ['x']\nchildren = { memory = '1MiB' }", "1MiB is too little to start a program"),
        ("command = ['x']\nchildren = { idle_stop = '1ms' }", "1ms is too short; expected at least 1s"),
        ("command = ['x']\nchildren = { most = 1 }", "servers.hub.children.most: is not a known key"),
        ("recipe = 'githab'", "there is no recipe \"githab\" (did you mean `github`?)"),
        (
            "recipe = 'github'",
            "the recipe \"github\" needs a provider of the entry github or github-oauth-app in `providers`",
        ),
        (
            "recipe = 'github'\nproviders = ['github', 'work']\nrequired = ['github']",
            "several providers fit the recipe \"github\": github, work",
        ),
        (
            "recipe = 'github'\nproviders = ['github']",
            "the recipe \"github\" is of no use without github, which is not in `required` (write required = [\"github\"])",
        ),
    ] {
        let problems = settings(server).err().unwrap_or_else(|| panic!("accepted: {server}"));
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{server}: {problems:#?}");
    }
}
