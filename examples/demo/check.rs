//! What the demo promises, checked: no token in what the MCP server received, none in any file.

use std::path::Path;

use sidekey_simulator::leaks::LeakSearch;

use crate::browser::Browser;
use crate::processes::text;

/// Every token in the ledger, ever issued.
pub async fn tokens(simulator: &str) -> Result<Vec<String>, String> {
    let tokens = Browser::new()?.get(&format!("{simulator}/control/tokens")).await?.json()?;
    let lists =
        ["access_tokens", "refresh_tokens", "codes", "client_secrets"].map(|list| tokens[list].as_array().cloned());
    Ok(lists.into_iter().flatten().flatten().filter_map(|token| token.as_str().map(str::to_owned)).collect())
}

/// Whether a token was seen by the MCP server.
pub async fn seen_by_mcp_server(server: &str, tokens: &[String]) -> Result<bool, String> {
    let received = Browser::new()?.get(&format!("{server}/received")).await?;
    Ok(!LeakSearch::new(tokens).find(&received.body).is_empty())
}

/// Whether a token stands in any file below `directory`.
pub fn on_disk(directory: &Path, tokens: &[String]) -> Result<bool, String> {
    let search = LeakSearch::new(tokens);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(text)? {
            let entry = entry.map_err(text)?;
            let kind = entry.file_type().map_err(text)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() && !search.find(&std::fs::read(entry.path()).map_err(text)?).is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
