//! `sidekey providers`: what people read who write provider files.

use std::path::{Path, PathBuf};

use crate::process::{command, out, sidekey};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/broken_providers")
}

fn files() -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory()).expect("readable").map(|file| file.expect("a file").path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    files
}

/// Each file's messages stand beside it, in `NAME.out`. `SIDEKEY_WRITE_SNAPSHOTS=1` writes them anew, to be read before they are
/// committed.
#[tokio::test]
async fn every_mistake_in_a_provider_file_is_explained() {
    assert!(files().len() >= 20, "too few broken files");
    let mut differences = Vec::new();
    for file in files() {
        let answer = sidekey(&["providers", "lint", file.to_str().expect("text")]).await;
        let said = String::from_utf8_lossy(&answer.stdout).replace(&format!("{}/", directory().display()), "");
        let said = format!("{said}exit code {}\n", answer.status.code().expect("it ended"));
        let snapshot = file.with_extension("out");
        if std::env::var_os("SIDEKEY_WRITE_SNAPSHOTS").is_some() {
            std::fs::write(&snapshot, &said).expect("written");
        }
        let expected = std::fs::read_to_string(&snapshot).unwrap_or_default();
        if said != expected {
            differences.push(format!("{}\nexpected:\n{expected}\nsaid:\n{said}", file.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn findings_are_there_for_programs_too() {
    let file = directory().join("misspelt-key.toml");
    let answer = sidekey(&["providers", "lint", "--json", file.to_str().expect("text")]).await;
    assert_eq!(answer.status.code(), Some(2));
    let said: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    let finding = &said["files"][0]["findings"][0];
    assert_eq!((&said["errors"], &finding["severity"]), (&1.into(), &"error".into()), "{said}");
    assert_eq!((&finding["line"], &finding["key"]), (&7.into(), &"authorize.ulr".into()), "{said}");
    assert_eq!(finding["hint"], "did you mean `url`?", "{said}");
}

#[tokio::test]
async fn the_bundled_files_have_no_errors() {
    let said: serde_json::Value =
        serde_json::from_str(&out(&sidekey(&["providers", "lint", "--json"]).await)).expect("JSON");
    assert_eq!(said["errors"], 0, "{said}");
    assert!(said["files"].as_array().is_some_and(|files| files.len() >= 8), "{said}");
}

#[tokio::test]
async fn entries_are_listed_and_shown() {
    let listed = out(&sidekey(&["providers", "list"]).await);
    let line = listed.lines().find(|line| line.starts_with("quickbooks ")).expect("it is there");
    for word in ["QuickBooks Online", "interval", "bundled", "quickbooks"] {
        assert!(line.contains(word), "{line}");
    }
    let shown = out(&sidekey(&["providers", "show", "quickbooks", "--environment", "sandbox"]).await);
    for line in [
        "  captures       realm_id (callback)",
        "    https://sandbox-quickbooks.api.intuit.com  /v3/company/{realm_id}/",
        "redirect URI to register: {public_url}/callback/quickbooks",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    // An environment may have another default of an input.
    let shown = out(&sidekey(&["providers", "show", "salesforce", "--environment", "sandbox"]).await);
    assert!(shown.contains("token          https://test.salesforce.com/services/oauth2/token"), "{shown}");
    let json = out(&sidekey(&["providers", "show", "github", "--json"]).await);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["entry"]["rotation"]["kills_access"], true);
    assert_eq!(json["entry"]["token"]["response"]["error_with_status_200"], true, "from what it extends");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let answer = sidekey(&["providers", "show", "quickboks"]).await;
    assert_eq!(answer.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&answer.stderr),
        "error: There is no provider entry \"quickboks\" (did you mean `quickbooks`?)\n"
    );
    let answer = sidekey(&["providers", "show", "quickbooks", "--environment", "test"]).await;
    assert_eq!(answer.status.code(), Some(2));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(said.contains("\"test\" is not an environment of this provider"), "{said}");
    let answer = sidekey(&["providers", "list", "--config", "/nowhere/sidekey.toml"]).await;
    assert_eq!(answer.status.code(), Some(2));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(said.contains("/nowhere/sidekey.toml: cannot read the configuration"), "{said}");
}

/// An operator's directory: its entries are listed with the bundled ones, and linted among each other.
#[tokio::test]
async fn an_operators_files_count() {
    let home = tempfile::tempdir().expect("a directory");
    let providers = home.path().join("providers");
    std::fs::create_dir(&providers).expect("made");
    let acme = std::fs::read_to_string(directory().join("no-date.toml")).expect("readable");
    std::fs::write(providers.join("acme.toml"), acme.replace("last Tuesday", "2026-11-21")).expect("written");
    let variant = "extends = \"acme\"\ndisplay_name = \"Acme EU\"\nchecked_on = \"2026-11-21\"\n";
    std::fs::write(providers.join("acme-eu.toml"), variant).expect("written");
    let config = home.path().join("sidekey.toml");
    std::fs::write(&config, "provider_directory = \"providers\"\n").expect("written");
    let config = config.to_str().expect("text");
    let listed = out(&sidekey(&["providers", "list", "--config", config]).await);
    assert!(listed.contains("Acme EU") && listed.contains("acme.toml"), "{listed}");
    let here = command(&["providers", "list"]).current_dir(home.path()).output().await.expect("it runs");
    assert_eq!(
        out(&here).replace("providers/acme", &format!("{}/acme", providers.display())),
        listed,
        "sidekey.toml is the usual one"
    );
    let linted = out(&sidekey(&["providers", "lint", providers.to_str().expect("text")]).await);
    assert_eq!(linted, "2 files: 0 errors, 0 notes\n");
}
