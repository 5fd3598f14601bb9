//! From recipe files to recipes: parse, check the shape, check the sense.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::{Placeholder, Recipe, builtin, fill};
use crate::base::sources::Sources;
use crate::base::toml_document::{Document, Problem, join};
use crate::base::toml_schema::{Completeness, check, did_you_mean, schema_of};

/// All recipes by name: the bundled ones and the operator's.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipes(BTreeMap<String, Recipe>);

static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<Recipe>);

/// Variables that `sidekey run` sets by itself.
const OWN_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"];

impl Recipes {
    /// The bundled recipes.
    pub fn bundled() -> Self {
        static BUNDLED: LazyLock<Recipes> = LazyLock::new(Recipes::read_bundled);
        BUNDLED.clone()
    }

    fn read_bundled() -> Self {
        let read = |(name, text): &(&str, &str)| {
            let file = PathBuf::from(format!("(bundled) {name}.toml"));
            let recipe = read(&file, text).expect("the bundled files are read by a test");
            ((*name).to_owned(), recipe)
        };
        Self(builtin::FILES.iter().map(read).collect())
    }

    /// Adds the `*.toml` files of an operator's directory. One of a bundled name takes its place.
    pub fn add_directory(&mut self, directory: &Path, sources: &Sources) -> Vec<Problem> {
        let mut paths = match sources.list(directory) {
            Ok(paths) => paths,
            Err(error) => return vec![unreadable(directory, "directory of recipes", &error)],
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.iter().flat_map(|path| self.add_file(path, sources)).collect()
    }

    /// Adds one file, under the name that it has without `.toml`.
    pub fn add_file(&mut self, path: &Path, sources: &Sources) -> Vec<Problem> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let text = sources.read_to_string(path).map_err(|error| vec![unreadable(path, "recipe", &error)]);
        match text.and_then(|text| read(path, &text)) {
            Ok(recipe) => {
                self.0.insert(name.to_owned(), recipe);
                Vec::new()
            }
            Err(problems) => problems,
        }
    }

    /// The recipe of this name; the error says which there are.
    pub fn get(&self, name: &str) -> Result<&Recipe, String> {
        self.0.get(name).ok_or_else(|| {
            let hint = match did_you_mean(name, self.names()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => format!("known: {}", self.names().collect::<Vec<_>>().join(", ")),
            };
            format!("there is no recipe {name:?} ({hint})")
        })
    }

    /// The names of all recipes, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> Problem {
    Problem::of_file(path, format!("cannot read this {what}: {error}"))
}

fn read(file: &Path, text: &str) -> Result<Recipe, Vec<Problem>> {
    let document = Document::parse(file, text)?;
    let mut problems = check(&document, &SCHEMA, Completeness::Whole);
    match serde_json::from_value::<Recipe>(document.value.clone()) {
        Ok(recipe) if problems.is_empty() => {
            problems = check_sense(&recipe, &document);
            if problems.is_empty() { Ok(recipe) } else { Err(problems) }
        }
        Err(error) if problems.is_empty() => Err(vec![document.problem("", error.to_string())]),
        _ => Err(problems),
    }
}

fn check_sense(recipe: &Recipe, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, message: String| problems.push(document.problem(key, message));
    for table in ["environment", "ask"] {
        for name in document.value[table].as_object().into_iter().flat_map(|table| table.keys()) {
            let key = join(table, name);
            if !is_variable(name) {
                wrong(&key, format!("{name:?} cannot be the name of a variable; expected letters, digits and _"));
            } else if OWN_VARIABLES.contains(&name.to_uppercase().as_str()) {
                wrong(&key, "is set for every server; a recipe does not change it".to_owned());
            }
        }
    }
    for name in recipe.files.keys().filter(|name| !is_file_name(name)) {
        wrong(&join("files", name), format!("{name:?} cannot be the name of a file; expected A-Z a-z 0-9 . _ @ -"));
    }
    let tables = [("environment", &recipe.environment), ("files", &recipe.files)];
    let texts =
        tables.iter().flat_map(|(table, texts)| texts.iter().map(move |(name, text)| (join(table, name), text)));
    let words = recipe.command.iter().enumerate().map(|(index, word)| (format!("command[{index}]"), word));
    for (key, text) in texts.chain(words) {
        let filled = fill(text, |placeholder| match placeholder {
            Placeholder::Handle if key.starts_with("command") => {
                Err("a handle in a command is seen by everybody; expected it in `environment` or `files`".to_owned())
            }
            Placeholder::File(name) if !recipe.files.contains_key(&name) => {
                Err(format!("{{file.{name}}} names none of the recipe's `files`"))
            }
            _ => Ok(String::new()),
        });
        if let Err(why) = filled {
            wrong(&key, why);
        }
    }
    problems
}

fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(plain) && !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    name.bytes().all(plain) && !matches!(name, "" | "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn problems(text: &str) -> Vec<String> {
        let problems = read(Path::new("r.toml"), text).expect_err("refused");
        problems.iter().map(Problem::to_string).collect()
    }

    const GOOD: &str = "display_name = 'X'\nregistry = 'npm'\npackage = 'x'\nversion = '1'\nchecked_on = '2026-11-21'\n\
                        tested = false\nproviders = ['github']\n";

    #[test]
    fn the_bundled_recipes_are_sound_and_pinned() {
        let recipes = Recipes::bundled();
        for name in recipes.names() {
            let recipe = recipes.get(name).expect("there");
            assert!(!recipe.version.is_empty() && recipe.checked_on.len() == 10, "{name}");
            assert!(!recipe.environment.is_empty() || !recipe.files.is_empty(), "{name} gives the server nothing");
            let pinned = |word: &String| !word.contains(&recipe.package) || word.contains(&recipe.version);
            assert!(recipe.command.iter().all(pinned), "{name} starts another version than it was written for");
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes");
        assert_eq!(std::fs::read_dir(folder).expect("there").count(), builtin::FILES.len(), "all files are bundled");
    }

    #[test]
    fn the_bundled_recipes_name_bundled_entries_and_the_day_they_were_checked() {
        let (recipes, entries) = (Recipes::bundled(), Catalogue::bundled());
        for name in recipes.names() {
            let recipe = recipes.get(name).expect("there");
            let unknown = recipe.providers.iter().find(|entry| !entries.names().contains(&entry.as_str()));
            assert_eq!(unknown, None, "{name}");
            let parts: Vec<&str> = recipe.checked_on.split('-').collect();
            let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
            assert!(matches!(*parts, [y, m, d] if (y.len(), m.len(), d.len()) == (4, 2, 2)), "{name}");
            assert!(parts.iter().all(digits), "{name}");
        }
    }

    /// `make recipes` writes both.
    #[test]
    fn recipes_are_marked_tested_that_were_seen_working_in_this_version() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/recipes-record.toml");
        let text = std::fs::read_to_string(&path).expect("there");
        let record = Document::parse(&path, &text).expect("TOML").value;
        let recipes = Recipes::bundled();
        for name in recipes.names() {
            let recipe = recipes.get(name).expect("there");
            let seen = record[name]["version"].as_str() == Some(&recipe.version);
            assert_eq!(recipe.tested, seen, "{name}: run `make recipes`");
        }
        let recorded = record.as_object().expect("a table").keys();
        assert!(recorded.clone().all(|name| recipes.get(name).is_ok()), "the record has a recipe that is gone");
        assert!(recorded.len() >= 12, "too few are tested");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_with_its_place() {
        assert!(read(Path::new("r.toml"), GOOD).is_ok());
        let found = problems(&format!("{GOOD}[environment]\nTOKEN = '{{handel}}'\nHTTPS_PROXY = 'x'\n'A B' = 'x'\n"));
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found.iter().any(|problem| problem.starts_with("r.toml:9:9: environment.TOKEN: {handel} stands")));
        let found = problems(&format!("{GOOD}command = ['x', '{{handle}}', '{{file.none}}']\n"));
        assert!(found[0].contains("seen by everybody") && found[1].contains("names none"), "{found:#?}");
        assert!(read(Path::new("r.toml"), &format!("{GOOD}[files]\n'.me@x.json' = 'x'\n")).is_ok());
        let found = problems(&format!("{GOOD}[files]\n'..' = 'x'\n'a/b' = 'x'\n'' = 'x'\n"));
        assert_eq!(found.len(), 3, "{found:#?}");
        let found = problems(&format!("{GOOD}enviroment = {{}}\n"));
        assert!(found[0].contains("did you mean `environment`?"), "{found:#?}");
        assert!(problems("display_name = 'X'\n").iter().any(|problem| problem.contains("version")));
    }

    #[test]
    fn an_own_recipe_takes_the_place_of_a_bundled_one() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("github.toml"), GOOD).expect("written");
        std::fs::write(home.path().join("broken.toml"), "x = ").expect("written");
        let mut recipes = Recipes::bundled();
        assert_eq!(recipes.add_directory(home.path(), &Sources::default()).len(), 1);
        assert_eq!(recipes.get("github").map(|recipe| recipe.package.as_str()), Ok("x"));
        assert!(recipes.get("githob").expect_err("unknown").contains("did you mean `github`?"));
        assert!(!recipes.add_directory(&home.path().join("none"), &Sources::default()).is_empty());
    }

    /// Regenerated with `make schema`.
    #[test]
    fn the_json_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/recipe.schema.json");
        let current = serde_json::to_string_pretty(&schema_of::<Recipe>()).expect("serializes") + "\n";
        if std::env::var_os("SIDEKEY_WRITE_SCHEMA").is_some() {
            std::fs::write(path, current).expect("written");
        } else {
            let checked_in = std::fs::read_to_string(path).expect("there");
            assert!(checked_in == current, "config/recipe.schema.json is stale: run `make schema`");
        }
    }
}
