//! J2 and J3: two people add the MCP server to clients of their own, and call the same tools.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::authorization::{Authorization, authorize};
use crate::browser::Browser;
use crate::mcp_client::McpClient;
use crate::narrator::Narrator;
use crate::processes::{SUBJECT, World};

/// Who they are at the simulated QuickBooks.
pub const PEOPLE: [&str; 2] = [SUBJECT, "bob"];

/// How it went.
pub struct Outcome {
    /// How many users Sidekey knows now.
    pub users: usize,
    /// Whether everybody's tools answered from their own company.
    pub each_saw_own_company: bool,
    /// What the MCP clients hold or held: tokens and codes.
    pub tokens: Vec<String>,
}

/// Lets everybody add the server, then use it.
pub async fn walk(narrator: &Narrator, world: &World) -> Result<Outcome, String> {
    let mut clients = Vec::new();
    let mut tokens = Vec::new();
    for person in PEOPLE {
        let authorization = add_server(narrator, world, person).await?;
        clients.push((person, McpClient::connect(&world.mcp, Some(&authorization.access_token)).await?));
        tokens.extend([authorization.access_token, authorization.refresh_token, authorization.code]);
    }
    let each_saw_own_company = call_tools(narrator, world, &clients).await?;
    let grants = world.sidekey(&["grants", "list"]).await?;
    let subjects = grants["grants"].as_array().into_iter().flatten().filter_map(|grant| grant["subject"].as_str());
    let users = subjects.collect::<BTreeSet<_>>().len();
    Ok(Outcome { users, each_saw_own_company, tokens })
}

/// J2: from a URL to tokens.
async fn add_server(narrator: &Narrator, world: &World, person: &str) -> Result<Authorization, String> {
    let browser = Browser::of(person)?;
    let authorization = authorize(&world.mcp, &format!("{person}'s MCP client"), &browser).await?;
    let provider = browser.led_to(&world.simulator).ok_or_else(|| format!("{person} was not asked to sign in"))?;
    let facts = &authorization;
    narrator.step(
        &format!("{person} adds {} to an MCP client, nothing more", world.mcp),
        &[
            format!("401: the client reads {}", facts.resource_metadata),
            format!("     and there of       {}", facts.server_metadata),
            format!("registers itself at {} as {}", facts.registration_endpoint, facts.client_id),
            format!("opens the browser at {}: \"{}\"", facts.authorization_endpoint, facts.question),
            format!("{person} approves and signs in at {provider}, which connects QuickBooks, too"),
            format!("back to {} with a code; {} takes it for tokens", facts.redirect_uri, facts.token_endpoint),
        ],
    );
    Ok(authorization)
}

/// J3: the same calls, by everybody in turn; `true` if each answer is of the company that the caller has at the provider.
async fn call_tools(narrator: &Narrator, world: &World, clients: &[(&str, McpClient)]) -> Result<bool, String> {
    let ledger = world.ledger().await?;
    let mut lines = Vec::new();
    let mut companies = BTreeSet::new();
    let mut all_own = true;
    for (person, client) in clients {
        client.call_tool("create_invoice").await?;
        let company = client.call_tool("company_info").await?["CompanyInfo"]["Id"].clone();
        let is_own = realm(&ledger, person) == Some(&company);
        let whose = if is_own { "their own" } else { "NOT THEIR OWN" };
        lines.push(format!("{person:6} company_info  asked for company 0, got {company}: {whose}"));
        all_own &= is_own;
        companies.insert(company.to_string());
    }
    lines.push(
        "the tokens of their clients end at Sidekey; the MCP server gets a handle of each user and passes it on"
            .to_owned(),
    );
    narrator.step("Both call the same MCP server, the process from above, unchanged", &lines);
    Ok(all_own && companies.len() == clients.len())
}

/// The company of a person, as the provider knows it.
fn realm<'a>(ledger: &'a Value, person: &str) -> Option<&'a Value> {
    let grants = ledger["grants"].as_array()?;
    grants.iter().find(|grant| grant["user"] == person).map(|grant| &grant["realm"])
}
