//! Journeys J2 and J3 when all goes well.

use serde_json::json;

use crate::front::{Front, Tokens, parameter};

#[tokio::test]
async fn the_user_who_authorized_the_client_is_the_user_whose_token_goes_into_the_call() {
    let front = Front::start().await;
    for user in ["alice", "bob"] {
        let tokens = front.authorized(user).await;
        let answer = front.whoami(&tokens.access).await.json();
        assert_eq!((&answer["status"], &answer["body"]["name"]), (&json!(200), &json!(user)), "{answer}");
    }
    for request in front.server.requests() {
        let credential = request.headers["authorization"].to_str().expect("text");
        assert!(credential.starts_with("Bearer sidekey_h_"), "{credential}");
    }
    assert_eq!(front.grants().await.len(), 2);
    front.stop().await;
}

#[tokio::test]
async fn a_client_gets_code_state_and_issuer() {
    let front = Front::start().await;
    let client_id = front.register("Notes for Claude").await;
    let mut browser = front.browser("alice");
    let (_, page) = browser.open(&front.authorize_url(&client_id, &[])).await.page();
    let text = page.text();
    for shown in ["Notes for Claude", "127.0.0.1:33418", "Notion", "GitHub", "registered itself", "Approve", "Deny"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    let back = browser.authorize(&front.authorize_url(&client_id, &[])).await;
    assert_eq!(parameter(&back, "state").as_deref(), Some("the state"));
    assert_eq!(parameter(&back, "iss"), Some(front.world.public("")));
    let code = parameter(&back, "code").expect("a code");
    let answer = front.redeem(&client_id, &code, &[]).await;
    assert_eq!((answer.header("cache-control"), answer.header("content-type")), ("no-store", "application/json"));
    let json = answer.json();
    assert_eq!(
        (&json["token_type"], &json["expires_in"], &json["scope"]),
        (&json!("Bearer"), &json!(3600), &json!("mcp"))
    );
    let tokens = Tokens::of(client_id, &answer);
    assert!(tokens.access.starts_with("sk_at_") && tokens.refresh.starts_with("sk_rt_"));
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_replaced_and_the_handle_stays() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    front.call(&tokens.access, "ping", json!({})).await;
    let refreshed = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert_ne!((&refreshed.access, &refreshed.refresh), (&tokens.access, &tokens.refresh));
    front.call(&refreshed.access, "ping", json!({})).await;
    let handles: Vec<_> =
        front.server.requests().iter().map(|request| request.headers["authorization"].clone()).collect();
    assert_eq!(handles.len(), 2);
    assert_eq!(handles[0], handles[1]);
    front.stop().await;
}
