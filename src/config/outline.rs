//! What a program beside the server needs of the configuration, without a single secret of it: where the server and the store
//! are, which providers there are, and where the secrets lie, so that they can be kept from others.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::files;
use crate::base::sources::Sources;
use crate::base::toml_document::{Document, Problem};
use crate::base::toml_schema::{Completeness, check, schema_of};
use crate::catalogue::recipe::Recipes;
use crate::catalogue::{Catalogue, Selection};
use crate::config::file::ConfigFile;
use crate::config::reading::unreadable;
use crate::config::secret_ref::SecretRef;
use crate::model::names::{ProviderName, Subject};

/// The configuration without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The configuration file.
    pub file: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where connections are kept.
    pub store_directory: PathBuf,
    /// Whose connections callers without a handle use.
    pub subject: Option<Subject>,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, OutlinedProvider>,
    /// The bundled recipes and the operator's.
    pub recipes: Recipes,
    /// Files that hold secrets.
    pub secret_files: Vec<PathBuf>,
    /// Variables that hold secrets.
    pub secret_variables: Vec<String>,
    /// Files and directories that decide where tokens go: whoever may write them may have them.
    pub decisive: Vec<PathBuf>,
}

/// A provider without our registration there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlinedProvider {
    /// Its entry, and those that the entry extends.
    pub lineage: Vec<String>,
    /// Its environment, such as `sandbox`.
    pub environment: Option<String>,
    /// The values of the entry's inputs.
    pub inputs: BTreeMap<String, String>,
}

/// Reads the file at `path`. Only what is malformed is found here; `sidekey check` finds the rest.
pub fn outline(path: &Path) -> Result<Outline, Vec<Problem>> {
    // One that only lies where we happen to be may have been put there for us: it decides where tokens go.
    if path.components().count() == 1 && std::fs::metadata(path).is_ok_and(|metadata| !is_trusted(&metadata)) {
        let problem = Problem::of_file(path, "belongs to another user, or may be written by everybody");
        return Err(vec![problem.with_hint(format!("if it is the right one, name it: --config ./{}", path.display()))]);
    }
    let text = files::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
    let document = Document::parse(path, &text)?;
    let problems = check(&document, &schema_of::<ConfigFile>(), Completeness::Whole);
    let malformed = |error: serde_json::Error| vec![document.problem("", error.to_string())];
    if !problems.is_empty() {
        return Err(problems);
    }
    let file: ConfigFile = serde_json::from_value(document.value.clone()).map_err(malformed)?;
    // What is handed to other processes means the same in every directory.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let home = path.parent().unwrap_or(Path::new("/")).to_owned();
    of_file(&file, &document, &path, &home)
}

fn is_trusted(metadata: &std::fs::Metadata) -> bool {
    let ours = [0, rustix::process::geteuid().as_raw()];
    ours.contains(&metadata.uid()) && metadata.mode() & 0o002 == 0
}

/// The same of a file that was read already.
pub(super) fn of_file(
    file: &ConfigFile,
    document: &Document,
    path: &Path,
    home: &Path,
) -> Result<Outline, Vec<Problem>> {
    let (mut catalogue, mut recipes, mut problems) = (Catalogue::bundled(), Recipes::bundled(), Vec::new());
    let mut decisive = vec![path.to_owned()];
    if let Some(directory) = file.provider_directory.as_ref().map(|directory| home.join(directory)) {
        problems.extend(catalogue.add_directory(&directory, &Sources::default()));
        decisive.push(directory);
    }
    if let Some(directory) = file.recipe_directory.as_ref().map(|directory| home.join(directory)) {
        problems.extend(recipes.add_directory(&directory, &Sources::default()));
        decisive.push(directory);
    }
    decisive.extend(file.egress.extra_ca.iter().map(|path| home.join(path)));
    let mut providers = BTreeMap::new();
    for (name, table) in &file.providers {
        let Ok(known) = name.parse::<ProviderName>() else { continue };
        let entry_name = table.entry.as_deref().unwrap_or(name);
        let selection = Selection { environment: table.environment.clone(), ..Selection::default() };
        let selection = Selection { inputs: table.inputs.clone(), ..selection };
        let entry = catalogue.select(entry_name, &selection).ok();
        let defaults = entry.iter().flat_map(|entry| &entry.inputs);
        let mut inputs: BTreeMap<String, String> =
            defaults.filter_map(|(name, input)| Some((name.clone(), input.default.clone()?))).collect();
        inputs.extend(table.inputs.clone());
        let default_environment = entry.and_then(|entry| entry.default_environment);
        let environment = table.environment.clone().or(default_environment);
        providers.insert(known, OutlinedProvider { lineage: catalogue.lineage(entry_name), environment, inputs });
    }
    let subject = file.egress.subject.as_ref().map(|text| {
        let expected = Subject::EXPECTED;
        text.parse()
            .map_err(|_| document.problem("egress.subject", format!("is not allowed here; expected {expected}")))
    });
    let subject = subject.transpose().map_err(|problem| problems.push(problem)).unwrap_or_default();
    if !problems.is_empty() {
        return Err(problems);
    }
    let (mut secret_files, mut secret_variables) = (Vec::new(), Vec::new());
    walk(&document.value, &mut |text| match text.parse() {
        Ok(SecretRef::File(path)) => secret_files.push(home.join(path)),
        Ok(SecretRef::Env(name)) => secret_variables.push(name),
        Err(_) => {}
    });
    let store_directory = home.join(&file.store.directory);
    let admin_socket = file.admin.socket.as_ref().map(|socket| home.join(socket));
    Ok(Outline {
        file: path.to_owned(),
        admin_socket: admin_socket.unwrap_or_else(|| store_directory.join("admin.sock")),
        store_directory,
        subject,
        providers,
        recipes,
        secret_files,
        secret_variables,
        decisive,
    })
}

/// Every text in the file. One that only looks like the place of a secret is kept from others for nothing.
fn walk(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Object(map) => map.values().for_each(|item| walk(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_located_and_not_read() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("sidekey.toml");
        let text = "[store]\nkeys = ['file:none.key', 'env:NO_KEY']\n[egress]\nsubject = 'alice'\n[providers.books]\n\
                    entry = 'quickbooks'\nenvironment = 'sandbox'\nclient_id = 'x'\nclient_secret = 'file:/run/s'\n\
                    [providers.github]\nclient_id = 'env:GITHUB_ID'\n";
        std::fs::write(&path, text).expect("written");
        let outline = outline(&path).expect("sound, though no secret is there");
        assert_eq!(outline.secret_files, [home.path().join("none.key"), PathBuf::from("/run/s")]);
        assert_eq!(outline.secret_variables, ["NO_KEY", "GITHUB_ID"]);
        assert_eq!(outline.admin_socket, home.path().join("data/admin.sock"));
        assert_eq!(outline.subject.as_ref().map(Subject::as_str), Some("alice"));
        let provider = |name: &str| outline.providers[&name.parse::<ProviderName>().expect("a name")].clone();
        assert_eq!(provider("books").environment.as_deref(), Some("sandbox"));
        assert_eq!(provider("books").lineage, ["quickbooks"]);
        assert_eq!(provider("github").lineage, ["github", "github-oauth-app"]);
    }

    #[test]
    fn files_of_strangers_are_not_trusted() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let file = tempfile::NamedTempFile::new().expect("a file");
        let is_trusted = || is_trusted(&std::fs::metadata(file.path()).expect("there"));
        assert!(is_trusted());
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).expect("opened");
        assert!(!is_trusted());
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("closed");
        assert!(is_trusted());
        if rustix::process::geteuid().is_root() {
            chown(file.path(), Some(60_000), None).expect("given away");
            assert!(!is_trusted());
        }
    }

    #[test]
    fn what_is_malformed_is_said() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("sidekey.toml");
        std::fs::write(&path, "[egres]\n").expect("written");
        let problems = outline(&path).expect_err("malformed");
        assert!(problems[0].to_string().contains("did you mean `egress`?"), "{problems:?}");
        assert!(outline(&home.path().join("none")).is_err());
    }
}
