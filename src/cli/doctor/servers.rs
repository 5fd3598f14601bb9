//! Whether the programs of MCP servers that speak stdio are there. None is started: each start is for somebody.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::Check;
use crate::config::Settings;
use crate::model::server::Upstream;

/// Looks for every program where a child process would.
pub fn look(settings: &Settings) -> Vec<Check> {
    let paths: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut checks = Vec::new();
    for (name, server) in &settings.issuer.servers {
        let Upstream::Stdio(stdio) = &server.upstream else { continue };
        let recipe = stdio.recipe.as_deref().zip(settings.outline.as_ref());
        let recipe = recipe.and_then(|(recipe, outline)| outline.recipes.get(recipe).ok());
        let of_recipe = recipe.and_then(|recipe| recipe.command.first());
        if let Some(program) = stdio.command.first().or(of_recipe) {
            checks.push(check(name.as_str(), program, found(program, &paths)));
        }
    }
    checks
}

fn check(server: &str, program: &str, found: Option<PathBuf>) -> Check {
    match found {
        Some(path) => Check::ok("servers", format!("{server}: starts {}", path.display())),
        None => Check::fail(
            "servers",
            format!("{server}: there is no command {program}"),
            "install it, or name it with its whole path; it is looked for in the PATH that Sidekey is started with",
        ),
    }
}

/// A child begins in a directory of its own, so a path that is not whole leads nowhere.
fn found(program: &str, paths: &[PathBuf]) -> Option<PathBuf> {
    let program = Path::new(program);
    if program.is_absolute() {
        return Some(program.to_owned()).filter(|path| is_program(path));
    }
    let name = program.file_name().filter(|name| *name == program.as_os_str())?;
    paths.iter().map(|directory| directory.join(OsStr::new(name))).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_found_as_a_child_would_find_it() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        for (name, mode) in [("tool", 0o755), ("text", 0o644)] {
            std::fs::write(at(name), "").expect("written");
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        std::fs::create_dir(at("directory")).expect("made");
        let whole = |name: &str| at(name).to_str().expect("text").to_owned();
        let paths = [PathBuf::from("/nonexistent"), home.path().to_owned()];
        assert_eq!(found("tool", &paths), Some(at("tool")));
        assert_eq!(found(&whole("tool"), &[]), Some(at("tool")));
        for none in ["text", "directory", "other", "./tool", "", &whole("other"), &whole("text")] {
            assert_eq!(found(none, &paths), None, "{none}");
        }
    }
}
