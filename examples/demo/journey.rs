//! The journeys, step by step.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::mcp_client::McpClient;
use crate::narrator::{Narrator, answer};
use crate::people::Outcome;
use crate::processes::{SUBJECT, World, pause, text};
use crate::{Arguments, Plant, check, people, stay};

/// Walks the journeys; `true` if all was as it should be.
pub async fn walk(arguments: &Arguments) -> Result<bool, String> {
    let narrator = Narrator { quiet: arguments.json };
    let stop = stay::stop_signal()?;
    let lifetime = arguments.access_lifetime.unwrap_or(if arguments.once { 3.0 } else { 60.0 });
    let mut world = World::start(lifetime).await?;
    narrator.step(
        "Three processes on this machine",
        &[
            format!("a simulated QuickBooks      {}", world.simulator),
            format!("Sidekey, for browsers       {}", world.public),
            format!("Sidekey, for MCP servers    {}", world.egress),
        ],
    );
    connect(&narrator, &world).await?;
    let issued = world.sidekey(&["handle", "issue", "--subject", SUBJECT, "--provider", "quickbooks"]).await?;
    let handle = issued["handle"].as_str().ok_or("no handle")?.to_owned();
    let server = world.start_mcp_server(&handle).await?;
    narrator.step(
        "An MCP server that knows nothing of OAuth",
        &[
            format!("its base URL: {}/quickbooks   (instead of https://quickbooks.api.intuit.com)", world.egress),
            format!("its token:    {}…   (a handle, worthless anywhere else)", &handle[..16]),
        ],
    );
    let client = McpClient::connect(&format!("{server}/mcp"), None).await?;
    let realm_id_rewritten = call_tools(&narrator, &world, &client).await?;
    if arguments.once {
        let refreshed_twice = wait_for_refreshes(&narrator, &world, &client).await?;
        let people = people::walk(&narrator, &world).await?;
        plant(arguments, &world, &server, &people).await?;
        let kept = finish(&narrator, &world, &server, realm_id_rewritten, &people).await;
        world.stop().await;
        return kept.map(|kept| kept && refreshed_twice);
    }
    people::walk(&narrator, &world).await?;
    stay::stay(&narrator, world, stop).await.map(|()| true)
}

/// J1: a subject connects QuickBooks once, in a browser.
async fn connect(narrator: &Narrator, world: &World) -> Result<(), String> {
    let link = world.sidekey(&["connect", "quickbooks", "--subject", SUBJECT]).await?;
    let link = link["url"].as_str().ok_or("no link")?.to_owned();
    let browser = Browser::of(SUBJECT)?;
    let page = browser.get(&link).await?;
    let begun = browser.post_form(&link, &[]).await?;
    let consent = begun.next().ok_or("the connect link did not lead to the provider")?;
    let connected = browser.follow(begun).await?;
    if (page.status, connected.status) != (200, 200) {
        return Err(format!("connecting ended with {}", connected.text()));
    }
    narrator.step(
        &format!("{SUBJECT} connects QuickBooks once (sidekey connect quickbooks --subject {SUBJECT})"),
        &[
            "opens the one-time link, continues to the provider, agrees there".to_owned(),
            format!("consent at {}{}", consent.origin().ascii_serialization(), consent.path()),
            "comes back with a code and the realmId; tokens are sealed and on disk before the page appears".to_owned(),
        ],
    );
    Ok(())
}

/// J4: tool calls cause API calls; `true` if the answers are those of the company that was connected.
async fn call_tools(narrator: &Narrator, world: &World, client: &McpClient) -> Result<bool, String> {
    let company = client.call_tool("company_info").await?;
    let invoices = client.call_tool("list_invoices").await?;
    let created = client.call_tool("create_invoice").await?;
    let status = world.sidekey(&["status"]).await?;
    let realm = &status["connections"][0]["captured"]["realm_id"];
    let info = &company["CompanyInfo"];
    let found = invoices["QueryResponse"].as_object().and_then(|response| response.values().find_map(Value::as_array));
    narrator.step(
        "An MCP client calls its tools",
        &[
            format!("company_info    asked for company 0, got {} ({})", info["CompanyName"], info["Id"]),
            format!("list_invoices   {} found", found.map_or(0, Vec::len)),
            format!("create_invoice  {}", if created.is_object() { "created" } else { "nothing" }),
            format!("the realmId of the connection is {realm}: filled in by Sidekey, as the token was"),
        ],
    );
    Ok(realm.is_string() && info["Id"] == *realm)
}

/// J5: goes on until the token was refreshed twice; `true` if that came true.
async fn wait_for_refreshes(narrator: &Narrator, world: &World, client: &McpClient) -> Result<bool, String> {
    narrator.step("Tokens of three seconds are refreshed ahead of time, while calls go on", &[]);
    let mut refreshes = 0;
    for _ in 0..120 {
        client.call_tool("company_info").await?;
        let now = world.ledger().await?["counters"]["refreshes_ok"].as_u64().unwrap_or(0);
        if now > refreshes {
            refreshes = now;
            narrator.say(&format!("  refreshed ({refreshes})"));
        }
        if refreshes >= 2 {
            return Ok(true);
        }
        pause(Duration::from_millis(250)).await;
    }
    Ok(false)
}

/// Checks the promises; `true` if all were kept.
async fn finish(
    narrator: &Narrator,
    world: &World,
    server: &str,
    realm_id_rewritten: bool,
    people: &Outcome,
) -> Result<bool, String> {
    let counters = world.ledger().await?["counters"].clone();
    let tokens = check::tokens(&world.simulator).await?;
    let all = [tokens.as_slice(), people.tokens.as_slice()].concat();
    let result = json!({
        "connected": true,
        "realm_id_rewritten": realm_id_rewritten,
        "api_calls": counters["api_calls"],
        "api_calls_ok": counters["api_calls_ok"],
        "refreshes": counters["refreshes_ok"],
        "token_seen_by_mcp_server": check::seen_by_mcp_server(server, &tokens).await?,
        "plaintext_on_disk": check::on_disk(&world.directory, &all)?,
        "users": people.users,
        "each_user_saw_own_company": people.each_saw_own_company,
        "mcp_token_seen_by_mcp_server": check::seen_by_mcp_server(server, &people.tokens).await?,
    });
    narrator.step(
        &format!(
            "Searched for all {} tokens, codes and secrets in the provider's ledger, and {} of the MCP clients",
            tokens.len(),
            people.tokens.len()
        ),
        &[
            format!("in everything the MCP server received: {}", found(&result["token_seen_by_mcp_server"])),
            format!("  those of the MCP clients:            {}", found(&result["mcp_token_seen_by_mcp_server"])),
            format!("in every file of Sidekey:              {}", found(&result["plaintext_on_disk"])),
        ],
    );
    narrator.say("");
    answer(&result);
    let all_calls_answered = result["api_calls"] == result["api_calls_ok"] && result["api_calls"] != json!(0);
    let nothing_found = ["token_seen_by_mcp_server", "mcp_token_seen_by_mcp_server", "plaintext_on_disk"]
        .iter()
        .all(|place| result[place] == json!(false));
    let people_are_kept_apart = people.users == people::PEOPLE.len() && people.each_saw_own_company;
    Ok(all_calls_answered && realm_id_rewritten && people_are_kept_apart && nothing_found)
}

fn found(value: &Value) -> &'static str {
    if *value == json!(false) { "none found" } else { "FOUND" }
}

/// Puts a token where it must not be.
async fn plant(arguments: &Arguments, world: &World, server: &str, people: &Outcome) -> Result<(), String> {
    let Some(place) = arguments.plant else { return Ok(()) };
    let tokens = if place == Plant::McpToken { people.tokens.clone() } else { check::tokens(&world.simulator).await? };
    let token = tokens.into_iter().next().ok_or("no token to plant")?;
    match place {
        Plant::McpServer | Plant::McpToken => {
            let url = format!("{server}/received");
            Browser::new()?.call("POST", &url, &[], token.into_bytes()).await.map(|_| ())
        }
        Plant::Disk => {
            let hidden: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
            std::fs::write(world.directory.join("data/planted"), hidden).map_err(text)
        }
    }
}
