//! From approval to code: what is connected on the way, and what happens when a provider refuses.

use serde_json::json;

use crate::front::{Front, Place, Tokens, decision, parameter};
use crate::front_support::{Special, assert_page, cards, start, visit_id};

#[tokio::test]
async fn a_required_provider_cannot_be_unticked() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let back = front.visitor("alice").approve(&front.authorize_url(&client_id, &[]), &[]).await.away();
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    assert_eq!(front.grants().await[0]["providers"], json!(["notion"]));
    front.stop().await;
}

#[tokio::test]
async fn only_what_the_server_offers_can_be_picked() {
    let front = Front::start().await;
    let tokens = front.authorized_with("alice", &[], &["gitlab", "quickbooks", "nothing", "GITHUB"]).await;
    assert_eq!(front.grants().await[0]["providers"], json!(["notion"]));
    assert_eq!(front.connections().await.len(), 1);
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_provider_that_was_not_picked_cannot_be_called_even_if_it_is_connected() {
    let front = Front::start().await;
    let with = front.authorized_with("alice", &[], &["github"]).await;
    let without = front.authorized_with("alice", &[], &[]).await;
    let call = json!({ "path": "/github/user" });
    let answer = front.call(&with.access, "api", call.clone()).await.json();
    assert_eq!((&answer["status"], &answer["body"]["login"]), (&json!(200), &json!("alice")), "{answer}");
    let answer = front.call(&without.access, "api", call).await.json();
    assert_eq!(answer["status"], 403, "{answer}");
    assert_eq!(answer["body"]["type"], "urn:sidekey:error:provider-not-picked");
    assert_eq!(answer["body"]["connect_url"], json!(null), "connecting would not help");
    assert_eq!(front.world.simulator.ledger().profile("github").counters.api_calls, 1);
    front.stop().await;
}

#[tokio::test]
async fn a_provider_that_refuses_is_told_inline_and_can_be_tried_again() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, page) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    let (text, id) = (page.text(), visit_id(&url));
    assert_eq!(page.status, 200);
    let notice = "<p>Notion reports that access was not granted (access_denied). You can try it again here.</p>";
    assert!(text.contains("role=\"alert\"") && text.contains(notice), "{text}");
    let again = format!("/visit/{id}/connect/notion");
    assert!(text.contains(&format!("<a class=\"button\" href=\"{again}\">Sign in with Notion</a>")), "{text}");
    assert!(text.contains(&format!("action=\"/visit/{id}/cancel\"")) && !text.contains("/finish"), "{text}");
    let finish = visitor.post(&front.world.public(&format!("/visit/{id}/finish")), &[]).await;
    assert_page(&finish, 409, "Something is missing", "What is marked as required must be connected first.");
    front.world.simulator.set("notion", |settings| settings.deny_with = None);
    let back = visitor.open(&front.world.public(&again)).await.away();
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn cancelling_is_told_to_the_client_and_ends_the_visit() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    let back = visitor.submit(&format!("{url}/cancel"), &[]).await.away();
    for (name, value) in [
        ("error", Some("access_denied")),
        ("error_description", Some("the user did not go on")),
        ("state", Some("the state")),
        ("iss", Some(front.world.public("").as_str())),
        ("code", None),
    ] {
        assert_eq!(parameter(&back, name).as_deref(), value, "{name}");
    }
    for answer in [
        visitor.get(&url).await,
        visitor.get(&format!("{url}/connect/notion")).await,
        visitor.post(&format!("{url}/finish"), &[]).await,
        visitor.post(&format!("{url}/cancel"), &[]).await,
    ] {
        assert_page(&answer, 404, "This visit is over", "It was finished already");
    }
    assert!(front.grants().await.is_empty() && front.connections().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn what_is_optional_can_be_left_out_on_the_way() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("github", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, page) = visitor.approve(&front.authorize_url(&client_id, &[]), &["github"]).await.page();
    let text = page.text();
    assert!(text.contains("You are signed in as <strong>alice</strong>"), "{text}");
    let [notion, github] = cards(&text);
    assert!(github.contains("Not connected") && !github.contains("Required"), "{github}");
    assert!(notion.contains("Connected as <strong>alice</strong>, since ") && notion.contains("Required"), "{notion}");
    assert!(text.contains(&format!("action=\"/visit/{}/finish\"", visit_id(&url))), "{text}");
    let back = visitor.submit(&format!("{url}/finish"), &[]).await.away();
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    assert_eq!(front.grants().await[0]["providers"], json!(["notion"]), "what was left out is not granted");
    let answer = front.call(&tokens.access, "api", json!({ "path": "/github/user" })).await.json();
    assert_eq!(answer["body"]["type"], "urn:sidekey:error:provider-not-picked", "{answer}");
    front.stop().await;
}

#[tokio::test]
async fn what_is_required_cannot_be_left_out_on_the_way() {
    let server = "providers = [\"notion\", \"github\"]\nrequired = [\"notion\", \"github\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("github", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, page) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    assert!(!page.text().contains("/finish") && page.text().contains("/cancel"), "{}", page.text());
    let answer = visitor.post(&format!("{url}/finish"), &[]).await;
    assert_page(&answer, 409, "Something is missing", "What is marked as required must be connected first.");
    assert!(front.grants().await.is_empty());
    front.world.simulator.set("github", |settings| settings.deny_with = None);
    let back = visitor.open(&format!("{url}/connect/github")).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn several_providers_are_listed_and_connected_one_by_one() {
    let server = "providers = [\"notion\", \"github\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let request = front.authorize_url(&client_id, &[]);
    let (url, page) = visitor.approve(&request, &["github", "gitlab"]).await.page();
    let text = page.text();
    assert_eq!(text.matches("Not connected").count(), 2, "{text}");
    let [github, gitlab] = ["github", "gitlab"].map(|name| format!("{url}/connect/{name}"));
    // One step left needs no page.
    let back = visitor.open(&github).await;
    let Place::Away(back) = back else { panic!("{back:?}") };
    assert!(parameter(&back, "code").is_some(), "{back}");
    assert_eq!(front.sign_ins("gitlab"), 1);
    assert_page(&visitor.get(&gitlab).await, 404, "This visit is over", "It was finished already");
    front.stop().await;
}

#[tokio::test]
async fn another_account_can_be_chosen() {
    let front = Front::start().await;
    let [first, second] = [front.register("First").await, front.register("Second").await];
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.authorize_url(&first, &[]), &[]).await.away();
    "bob".clone_into(&mut visitor.user);
    let page = visitor.consent(&front.authorize_url(&second, &[])).await;
    assert!(page.text().contains("value=\"other_account\""), "{}", page.text());
    let url = front.world.public("/authorize");
    let back = visitor.submit(&url, &decision(&page, "other_account", &[])).await.away();
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(second.clone(), &front.redeem(&second, &code, &[]).await);
    assert_eq!(front.whoami(&tokens.access).await.json()["body"]["name"], "bob");
    assert!(visitor.account().await.text().contains("<strong>bob</strong>"));
    front.stop().await;
}

#[tokio::test]
async fn a_signed_in_browser_goes_without_signing_in() {
    let front = Front::start().await;
    let [first, second] = [front.register("First").await, front.register("Second").await];
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.authorize_url(&first, &[]), &[]).await.away();
    assert_eq!(front.sign_ins("notion"), 1);
    let back = visitor.approve(&front.authorize_url(&second, &[]), &[]).await.away();
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(second.clone(), &front.redeem(&second, &code, &[]).await);
    assert_eq!(front.sign_ins("notion"), 1, "the provider was not needed again");
    assert_eq!(front.whoami(&tokens.access).await.json()["body"]["name"], "alice");
    front.stop().await;
}
