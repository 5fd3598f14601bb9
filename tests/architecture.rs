//! Imports run one way: each module may use those of the layers above it, never those below. The table is that of
//! `src/lib.rs` and ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Module and layer. Modules of one layer may use each other only where [`NEIGHBOURS`] says so.
const LAYERS: [(&str, u8); 18] = [
    ("base", 0),
    ("model", 1),
    ("telemetry", 1),
    ("catalogue", 2),
    ("oauth", 2),
    ("store", 2),
    ("config", 3),
    ("authority", 3),
    ("vault", 3),
    ("issuer", 3),
    ("identity", 3),
    ("dance", 4),
    ("launch", 4),
    ("bridge", 5),
    ("proxy", 5),
    ("portal", 5),
    ("server", 6),
    ("cli", 7),
];

/// (user, used) within one layer.
const NEIGHBOURS: [(&str, &str); 2] = [("telemetry", "model"), ("oauth", "catalogue")];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Why `user` may not use `used`, if so.
fn forbidden(user: &str, used: &str) -> Option<String> {
    let (user_layer, used_layer) = (layer(user)?, layer(used)?);
    if user == used || used_layer < user_layer || NEIGHBOURS.contains(&(user, used)) {
        return None;
    }
    Some(format!("`{user}` (layer {user_layer}) must not use `{used}` (layer {used_layer})"))
}

/// Modules named in `crate::NAME` paths of a line of code.
fn used_modules(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = rest.strip_prefix('{').map_or(rest, |group| group.split('}').next().unwrap_or_default());
        let grouped = rest.starts_with('{');
        for name in names.split(',').take(if grouped { usize::MAX } else { 1 }) {
            let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
            modules.push(name.trim().chars().take_while(is_name).collect());
        }
    }
    modules
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

#[test]
fn imports_run_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let mut violations = Vec::new();
    let mut imports = 0;
    for file in &files {
        let below = file.strip_prefix(&source).expect("below src");
        let module = below.iter().next().and_then(|name| name.to_str()).unwrap_or_default().trim_end_matches(".rs");
        for (number, line) in fs::read_to_string(file).expect("text").lines().enumerate() {
            for used in used_modules(line) {
                imports += 1;
                if let Some(why) = forbidden(module, &used) {
                    violations.push(format!("src/{}:{}: {why}", below.display(), number + 1));
                }
            }
        }
    }
    assert!(imports > 100, "only {imports} imports were found: the search is broken");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let library = include_str!("../src/lib.rs");
    let modules: Vec<_> = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(!modules.is_empty());
    for module in modules {
        assert!(layer(module).is_some(), "{module} has no layer");
    }
}

#[test]
fn the_wrong_way_is_noticed() {
    assert!(forbidden("base", "model").is_some());
    assert!(forbidden("portal", "proxy").is_some() && forbidden("proxy", "portal").is_some());
    assert!(forbidden("store", "vault").is_some() && forbidden("vault", "store").is_none());
    assert_eq!(used_modules("use crate::store::{Store, seal::Sealed};"), ["store"]);
    assert_eq!(used_modules("use crate::{base, model::names};"), ["base", "model"]);
    assert_eq!(used_modules("    crate::vault::Vault::new(crate::cli::x())"), ["vault", "cli"]);
    assert!(used_modules("// use crate::cli;").is_empty());
}

/// What is said to be about no provider in particular names none: entries alone do.
#[test]
fn no_provider_is_named_in_the_source() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let names = ["intuit", "realmid", "workspace_id"];
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = file.components().any(|part| part.as_os_str() == "tests.rs");
        for (number, line) in code.lines().enumerate().filter(|_| !is_test) {
            let code = line.split("//").next().unwrap_or_default().to_lowercase();
            for name in names {
                assert!(!code.contains(name), "{}:{}: {name}", file.display(), number + 1);
            }
        }
    }
}

/// A phase that is not passed on would be Pingora's own.
#[test]
fn every_phase_is_passed_on_to_the_application_of_the_request() {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy");
    let phases = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(proxy.join(file)).expect("text");
        let (_, code) = text.split_once("ProxyHttp for ").expect("an application");
        let (code, _) = code.split_once("\n}\n").expect("its end");
        let name = |line: &str| {
            let rest = line.strip_prefix("    ")?;
            let rest = rest.strip_prefix("async fn ").or(rest.strip_prefix("fn "))?;
            rest.split(['(', '<']).next().map(str::to_owned)
        };
        code.lines().filter_map(name).collect()
    };
    let passed_on = phases("current.rs");
    let mut seen = 0;
    for file in ["public.rs", "egress.rs"] {
        for phase in phases(file) {
            assert!(
                passed_on.contains(&phase),
                "src/proxy/{file} has {phase}, which src/proxy/current.rs does not pass on"
            );
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}
