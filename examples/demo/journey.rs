//! The journey, step by step.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::mcp_client::McpClient;
use crate::processes::{SUBJECT, World, pause, text};
use crate::{Arguments, Plant, check};

/// Speaks to people, or keeps quiet for programs.
struct Narrator {
    quiet: bool,
}

impl Narrator {
    #[expect(clippy::print_stdout, reason = "the demo speaks to people")]
    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{line}");
        }
    }

    fn step(&self, title: &str, lines: &[String]) {
        self.say(&format!("\n● {title}"));
        lines.iter().for_each(|line| self.say(&format!("  {line}")));
    }
}

/// Prints what programs read.
#[expect(clippy::print_stdout, reason = "programs read it there")]
fn answer(value: &Value) {
    println!("{value}");
}

/// Walks the journey; `true` if all was as it should be.
pub async fn walk(arguments: &Arguments) -> Result<bool, String> {
    let narrator = Narrator { quiet: arguments.json };
    let stop = stop_signal()?;
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
    let client = McpClient::connect(&server).await?;
    let realm_id_rewritten = call_tools(&narrator, &world, &client).await?;
    if arguments.once {
        let done = finish(&narrator, arguments, &world, &server, &client, realm_id_rewritten).await;
        world.stop().await;
        return done;
    }
    stay(&narrator, arguments, world, stop).await.map(|()| true)
}

/// J1: a subject connects QuickBooks once, in a browser.
async fn connect(narrator: &Narrator, world: &World) -> Result<(), String> {
    let link = world.sidekey(&["connect", "quickbooks", "--subject", SUBJECT]).await?;
    let link = link["url"].as_str().ok_or("no link")?.to_owned();
    let browser = Browser::new()?;
    let page = browser.get(&link).await?;
    let begun = browser.post_form(&link).await?;
    let consent = begun.location.clone().ok_or("the connect link did not lead to the provider")?;
    let connected = browser.follow(begun).await?;
    if (page.status, connected.status) != (200, 200) {
        return Err(format!("connecting ended with {}", String::from_utf8_lossy(&connected.body)));
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

/// J5: goes on until the token was refreshed twice, then checks the promises.
async fn finish(
    narrator: &Narrator,
    arguments: &Arguments,
    world: &World,
    server: &str,
    client: &McpClient,
    realm_id_rewritten: bool,
) -> Result<bool, String> {
    narrator.step("Tokens of three seconds are refreshed ahead of time, while calls go on", &[]);
    let mut refreshes = 0;
    for _ in 0..120 {
        client.call_tool("company_info").await?;
        let now = counters(world).await?["refreshes_ok"].as_u64().unwrap_or(0);
        if now > refreshes {
            refreshes = now;
            narrator.say(&format!("  refreshed ({refreshes})"));
        }
        if refreshes >= 2 {
            break;
        }
        pause(Duration::from_millis(250)).await;
    }
    plant(arguments, world, server).await?;
    let counters = counters(world).await?;
    let tokens = check::tokens(&world.simulator).await?;
    let result = json!({
        "connected": true,
        "realm_id_rewritten": realm_id_rewritten,
        "api_calls": counters["api_calls"],
        "api_calls_ok": counters["api_calls_ok"],
        "refreshes": counters["refreshes_ok"],
        "token_seen_by_mcp_server": check::seen_by_mcp_server(server, &tokens).await?,
        "plaintext_on_disk": check::on_disk(&world.directory, &tokens)?,
    });
    narrator.step(
        &format!("Searched for all {} tokens, codes and secrets in the provider's ledger", tokens.len()),
        &[
            format!("in everything the MCP server received: {}", found(&result["token_seen_by_mcp_server"])),
            format!("in every file of Sidekey:              {}", found(&result["plaintext_on_disk"])),
        ],
    );
    narrator.say("");
    answer(&result);
    let all_calls_answered = result["api_calls"] == result["api_calls_ok"] && result["api_calls"] != json!(0);
    Ok(all_calls_answered
        && realm_id_rewritten
        && refreshes >= 2
        && result["token_seen_by_mcp_server"] == json!(false)
        && result["plaintext_on_disk"] == json!(false))
}

fn found(value: &Value) -> &'static str {
    if *value == json!(false) { "none found" } else { "FOUND" }
}

async fn counters(world: &World) -> Result<Value, String> {
    let ledger = Browser::new()?.get(&format!("{}/control/ledger", world.simulator)).await?;
    let ledger: Value = serde_json::from_slice(&ledger.body).map_err(text)?;
    Ok(ledger["profiles"]["quickbooks"]["counters"].clone())
}

/// Puts a token where it must not be.
async fn plant(arguments: &Arguments, world: &World, server: &str) -> Result<(), String> {
    let Some(place) = arguments.plant else { return Ok(()) };
    let token = check::tokens(&world.simulator).await?.into_iter().next().ok_or("no token to plant")?;
    match place {
        Plant::McpServer => {
            let url = format!("{server}/received");
            Browser::new()?.call("POST", &url, &[], token.into_bytes()).await.map(|_| ())
        }
        Plant::Disk => {
            let hidden: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
            std::fs::write(world.directory.join("data/planted"), hidden).map_err(text)
        }
    }
}

async fn stay(
    narrator: &Narrator,
    arguments: &Arguments,
    world: World,
    mut stop: tokio::sync::mpsc::Receiver<()>,
) -> Result<(), String> {
    if arguments.json {
        answer(&json!({ "ready": {
            "public": world.public, "egress": world.egress, "metrics": world.metrics, "simulator": world.simulator,
            "admin": world.directory.join("data/admin.sock"), "config": world.config(), "subject": SUBJECT,
        }}));
    }
    let config = world.config();
    let config = config.display();
    narrator.step(
        "Everything stays up. Try it from another terminal:",
        &[
            format!("export SIDEKEY_CONFIG={config} QUICKBOOKS_CLIENT_SECRET=any"),
            "cargo run --release --bin sidekey -- status".to_owned(),
            "cargo run --release --bin sidekey -- connect quickbooks --subject bob   # and open the link".to_owned(),
            format!("HANDLE=$(cargo run --release --bin sidekey -- handle issue --subject {SUBJECT})"),
            format!("curl -H \"Authorization: Bearer $HANDLE\" {}/quickbooks/v3/company/0/companyinfo/0", world.egress),
            format!("curl {}/metrics", world.metrics),
            format!("curl {}/control/ledger        # what the provider saw", world.simulator),
            "Ctrl-C ends it.".to_owned(),
        ],
    );
    stop.recv().await;
    world.stop().await;
    Ok(())
}

/// Tells when to stop.
fn stop_signal() -> Result<tokio::sync::mpsc::Receiver<()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = sender.send(()).await;
    });
    Ok(receiver)
}
