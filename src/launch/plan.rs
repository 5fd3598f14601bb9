//! What is wanted: for whom, by which recipe, at which provider.

use std::collections::BTreeMap;

use clap::Args;

use super::LaunchError;
use crate::catalogue::recipe::{self, Placeholder, Recipe};
use crate::config::Outline;
use crate::config::outline::OutlinedProvider;
use crate::model::names::{Label, ProviderName, Subject};

/// What `run` and `env` are told.
#[derive(Args)]
pub struct Wanted {
    /// Whose connections are reached; default: `egress.subject` of the configuration.
    #[arg(long, visible_alias = "user")]
    pub subject: Option<Subject>,
    /// The recipe of a published server (docs/recipes.md).
    #[arg(long)]
    pub recipe: Option<String>,
    /// At which provider; may be given several times. Without it, that of the recipe, or all.
    #[arg(long)]
    pub provider: Vec<ProviderName>,
    /// Which of several connections at a provider.
    #[arg(long, default_value = "default")]
    pub label: Label,
}

/// What is to be done.
pub struct Plan<'o> {
    /// Whose connections are reached.
    pub subject: Subject,
    /// Which of several.
    pub label: Label,
    /// At which providers; `None` means all.
    pub providers: Option<Vec<ProviderName>>,
    /// By which recipe.
    pub recipe: Option<&'o Recipe>,
    /// The recipe's provider.
    pub provider: Option<(&'o ProviderName, &'o OutlinedProvider)>,
}

/// What stands for a recipe's placeholders.
pub struct Values<'a> {
    /// The handle.
    pub handle: &'a str,
    /// Host and port of the egress listener.
    pub egress: &'a str,
    /// The provider.
    pub provider: Option<(&'a ProviderName, &'a OutlinedProvider)>,
    /// What was captured when the subject connected.
    pub captured: &'a BTreeMap<String, String>,
    /// The directory of the recipe's files.
    pub files: &'a str,
}

impl<'o> Plan<'o> {
    /// Finds what is named; what cannot be found is said, with what there is.
    pub fn make(wanted: &Wanted, outline: &'o Outline) -> Result<Self, LaunchError> {
        let recipe = wanted.recipe.as_deref().map(|name| outline.recipes.get(name)).transpose();
        let recipe = recipe.map_err(LaunchError::Usage)?;
        let subject = wanted.subject.clone().or_else(|| outline.subject.clone()).ok_or_else(|| {
            LaunchError::Usage("for whom? Give --subject S, or set egress.subject in the configuration".to_owned())
        })?;
        for name in &wanted.provider {
            if !outline.providers.contains_key(name) {
                let known: Vec<&str> = outline.providers.keys().map(ProviderName::as_str).collect();
                return Err(LaunchError::Usage(format!(
                    "no provider {name} is configured (known: {})",
                    known.join(", ")
                )));
            }
        }
        let provider = recipe.map(|recipe| provider_of(recipe, wanted, outline)).transpose()?;
        let providers = match provider {
            Some((name, _)) => Some(vec![name.clone()]),
            None => (!wanted.provider.is_empty()).then(|| wanted.provider.clone()),
        };
        Ok(Self { subject, label: wanted.label.clone(), providers, recipe, provider })
    }

    /// Says which variables the caller has yet to set.
    pub fn check_asked(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), LaunchError> {
        let asked = self.recipe.iter().flat_map(|recipe| &recipe.ask);
        let missing: Vec<String> = asked
            .filter(|(name, _)| variable(name).is_none_or(|value| value.is_empty()))
            .map(|(name, what)| format!("{name} ({what})"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(LaunchError::Usage(format!("the recipe needs these variables to be set: {}", missing.join(", "))))
    }

    /// The recipe's variables.
    pub fn environment(&self, values: &Values<'_>) -> Result<Vec<(String, String)>, LaunchError> {
        self.recipe.iter().flat_map(|recipe| &recipe.environment).map(|text| filled(text, values)).collect()
    }

    /// The recipe's files.
    pub fn files(&self, values: &Values<'_>) -> Result<Vec<(String, String)>, LaunchError> {
        self.recipe.iter().flat_map(|recipe| &recipe.files).map(|text| filled(text, values)).collect()
    }

    /// The recipe's command.
    pub fn command(&self, values: &Values<'_>) -> Result<Vec<String>, LaunchError> {
        let words = self.recipe.iter().flat_map(|recipe| &recipe.command);
        words.map(|word| filled((&"command".to_owned(), word), values).map(|(_, word)| word)).collect()
    }
}

fn provider_of<'o>(
    recipe: &Recipe,
    wanted: &Wanted,
    outline: &'o Outline,
) -> Result<(&'o ProviderName, &'o OutlinedProvider), LaunchError> {
    let fits = |provider: &OutlinedProvider| provider.lineage.iter().any(|entry| recipe.providers.contains(entry));
    let is_wanted = |name: &ProviderName| wanted.provider.is_empty() || wanted.provider.contains(name);
    let mut fitting: Vec<_> =
        outline.providers.iter().filter(|(name, provider)| is_wanted(name) && fits(provider)).collect();
    match (fitting.pop(), fitting.as_slice()) {
        (Some(only), []) => Ok(only),
        (Some(_), _) => {
            Err(LaunchError::Usage(format!("several providers fit {}: say which with --provider", recipe.display_name)))
        }
        (None, _) => Err(LaunchError::Usage(format!(
            "{} needs a provider of the entry {}, and none is configured; `sidekey connect` comes after that",
            recipe.display_name,
            recipe.providers.join(" or ")
        ))),
    }
}

fn filled((name, text): (&String, &String), values: &Values<'_>) -> Result<(String, String), LaunchError> {
    let none = |what: &str| format!("{name}: {what}");
    let provider = values.provider;
    let filled = recipe::fill(text, |placeholder| {
        let found = match &placeholder {
            Placeholder::Handle => Some(values.handle.to_owned()),
            Placeholder::Egress => Some(format!("http://{}", values.egress)),
            Placeholder::Provider => provider.map(|(name, _)| name.to_string()),
            Placeholder::Environment => provider.and_then(|(_, provider)| provider.environment.clone()),
            Placeholder::Captured(key) => values.captured.get(key).cloned(),
            Placeholder::Input(key) => provider.and_then(|(_, provider)| provider.inputs.get(key).cloned()),
            Placeholder::File(name) => Some(format!("{}/{name}", values.files)),
            Placeholder::Files => Some(values.files.to_owned()),
        };
        found.ok_or_else(|| match placeholder {
            Placeholder::Captured(key) => none(&format!("the connection holds no {key}")),
            Placeholder::Input(key) => none(&format!("the provider has no input {key}")),
            _ => none("the provider has no environments"),
        })
    });
    Ok((name.clone(), filled.map_err(LaunchError::Failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn outline(text: &str) -> Outline {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("sidekey.toml");
        let asking = "display_name = 'X'\nregistry = 'npm'\npackage = 'x'\nversion = '1'\nchecked_on = '2026-11-21'\n\
                      tested = false\nproviders = ['quickbooks']\n[ask]\nX_TEAM = 'the id of the team'\n";
        std::fs::create_dir(home.path().join("recipes")).expect("made");
        std::fs::write(home.path().join("recipes/asking.toml"), asking).expect("written");
        std::fs::write(&path, text).expect("written");
        config::outline(&path).expect("sound")
    }

    fn wanted(recipe: Option<&str>, provider: &[&str]) -> Wanted {
        Wanted {
            subject: Some("alice".parse().expect("a subject")),
            recipe: recipe.map(str::to_owned),
            provider: provider.iter().map(|name| name.parse().expect("a name")).collect(),
            label: Label::default(),
        }
    }

    fn refused(wanted: &Wanted, outline: &Outline) -> String {
        match Plan::make(wanted, outline) {
            Err(LaunchError::Usage(why)) => why,
            _ => panic!("not refused"),
        }
    }

    const TWO: &str = "recipe_directory = 'recipes'\n[store]\nkeys = ['env:K']\n[providers.github]\nclient_id = 'x'\n[providers.work]\n\
                       entry = 'github-oauth-app'\nclient_id = 'y'\n[providers.quickbooks]\nclient_id = 'z'\n\
                       environment = 'sandbox'\n";

    #[test]
    fn the_recipes_provider_is_found_by_its_entry() {
        let outline = outline(TWO);
        let plan = Plan::make(&wanted(Some("quickbooks"), &[]), &outline).unwrap_or_else(|_| panic!("found"));
        assert_eq!(plan.providers.as_deref().map(|names| names[0].as_str()), Some("quickbooks"));
        assert!(refused(&wanted(Some("github"), &[]), &outline).contains("--provider"));
        assert!(Plan::make(&wanted(Some("github"), &["work"]), &outline).is_ok());
        assert!(refused(&wanted(Some("github"), &["nobody"]), &outline).contains("known: github, quickbooks, work"));
        assert!(refused(&wanted(Some("slack"), &[]), &outline).contains("needs a provider of the entry slack"));
        assert!(refused(&wanted(Some("quickboks"), &[]), &outline).contains("did you mean `quickbooks`?"));
        let nobody = Wanted { subject: None, ..wanted(None, &[]) };
        assert!(refused(&nobody, &outline).contains("--subject"));
    }

    #[test]
    fn placeholders_are_filled_from_the_connection_and_the_provider() {
        let outline = outline(TWO);
        let plan = Plan::make(&wanted(Some("quickbooks"), &[]), &outline).unwrap_or_else(|_| panic!("found"));
        let mut captured = BTreeMap::new();
        let environment = |captured: &BTreeMap<String, String>| {
            let (handle, egress) = ("H", "127.0.0.1:1");
            plan.environment(&Values { handle, egress, provider: plan.provider, captured, files: "/d" })
        };
        assert!(matches!(environment(&captured), Err(LaunchError::Failed(why)) if why.contains("holds no realm_id")));
        captured.insert("realm_id".to_owned(), "42".to_owned());
        let environment = environment(&captured).unwrap_or_else(|_| panic!("filled"));
        let value = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("QUICKBOOKS_REALM_ID"), Some("42"));
        assert_eq!(value("QUICKBOOKS_ENVIRONMENT"), Some("sandbox"));
        assert_eq!(value("QUICKBOOKS_REFRESH_TOKEN"), Some("H"));
    }

    #[test]
    fn what_a_recipe_asks_of_the_caller_is_said_at_once() {
        let outline = outline(TWO);
        let plan = Plan::make(&wanted(Some("asking"), &[]), &outline).unwrap_or_else(|_| panic!("found"));
        let asked = plan.check_asked(&|_| None);
        assert!(matches!(asked, Err(LaunchError::Usage(why)) if why.contains("X_TEAM (the id of the team)")));
        assert!(plan.check_asked(&|_| Some("T1".to_owned())).is_ok());
    }
}
