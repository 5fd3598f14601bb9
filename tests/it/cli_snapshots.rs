//! What every command prints, in text and in JSON: with a server that runs, with one that was stopped, and with a store that is
//! broken. One file for each command in `tests/it/cli`; `SIDEKEY_WRITE_SNAPSHOTS=1` writes them anew, to be read before they are
//! committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use regex_lite::Regex;
use rustix::process::Signal;
use sidekey_simulator::Options;
use tokio::io::AsyncWriteExt;

use crate::operate::who_is_asked_at_the_api;
use crate::process::{Program, command, out, sidekey};
use crate::world::{Files, Setup};

/// Where a command says something of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Running,
    Stopped,
    Broken,
}

impl State {
    const ALL: [Self; 3] = [Self::Running, Self::Stopped, Self::Broken];

    fn heading(self) -> &'static str {
        match self {
            Self::Running => "with a server that runs",
            Self::Stopped => "with a server that was stopped",
            Self::Broken => "with a store that is broken",
        }
    }
}

/// A command line, without `--config` and `--json`.
struct Case {
    arguments: &'static [&'static str],
    states: &'static [State],
    /// Only so many lines are looked at, of what is generated from the command line itself.
    lines: usize,
    /// Whether it reads a configuration at all.
    has_config: bool,
}

const ALL: &[State] = &State::ALL;
/// The server and the store have no part in it.
const ONCE: &[State] = &[State::Running];

const fn of(arguments: &'static [&'static str]) -> Case {
    Case { arguments, states: ALL, lines: usize::MAX, has_config: true }
}

const fn once(arguments: &'static [&'static str]) -> Case {
    Case { states: ONCE, has_config: false, ..of(arguments) }
}

/// With a server all of them; otherwise the first of each command. In this order, since some change what the others see. `HOME` is the directory of the configuration, `ID` that of a handle, and
/// `FORM` `text` or `json`, for what can be done once.
const CASES: &[Case] = &[
    of(&["status"]),
    of(&["status", "--user", "nobody"]),
    of(&["inspect", "quickbooks", "--subject", "alice"]),
    of(&["inspect", "quickbooks", "--subject", "alcie"]),
    of(&["inspect", "quickboks", "--subject", "alice"]),
    of(&["inspect", "quickbooks", "--subject", "alice", "--label", "branch"]),
    of(&["refresh", "quickbooks", "--subject", "alice"]),
    of(&["refresh", "quickbooks", "--subject", "alice", "--verbose"]),
    of(&["refresh", "gitlab", "--subject", "bob"]),
    of(&["validate-all"]),
    of(&["simulate-failure", "quickbooks", "--subject", "alice", "--verbose"]),
    of(&["connections", "export"]),
    of(&["connections", "export", "--format", "csv"]),
    of(&["sites", "quickbooks", "--subject", "alice"]),
    of(&["connect", "quickbooks", "--subject", "carol"]),
    of(&["connect", "quickboks", "--subject", "carol"]),
    of(&["handle", "issue", "--subject", "alice", "--provider", "quickbooks"]),
    of(&["handle", "issue", "--subject", "alcie"]),
    of(&["handle", "list"]),
    of(&["handle", "revoke", "ID"]),
    of(&["handle", "revoke", "h_unknown"]),
    of(&["grants", "list"]),
    of(&["grants", "revoke", "g_unknown"]),
    of(&["ca", "show"]),
    Case { lines: 1, ..of(&["ca", "export"]) },
    of(&["audit", "--operation", "connect"]),
    of(&["audit", "--since", "yesterday"]),
    of(&["backup", "HOME/FORM.tar"]),
    of(&["backup", "HOME/first.tar"]),
    Case { states: &[State::Running, State::Stopped], ..of(&["restore", "HOME/first.tar"]) },
    of(&["restore", "HOME/sidekey.toml"]),
    of(&["store", "confirm"]),
    of(&["reload"]),
    of(&["config", "diff"]),
    of(&["config", "explain", "metrics.listen"]),
    of(&["keys", "status"]),
    of(&["keys", "reseal"]),
    of(&["keys", "rotate"]),
    of(&["probe", "live"]),
    of(&["probe", "ready"]),
    Case { has_config: false, ..of(&["check", "HOME/sidekey.toml"]) },
    of(&["doctor"]),
    of(&["env", "--provider", "quickbooks", "--subject", "alice"]),
    Case { states: &[State::Running, State::Broken], ..of(&["serve"]) },
    of(&["disconnect", "gitlab", "--subject", "FORM"]),
    of(&["disconnect", "gitlab", "--subject", "nobody"]),
    of(&["run", "--subject", "alice", "--provider", "nobody", "--", "true"]),
    once(&["init", "HOME/new"]),
    of(&["api-keys", "list"]),
    once(&["api-keys", "generate"]),
    once(&["keys", "generate"]),
    once(&["keys", "generate", "--signing"]),
    once(&["clients", "hash"]),
    Case { lines: 2, ..once(&["providers", "list"]) },
    once(&["providers", "show", "github"]),
    once(&["providers", "lint"]),
    Case { lines: 2, ..once(&["completions", "bash"]) },
    Case { lines: 6, ..once(&["man"]) },
    once(&["man", "HOME/man"]),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli")
}

/// The commands that do something themselves, with the names of their arguments.
fn leaves(command: &clap::Command, path: &[String], found: &mut BTreeMap<Vec<String>, BTreeSet<String>>) {
    let inner: Vec<&clap::Command> =
        command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help").collect();
    if inner.is_empty() {
        let arguments = command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
        found.insert(path.to_vec(), arguments);
    }
    for inner in inner {
        leaves(inner, &[path, &[inner.get_name().to_owned()]].concat(), found);
    }
}

fn all_leaves() -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    leaves(&sidekey::cli::commands(), &[], &mut found);
    found
}

/// The command that a case is of.
fn leaf_of<'l>(case: &Case, leaves: &'l BTreeMap<Vec<String>, BTreeSet<String>>) -> Option<&'l Vec<String>> {
    leaves
        .keys()
        .find(|path| case.arguments.iter().zip(path.iter()).filter(|(one, other)| one == other).count() == path.len())
}

#[test]
fn no_command_is_missing() {
    let leaves = all_leaves();
    assert!(leaves.len() >= 35, "{leaves:?}");
    for path in leaves.keys() {
        assert!(
            CASES.iter().any(|case| leaf_of(case, &leaves) == Some(path)),
            "`sidekey {}` is not shown",
            path.join(" ")
        );
    }
    for case in CASES {
        assert!(leaf_of(case, &leaves).is_some(), "{:?} is no command", case.arguments);
    }
}

/// Every command that is not only for another program takes `--json`.
#[test]
fn every_command_answers_in_json_too() {
    let for_programs = ["serve", "run", "env", "ca export", "completions"];
    for (path, arguments) in all_leaves() {
        let name = path.join(" ");
        assert!(arguments.contains("json") || for_programs.contains(&name.as_str()), "sidekey {name}");
    }
}

/// The README's table names each of them.
#[test]
fn every_command_is_in_the_table() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).expect("there");
    for path in all_leaves().keys() {
        let names = ["`", " "].map(|end| format!("`sidekey {}{end}", path.join(" ")));
        let mut rows = text.lines().filter(|line| line.starts_with("| `sidekey "));
        assert!(rows.any(|row| names.iter().any(|name| row.contains(name))), "{names:?}");
    }
}

/// docs/cli.md has a heading for each command, and none for another.
#[test]
fn every_command_is_documented() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let text = std::fs::read_to_string(document).expect("there");
    let documented: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### `sidekey ")?.strip_suffix('`'))
        .map(|heading| {
            heading
                .split(' ')
                .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let known: BTreeSet<String> = all_leaves().keys().map(|path| path.join(" ")).collect();
    assert_eq!(documented, known);
}

/// What differs from run to run.
struct Normalizer {
    replaced: Vec<(Regex, &'static str)>,
    home: String,
}

impl Normalizer {
    fn new(files: &Files) -> Self {
        let replaced = [
            // The second of two within a second is numbered.
            (r"(sidekey\.before-[\w-]+Z)-\d", "$1"),
            (r"20\d\d-\d\d-\d\dT\d\d:?\d\d:?\d\dZ", "TIME"),
            (r"127\.0\.0\.1:\d+", "ADDRESS"),
            (r#"("\w+_in_seconds":)-?\d+"#, "${1}SECONDS"),
            (r#"("\w+_ms":)\d+"#, "${1}MILLISECONDS"),
            (r"\b\d+\.\d s\b|\b\d+ ms\b", "DURATION"),
            (r"\b(in )?\d+ (s|min|h|days)( ago)?\b", "WHEN"),
            (r"\bnow( \(TIME\)|  |\n)", "WHEN$1"),
            (r"/connect/[\w-]{20,}", "/connect/TOKEN"),
            (r"\b[\w.-]*sidekey_h_[\w-]+", "HANDLE"),
            (r"\bsidekey_[a-z]+_[\w-]{16,}", "SECRET"),
            (r"\b([a-z])_[\w-]{8,}", "${1}_ID"),
            (r"\b[0-9a-f]{64}\b", "DIGEST"),
            (r"\b[0-9a-f]{32}\b", "STORE"),
            (r"\b[0-9a-f]{8}\b", "KEY"),
            (r"(?m)(^|[^A-Za-z0-9+/=])[A-Za-z0-9+/]{43}=", "${1}SECRET"),
            (r"\$argon2id\$\S+[A-Za-z0-9]", "HASH"),
            (r"MI[\w+/=\\]{60,}|(?m)^[A-Za-z0-9+/=]{16,64}$", "KEY MATERIAL"),
            (r"proxyPort=\d+", "proxyPort=PORT"),
            (r#""size":\d+"#, "\"size\":SIZE"),
            // A server that watches its files may have begun already.
            (r"\b[89] values are sealed", "SOME values are sealed"),
            (r#""resealed":[89]"#, "\"resealed\":SOME"),
            (r"\bsidekey_c_\w+|\b(4620816\d+|\d{15,})\b", "REALM"),
            (&env!("CARGO_PKG_VERSION").replace('.', r"\."), "VERSION"),
            // Columns are as wide as what was replaced.
            (r"(\S)  +", "$1  "),
        ];
        let replaced = replaced.iter().map(|(pattern, by)| (Regex::new(pattern).expect("a pattern"), *by)).collect();
        Self { replaced, home: files.home.path().display().to_string() }
    }

    fn normal(&self, text: &str) -> String {
        let text = text.replace(&self.home, "HOME");
        self.replaced.iter().fold(text, |text, (pattern, by)| pattern.replace_all(&text, *by).into_owned())
    }
}

/// Runs one command line.
async fn run(files: &Files, case: &Case, json: bool, ids: &[String]) -> (String, Output) {
    let home = files.home.path().display().to_string();
    // Each form has one of its own.
    let id = ids.get(usize::from(json)).map_or("h_unknown", String::as_str);
    let form = if json { "json" } else { "text" };
    let filled = |argument: &&str| argument.replace("HOME", &home).replace("ID", id).replace("FORM", form);
    let mut arguments: Vec<String> = case.arguments.iter().map(filled).collect();
    let mut shown: Vec<&str> = case.arguments.to_vec();
    let mut more = Vec::new();
    if json {
        more.push("--json".to_owned());
    }
    if case.has_config {
        more.extend(["--config".to_owned(), files.config.display().to_string()]);
    }
    // Before `--`, if there is one.
    let at = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(at..at, more);
    if json {
        shown.insert(at, "--json");
    }
    let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = command(&borrowed);
    child.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    // Some end without reading it.
    let _ = input.write_all(b"a secret that is long enough\n").await;
    drop(input);
    (format!("$ sidekey {}", shown.join(" ")), child.wait_with_output().await.expect("it ends"))
}

fn told(normalizer: &Normalizer, case: &Case, shown: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines().take(case.lines).map(|line| format!("{line}\n")).collect::<String>()
    };
    let mut told = format!("{shown}\n{}", text(&output.stdout));
    if !output.stderr.is_empty() {
        told.push_str(&text(&output.stderr).lines().map(|line| format!("[stderr] {line}\n")).collect::<String>());
    }
    told.push_str(&format!("[exit code {}]\n", output.status.code().expect("it ended by itself")));
    normalizer.normal(&told)
}

fn breaks(files: &Files) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(files.data().join(format!("sidekey.db{suffix}")));
    }
    std::fs::write(files.data().join("sidekey.db"), [b'x'; 8192]).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_what_it_said() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    // Whoever looks at all hosts of the providers stays on this machine.
    let hosts =
        ["api.github.com", "api.notion.com", "gitlab.com"].map(|host| format!("\"{host}\" = \"127.0.0.1:1\"\n"));
    let setup = Setup { tables: format!("[egress.resolve]\n{}", hosts.concat()), ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    who_is_asked_at_the_api(&files, "github");
    let mut running = Program::start(files, &[], Stdio::null()).await;
    running.connect("quickbooks", "alice").await;
    running.connect("github", "bob").await;
    running.connect("gitlab", "text").await;
    running.connect("gitlab", "json").await;
    let key = running.files.home.path().join("sidekey.key");
    let first_key = std::fs::read(&key).expect("there");
    out(&sidekey(&[
        "backup",
        &running.files.home.path().join("first.tar").display().to_string(),
        "--config",
        running.config(),
    ])
    .await);
    let normalizer = Normalizer::new(&running.files);
    let leaves = all_leaves();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let (mut ids, mut seen) = (Vec::new(), Vec::new());
    for state in State::ALL {
        match state {
            State::Running => {}
            State::Stopped => {
                running.signal(Signal::TERM).await;
                std::fs::write(&key, &first_key).expect("written");
                // As it was before all that was done with a server.
                out(&sidekey(&[
                    "restore",
                    &running.files.home.path().join("first.tar").display().to_string(),
                    "--config",
                    running.config(),
                ])
                .await);
                for form in ["text.tar", "json.tar"] {
                    std::fs::remove_file(running.files.home.path().join(form)).expect("it was written");
                }
                out(&sidekey(&["store", "confirm", "--config", running.config()]).await);
            }
            State::Broken => {
                for form in ["text.tar", "json.tar"] {
                    std::fs::remove_file(running.files.home.path().join(form)).expect("it was written");
                }
                breaks(&running.files);
            }
        }
        ids.clear();
        let mut known = BTreeSet::new();
        for case in CASES.iter().filter(|case| case.states.contains(&state)) {
            let leaf = leaf_of(case, &leaves).expect("a command");
            if !known.insert(leaf) && state != State::Running {
                continue;
            }
            // The page that is printed is for people.
            let has_json = leaves[leaf].contains("json") && case.arguments != ["man"];
            let text = said.entry(leaf.join("-")).or_default();
            let heading = format!("## {}\n", state.heading());
            if !text.contains(&heading) {
                text.push_str(&heading);
            }
            for json in [false, true].into_iter().filter(|json| has_json || !json) {
                let (shown, output) = run(&running.files, case, json, &ids).await;
                if case.arguments.starts_with(&["handle", "issue"])
                    && let Ok(issued) = serde_json::from_slice::<serde_json::Value>(&output.stdout)
                {
                    ids.push(issued["id"].as_str().unwrap_or_default().to_owned());
                }
                seen.extend_from_slice(&[output.stdout.as_slice(), &output.stderr].concat());
                text.push_str(&told(&normalizer, case, &shown, &output));
                text.push('\n');
            }
        }
    }
    compare(&said);
    let issued = simulator.issued_values();
    let seen = String::from_utf8_lossy(&seen);
    assert!(issued.access_tokens.len() >= 4 && !issued.refresh_tokens.is_empty());
    for secret in issued.access_tokens.iter().chain(&issued.refresh_tokens) {
        let begins = secret.get(..16).unwrap_or_default();
        assert!(!begins.is_empty() && !seen.contains(begins), "{begins} is a part of a token");
    }
    simulator.stop().await;
}

fn compare(said: &BTreeMap<String, String>) {
    let mut differences = Vec::new();
    for (name, said) in said {
        let file = directory().join(format!("{name}.txt"));
        if std::env::var_os("SIDEKEY_WRITE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(directory()).expect("made");
            std::fs::write(&file, said).expect("written");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        for (number, (is, was)) in said.lines().zip(expected.lines()).enumerate() {
            if is != was {
                differences.push(format!("{name}.txt:{}\n  was: {was}\n  is:  {is}", number + 1));
            }
        }
        if said.lines().count() != expected.lines().count() {
            differences.push(format!("{name}.txt: {} lines, were {}", said.lines().count(), expected.lines().count()));
        }
    }
    let there = std::fs::read_dir(directory()).expect("there").map(|file| file.expect("a file").path());
    let stray: Vec<_> =
        there.filter(|path| !said.contains_key(&*path.file_stem().expect("a name").to_string_lossy())).collect();
    assert!(stray.is_empty(), "of no command: {stray:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
