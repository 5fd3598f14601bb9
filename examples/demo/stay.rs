//! After the journeys: everything stays up, to be tried by hand or by a program.

use serde_json::json;
use tokio::sync::mpsc::Receiver;

use crate::browser::Browser;
use crate::narrator::{Narrator, answer};
use crate::processes::{SUBJECT, World, text};

/// Says where everything is, and stays until it is told to stop.
pub async fn stay(narrator: &Narrator, world: World, mut stop: Receiver<()>) -> Result<(), String> {
    if narrator.quiet {
        answer(&json!({ "ready": {
            "public": world.public, "egress": world.egress, "metrics": world.metrics, "simulator": world.simulator,
            "admin": world.directory.join("data/admin.sock"), "config": world.config(), "subject": SUBJECT,
            "mcp": world.mcp,
        }}));
    } else {
        let_people_choose(&world).await?;
        show(narrator, &world);
    }
    stop.recv().await;
    world.stop().await;
    Ok(())
}

/// From now on the simulated QuickBooks shows a page of its own, which asks who approves.
async fn let_people_choose(world: &World) -> Result<(), String> {
    let settings = json!({ "auto_approve": false, "user": SUBJECT }).to_string().into_bytes();
    let url = format!("{}/control/settings/quickbooks", world.simulator);
    Browser::new()?.call("PUT", &url, &[], settings).await?.json().map(|_| ())
}

fn show(narrator: &Narrator, world: &World) {
    narrator.step(
        "Everything stays up. Add this URL to an MCP client of yours:",
        &[
            world.mcp.clone(),
            format!("claude mcp add --transport http accounting {}   # then /mcp there, to sign in", world.mcp),
            "The client finds the rest. QuickBooks asks for a name: every name has a company of its own.".to_owned(),
        ],
    );
    narrator.step(
        "Or try it from another terminal:",
        &[
            format!("export SIDEKEY_CONFIG={} QUICKBOOKS_CLIENT_SECRET=any", world.config().display()),
            "cargo run --release --bin sidekey -- status".to_owned(),
            "cargo run --release --bin sidekey -- grants list".to_owned(),
            "cargo run --release --bin sidekey -- connect quickbooks --subject bob   # and open the link".to_owned(),
            format!("HANDLE=$(cargo run --release --bin sidekey -- handle issue --subject {SUBJECT})"),
            format!("curl -H \"Authorization: Bearer $HANDLE\" {}/quickbooks/v3/company/0/companyinfo/0", world.egress),
            format!("curl {}/metrics", world.metrics),
            format!("curl {}/control/ledger        # what the provider saw", world.simulator),
            "Ctrl-C ends it.".to_owned(),
        ],
    );
}

/// Tells when to stop.
pub fn stop_signal() -> Result<Receiver<()>, String> {
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
