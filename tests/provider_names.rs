//! Nothing about a particular provider stands in Rust: what the format of provider files cannot say, the format learns. So no
//! name of a bundled provider and none of its hosts is in `src/`, but in tests and in the lists of bundled files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lists of the bundled files, which are names by their nature.
const LISTS: [&str; 2] = ["catalogue/builtin.rs", "catalogue/recipe/builtin.rs"];

/// Names that are words too: of Rust, of its library, or of every text about programs. Their hosts are looked for all the same.
const WORDS: [&str; 14] = [
    "app", "box", "calendar", "chat", "connect", "docs", "drive", "graph", "linear", "outlook", "people", "sheets",
    "tasks", "teams",
];

/// Where a name may stand, and why.
const ALLOWED: [(&str, &str, &str); 1] = [(
    "base/outbound/local.rs",
    "google",
    "the cloud that machines run in and that answers them at a host name of its own, not the provider",
)];

/// What is looked for, in lower case.
struct Names {
    /// As whole words.
    words: BTreeSet<String>,
    /// Anywhere.
    hosts: BTreeSet<String>,
}

impl Names {
    fn of(directory: &Path) -> Self {
        let mut names = Self { words: BTreeSet::new(), hosts: BTreeSet::new() };
        for file in fs::read_dir(directory).expect("a directory") {
            let path = file.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("text");
            let entry: toml::Table = text.parse().expect("TOML");
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let apis = entry["apis"].as_table().expect("APIs");
            let shown = apis.iter().filter_map(|(_, api)| api.get("display_name")?.as_str());
            let shown = shown.chain([entry["display_name"].as_str().expect("a name")]).flat_map(first_word);
            let all = shown.map(str::to_owned).chain([stem]).chain(apis.keys().cloned());
            names.words.extend(all.map(|name| name.to_lowercase()).filter(|name| !WORDS.contains(&name.as_str())));
            names.hosts.extend(hosts(&text));
        }
        names
    }

    /// What of it a line holds.
    fn in_line(&self, line: &str) -> Vec<&str> {
        let line = line.to_lowercase();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        let words: BTreeSet<&str> = line.split(|letter| !is_part(letter)).collect();
        let words = self.words.iter().filter(|word| words.contains(word.as_str()));
        words.chain(self.hosts.iter().filter(|host| line.contains(host.as_str()))).map(String::as_str).collect()
    }
}

/// Names of people and products begin with a capital; "files of repositories" does not.
fn first_word(text: &str) -> Option<&str> {
    text.split([' ', ',', '\'']).next().filter(|word| word.starts_with(char::is_uppercase))
}

/// The hosts of the URLs in a file; of one with a placeholder, what follows it.
fn hosts(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, scheme) in text.match_indices("https://") {
        let rest = &text[at + scheme.len()..];
        let host = rest.split(['/', '"', '?', ' ', ',', ';', ')']).next().unwrap_or_default();
        found.push(host.rsplit('}').next().unwrap_or_default().trim_start_matches('.').to_lowercase());
    }
    found.retain(|host| host.contains('.'));
    found
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules that only tests have, as paths without `.rs`.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = file.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs");
    let home = if is_root { file.parent().expect("a directory").to_owned() } else { file.with_extension("") };
    let after = text.split("#[cfg(test)]\n").skip(1);
    let declared = after.filter_map(|after| after.lines().find(|line| !line.starts_with("#[")));
    let name = |line: &str| Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    declared.filter_map(name).map(|name| home.join(name)).collect()
}

/// What is compiled into the program: tests stand last.
fn without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate().peekable();
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        let opens = |next: &str| next.ends_with('{') && next.contains("mod ") || next.starts_with("#[expect(");
        (line != "#[cfg(test)]" || !lines.peek().is_some_and(|(_, next)| opens(next))).then_some((number + 1, line))
    })
}

#[test]
fn no_provider_is_named_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = Names::of(&root.join("config/providers"));
    assert!(names.words.contains("quickbooks") && names.hosts.contains("api.github.com"), "the search is of use");
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let texts: Vec<(PathBuf, String)> =
        files.into_iter().map(|file| (file.clone(), fs::read_to_string(&file).expect("text"))).collect();
    let of_tests: Vec<PathBuf> = texts.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    let (mut found, mut excused) = (Vec::new(), BTreeSet::new());
    for (file, text) in &texts {
        let below = file.strip_prefix(root.join("src")).expect("below src").to_str().expect("text");
        if LISTS.contains(&below) || of_tests.iter().any(|module| file.with_extension("").starts_with(module)) {
            continue;
        }
        for (number, line) in without_tests(text) {
            for name in names.in_line(line) {
                match ALLOWED.iter().find(|(file, allowed, _)| *file == below && *allowed == name) {
                    Some(allowed) => _ = excused.insert(allowed),
                    None => found.push(format!("src/{below}:{number}: {name}: {}", line.trim())),
                }
            }
        }
    }
    assert!(found.is_empty(), "providers are named outside tests:\n{}", found.join("\n"));
    assert_eq!(excused.len(), ALLOWED.len(), "an excuse is not needed anymore");
}

#[test]
fn the_search_finds_what_it_is_for() {
    let names = Names { words: ["figma".to_owned()].into(), hosts: ["api.figma.com".to_owned()].into() };
    assert_eq!(names.in_line("/// As Figma's does."), ["figma"]);
    assert_eq!(names.in_line("let url = \"https://api.figma.com/v1\";"), ["figma", "api.figma.com"]);
    assert_eq!(names.in_line("let configmap = figmatic;"), Vec::<&str>::new());
    let tested = "a\n#[cfg(test)]\nmod tests {\nfigma\n";
    assert_eq!(without_tests(tested).map(|(_, line)| line).collect::<Vec<_>>(), ["a"]);
    let field = "a\n#[cfg(test)]\nuse figma;\nb";
    assert_eq!(without_tests(field).count(), 4, "what is not a module is looked at");
    let modules = test_modules(Path::new("src/config/load.rs"), "#[cfg(test)]\nmod tests;\nmod other;\n");
    assert_eq!(modules, [Path::new("src/config/load/tests")]);
    assert_eq!(first_word("Slack Web API, as the app"), Some("Slack"));
    assert_eq!(hosts("\"https://{shop}.myshopify.com/admin\" https://a.example/b"), ["myshopify.com", "a.example"]);
}
