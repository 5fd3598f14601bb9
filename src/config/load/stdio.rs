//! MCP servers that speak stdio: `command`, `recipe`, `environment` and `children` of a server, in the place of `upstream`.

use std::sync::Arc;

use super::Loader;
use crate::base::toml_document::join;
use crate::catalogue::recipe::{Recipe, Recipes};
use crate::config::file::{ChildrenTable, ConfigFile, ServerTable};
use crate::config::outline::{self, Outline};
use crate::model::server::Upstream;
use crate::model::stdio_server::{ChildSettings, ProcessLimits, StdioServer};

/// Variables that Sidekey sets for every child.
const OWN_VARIABLES: [&str; 9] = [
    "HOME",
    "TMPDIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "USER",
    "LOGNAME",
];

impl Loader<'_> {
    /// What stands behind the server at `key`: exactly one of `upstream`, and `command` or `recipe`.
    pub(super) fn upstream(&mut self, key: &str, table: &ServerTable, file: &ConfigFile) -> Option<Upstream> {
        let is_stdio = !table.command.is_empty() || table.recipe.is_some();
        match &table.upstream {
            Some(_) if is_stdio => {
                let hint = "`upstream` is for a server that listens by itself, `command` or `recipe` for one that speaks stdio";
                self.problem_with_hint(
                    &join(key, "upstream"),
                    "stands beside `command` or `recipe`; expected one",
                    hint,
                );
                None
            }
            Some(upstream) => {
                for of_children in ["environment", "children"] {
                    self.out_of_place(key, of_children, "is for servers with `command` or `recipe`");
                }
                self.network_upstream(key, upstream, table.insecure_upstream)
            }
            None if is_stdio => {
                for of_upstream in ["insecure_upstream", "handle"] {
                    self.out_of_place(key, of_upstream, "is for servers with `upstream`");
                }
                self.stdio(key, table, file).map(|server| Upstream::Stdio(Arc::new(server)))
            }
            None => {
                self.problem_with_hint(
                    key,
                    "has nothing behind it",
                    "write upstream = \"http://127.0.0.1:3000/mcp\", command = [\"npx\", \"-y\", \"PACKAGE\"] or recipe = \"NAME\"",
                );
                None
            }
        }
    }

    fn out_of_place(&mut self, key: &str, name: &str, why: &str) {
        let key = join(key, name);
        if self.document.holds(&key) {
            self.problem(&key, why);
        }
    }

    fn stdio(&mut self, key: &str, table: &ServerTable, file: &ConfigFile) -> Option<StdioServer> {
        let before = self.problems.len();
        let command_key = join(key, "command");
        if table.command.first().is_some_and(String::is_empty) {
            self.problem(&command_key, "names no program");
        }
        if table.command.iter().any(|word| word.contains('\0')) {
            self.problem(&command_key, "holds a character that no argument may hold");
        }
        if let Some(name) = &table.recipe {
            self.recipe(key, name, table, file);
        }
        for name in table.environment.keys() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let key = join(&join(key, "environment"), name);
            if name.is_empty() || !name.bytes().all(plain) || name.starts_with(|first: char| first.is_ascii_digit()) {
                let message = format!("{name:?} cannot be the name of a variable; expected letters, digits and _");
                self.problem(&key, message);
            } else if OWN_VARIABLES.contains(&name.to_uppercase().as_str()) {
                self.problem(&key, "is set for every child, and cannot be set otherwise");
            }
        }
        let children = self.children(&join(key, "children"), &table.children);
        (self.problems.len() == before).then(|| StdioServer {
            command: table.command.clone(),
            recipe: table.recipe.clone(),
            environment: table.environment.clone(),
            largest_message: usize::try_from(table.children.largest_message.0).unwrap_or(usize::MAX),
            children,
        })
    }

    fn children(&mut self, key: &str, table: &ChildrenTable) -> ChildSettings {
        for (name, duration) in
            [("idle_stop", table.idle_stop), ("start_timeout", table.start_timeout), ("cpu_time", table.cpu_time)]
        {
            if duration.0.as_secs() == 0 {
                self.problem(&join(key, name), format!("{duration} is too short; expected at least 1s"));
            }
        }
        let least = 16 << 20;
        if table.memory.0 < least {
            self.problem(
                &join(key, "memory"),
                format!("{} is too little to start a program; expected at least 16MiB", table.memory),
            );
        }
        ChildSettings {
            max: usize::from(table.max),
            queue_timeout: table.queue_timeout.0,
            idle_stop: table.idle_stop.0,
            start_timeout: table.start_timeout.0,
            stop_grace: table.stop_grace.0,
            limits: ProcessLimits { memory: table.memory.0, cpu_time: table.cpu_time.0, processes: table.processes },
            strict: table.strict,
            isolation: table.isolation,
        }
    }

    /// The recipe must be there, fit one of the server's providers, and know all that it asks for.
    fn recipe(&mut self, key: &str, name: &str, table: &ServerTable, file: &ConfigFile) {
        let recipe_key = join(key, "recipe");
        let mut recipes = Recipes::bundled();
        if let Some(directory) = &file.recipe_directory {
            // What is wrong in there is said once, wherever that is.
            let _ = recipes.add_directory(&self.home.join(directory), self.sources);
        }
        let recipe = match recipes.get(name) {
            Ok(recipe) => recipe.clone(),
            Err(why) => return self.problem(&recipe_key, why),
        };
        if table.command.is_empty() && recipe.command.is_empty() {
            let hint = "write the command that starts the server as `command` beside it";
            self.problem_with_hint(&recipe_key, format!("the recipe {name:?} names no command"), hint);
        }
        let fitting = self.fitting(&recipe, table, file);
        if fitting.len() != 1 {
            let wanted = recipe.providers.join(" or ");
            let message = match fitting.as_slice() {
                [] => format!("the recipe {name:?} needs a provider of the entry {wanted} in `providers`"),
                several => format!("several providers fit the recipe {name:?}: {}", several.join(", ")),
            };
            self.problem_with_hint(
                &recipe_key,
                message,
                "list exactly one such provider in `providers` of this server",
            );
        } else if !table.required.contains(&fitting[0]) {
            let hint = format!("write required = [\"{}\"]", fitting[0]);
            let message =
                format!("the recipe {name:?} is of no use without {}, which is not in `required`", fitting[0]);
            self.problem_with_hint(&recipe_key, message, hint);
        }
        let is_set = |variable: &String| {
            table
                .environment
                .get(variable)
                .cloned()
                .or_else(|| (self.environment)(variable))
                .is_some_and(|value| !value.is_empty())
        };
        let missing: Vec<String> = recipe
            .ask
            .iter()
            .filter(|(name, _)| !is_set(name))
            .map(|(name, what)| format!("{name} ({what})"))
            .collect();
        if !missing.is_empty() {
            let message = format!("the recipe {name:?} needs these variables to be set: {}", missing.join(", "));
            let hint = format!("set them in [{}]", join(key, "environment"));
            self.problem_with_hint(&recipe_key, message, hint);
        }
    }

    fn fitting(&self, recipe: &Recipe, table: &ServerTable, file: &ConfigFile) -> Vec<String> {
        let mut catalogue = crate::catalogue::Catalogue::bundled();
        if let Some(directory) = &file.provider_directory {
            let _ = catalogue.add_directory(&self.home.join(directory), self.sources);
        }
        let fits = |name: &&String| {
            let entry = file.providers.get(*name).map(|provider| provider.entry.as_ref().unwrap_or(name));
            entry.is_some_and(|entry| catalogue.lineage(entry).iter().any(|entry| recipe.providers.contains(entry)))
        };
        table.providers.iter().filter(fits).cloned().collect()
    }

    /// What children must neither see nor change, where there may be any.
    pub(super) fn outline(&mut self, file: &ConfigFile) -> Option<Arc<Outline>> {
        let is_stdio = |server: &ServerTable| !server.command.is_empty() || server.recipe.is_some();
        if !file.servers.values().any(is_stdio) {
            return None;
        }
        let path = std::path::absolute(&self.document.file).unwrap_or_else(|_| self.document.file.clone());
        let home = path.parent().unwrap_or(std::path::Path::new("/")).to_owned();
        match outline::of_file(file, self.document, &path, &home) {
            Ok(outline) => Some(Arc::new(outline)),
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
