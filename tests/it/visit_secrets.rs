//! No page, header or address that a browser gets to see holds a token.

use sidekey_simulator::leaks::LeakSearch;

use crate::front::{Front, Tokens, parameter};

#[tokio::test]
async fn a_browser_never_sees_a_token() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let request = front.authorize_url(&client_id, &[]);
    front.world.simulator.set("github", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&request, &["github"]).await.page();
    front.world.simulator.set("github", |settings| settings.deny_with = None);
    let back = visitor.open(&format!("{url}/connect/github")).await.away();
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    front.ping(&tokens.access).await;
    let handle = front.server.requests()[0].headers["authorization"].to_str().expect("text").replace("Bearer ", "");
    for path in [
        "/account",
        "/account/connect/github",
        "/account/connect/notion",
        "/nowhere",
        "/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource/notes/mcp",
    ] {
        visitor.get(&front.world.public(path)).await;
    }
    visitor.consent(&request).await;
    visitor.get(&url).await;
    visitor.post(&format!("{url}/finish"), &[]).await;
    let own: Vec<_> = visitor.seen.iter().filter(|(url, _)| url.starts_with(&visitor.own)).collect();
    assert!(own.len() >= 15, "{}", own.len());
    let issued = front.world.simulator.issued_values();
    let mut secrets: Vec<String> = issued.access_tokens.iter().chain(&issued.refresh_tokens).cloned().collect();
    secrets.extend(["notion", "github"].map(|name| front.world.simulator.settings(name).client_secret));
    let of_provider = secrets.len();
    secrets.extend([tokens.access, tokens.refresh, handle]);
    assert!(of_provider >= 6, "{of_provider}");
    let search = LeakSearch::new(&secrets);
    for (url, answer) in own {
        let found = search.find(format!("{url}\n{answer}").as_bytes());
        assert!(found.is_empty(), "{found:?}: {url}: {answer}");
        if answer.contains("text/html") {
            assert!(answer.contains("\"referrer-policy\": \"no-referrer\"") && answer.contains("no-store"), "{answer}");
        }
    }
    // What the client gets back through the browser is the code alone.
    assert!(search.find(back.as_bytes()).is_empty(), "{back}");
    front.stop().await;
}
