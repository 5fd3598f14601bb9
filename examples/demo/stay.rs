//! After the journey: everything stays up, to be tried by hand or by a program.

use serde_json::json;
use tokio::sync::mpsc::Receiver;

use crate::narrator::{Narrator, answer};
use crate::processes::{SUBJECT, World, text};

/// Says where everything is, and stays until it is told to stop.
pub async fn stay(narrator: &Narrator, world: World, mut stop: Receiver<()>) -> Result<(), String> {
    if narrator.quiet {
        answer(&json!({ "ready": {
            "public": world.public, "egress": world.egress, "metrics": world.metrics, "simulator": world.simulator,
            "admin": world.directory.join("data/admin.sock"), "config": world.config(), "subject": SUBJECT,
        }}));
    } else {
        show(narrator, &world);
    }
    stop.recv().await;
    world.stop().await;
    Ok(())
}

fn show(narrator: &Narrator, world: &World) {
    narrator.step(
        "Everything stays up. Try it from another terminal:",
        &[
            format!("export SIDEKEY_CONFIG={} QUICKBOOKS_CLIENT_SECRET=any", world.config().display()),
            "cargo run --release --bin sidekey -- status".to_owned(),
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
