//! Several users at one company: who approves, and whose grants end whose.

use crate::client::request;
use crate::flow::refused;
use crate::user::{Tokens, User, tokens};

async fn connect(user: &User, name: &str) -> Tokens {
    let code = user.authorize(&[("simulated_user", name)]).await.redirected("code").unwrap();
    tokens(&user.exchange(&code, &[]).await)
}

#[tokio::test]
async fn the_setting_names_the_user_and_a_request_may_name_another() {
    let user = User::of("generic").await;
    user.connect().await;
    assert_eq!(user.grant().user, "user-1");
    connect(&user, "").await;
    assert_eq!(user.grant().user, "user-1", "an empty name names nobody");
    let bob = connect(&user, "bob").await;
    assert_eq!(user.grant().user, "bob");
    let next = tokens(&user.refresh(&bob.refresh).await);
    assert_eq!(user.api("/echo", &next.access).await.json()["user"], "bob", "still, after a refresh");
    user.simulator.set("generic", |settings| settings.user = "carol".to_owned());
    user.connect().await;
    assert_eq!(user.grant().user, "carol");
}

#[tokio::test]
async fn the_consent_page_asks_who_it_is() {
    let user = User::of("generic").await;
    user.simulator.set("generic", |settings| settings.auto_approve = false);
    let html = user.authorize(&[]).await.text();
    assert_eq!(html.matches(r#"<input type="text" name="simulated_user" value="user-1">"#).count(), 1, "{html}");
    let html = user.authorize(&[("simulated_user", "\"><script>")]).await.text();
    let field = r#"<input type="text" name="simulated_user" value="&quot;&gt;&lt;script&gt;">"#;
    // Once in the whole page: a hidden field beside it would be a repeated parameter.
    assert!(html.contains(field) && html.matches(r#"name="simulated_user""#).count() == 1, "{html}");
    let approved = user.authorize(&[("simulated_user", "dora"), ("decision", "approve")]).await;
    tokens(&user.exchange(&approved.redirected("code").unwrap(), &[]).await);
    assert_eq!(user.grant().user, "dora");
}

#[tokio::test]
async fn users_share_an_account_unless_each_has_their_own() {
    for profile in ["quickbooks", "notion"] {
        let user = User::of(profile).await;
        let shared = user.simulator.settings(profile).realm_id;
        connect(&user, "alice").await;
        assert_eq!(user.grant().realm, shared);
        user.simulator.set(profile, |settings| settings.realm_per_user = true);
        let mut realms = Vec::new();
        for name in ["alice", "bob", "alice"] {
            let answer = user.authorize(&[("simulated_user", name)]).await;
            tokens(&user.exchange(&answer.redirected("code").unwrap(), &[]).await);
            realms.push(user.grant().realm);
            let announced = answer.redirected("realmId");
            assert_eq!(announced, (profile == "quickbooks").then(|| user.grant().realm));
        }
        assert_eq!(realms[0], realms[2]);
        assert!(realms[0] != realms[1] && realms[0] != shared);
        assert!(realms.iter().all(|realm| realm.len() == shared.len()), "{realms:?}");
    }
}

#[tokio::test]
async fn one_grant_ends_only_the_users_own_earlier_grant() {
    let user = User::of("generic").await;
    user.simulator.set("generic", |settings| settings.one_grant = true);
    let alice = connect(&user, "alice").await;
    let bob = connect(&user, "bob").await;
    assert!(user.accepts(&alice.access).await && user.accepts(&bob.access).await);
    let again = connect(&user, "alice").await;
    assert!(!user.accepts(&alice.access).await && user.accepts(&bob.access).await);
    refused(&user.refresh(&alice.refresh).await, 400, "invalid_grant");
    tokens(&user.refresh(&bob.refresh).await);
    tokens(&user.refresh(&again.refresh).await);
}

#[tokio::test]
async fn one_users_access_tokens_can_expire_alone() {
    let user = User::of("generic").await;
    let alice = connect(&user, "alice").await;
    let other = connect(&user, "alice").await;
    let bob = connect(&user, "b b").await;
    let expire = async |query: &str| {
        let target = format!("/control/expire/generic{query}");
        request(user.simulator.address(), "POST", &target, &[], "").await.json()["expired"].clone()
    };
    assert_eq!(expire("?user=nobody").await, 0);
    assert_eq!(expire("?user=alice").await, 2);
    assert!(!user.accepts(&alice.access).await && !user.accepts(&other.access).await);
    assert!(user.accepts(&bob.access).await);
    let next = tokens(&user.refresh(&alice.refresh).await);
    assert!(user.accepts(&next.access).await, "they can be refreshed");
    assert_eq!(expire("?user=b%20b").await, 1);
    assert!(!user.accepts(&bob.access).await);
    assert_eq!(user.simulator.expire_user("generic", "alice"), 1);
    tokens(&user.refresh(&next.refresh).await);
    tokens(&user.refresh(&bob.refresh).await);
    assert_eq!(expire("").await, 2);
}
