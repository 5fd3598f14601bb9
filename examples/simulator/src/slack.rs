//! What Slack's Web API answers, in the shapes that its clients expect: status 200, and whether it worked in `ok`.

use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::api::Admitted;
use crate::mark::SearchedBody;
use crate::random;
use crate::reply::{Reply, empty, json as json_reply, read};
use crate::token::Parameters;
use crate::user;

/// An id as Slack writes them: a letter for the kind, the same for the same text.
pub(crate) fn id(kind: char, text: &str) -> String {
    format!("{kind}{}", random::sha256_hex(text)[..10].to_ascii_uppercase())
}

/// Answers a call of `/api/METHOD`. Arguments come in the query, a form or JSON.
pub(crate) async fn answer(
    admitted: &Admitted,
    method: &str,
    query: &Parameters,
    headers: &HeaderMap,
    body: SearchedBody,
) -> Reply {
    let Some(body) = read(body).await else {
        return empty(400);
    };
    let posted = Parameters::from_body(headers, &body);
    let argument = |name: &str| posted.get(name).or(query.get(name)).map(str::to_owned);
    let required = |names: &[&'static str]| names.iter().find(|name| argument(name).is_none()).copied();
    let missing = required(match method {
        "chat.postMessage" => &["channel", "text"],
        "reactions.add" => &["channel", "timestamp", "name"],
        "conversations.history" => &["channel"],
        "conversations.replies" => &["channel", "ts"],
        _ => &[],
    });
    if let Some(name) = missing {
        return json_reply(200, &json!({"ok": false, "error": "invalid_arguments", "missing": name}));
    }
    json_reply(200, &result(admitted, method, &argument))
}

fn result(admitted: &Admitted, method: &str, argument: &dyn Fn(&str) -> Option<String>) -> Value {
    let me = id('U', &admitted.user);
    let channel = argument("channel").unwrap_or_default();
    match method {
        "auth.test" => json!({
            "ok": true, "url": "https://simulated.slack.com/", "team": "Simulated workspace", "user": admitted.user,
            "team_id": admitted.realm, "user_id": me, "bot_id": id('B', &admitted.grant_id),
        }),
        "conversations.list" => listed("channels", json!([conversation("general"), conversation("random")])),
        "conversations.info" => json!({"ok": true, "channel": conversation("general")}),
        "conversations.history" | "conversations.replies" => {
            listed("messages", json!([message(&me, "Good morning"), message(&me, "Hello")]))
        }
        "users.list" => listed("members", json!([member(&admitted.realm, &admitted.user)])),
        "users.info" => json!({"ok": true, "user": member(&admitted.realm, &admitted.user)}),
        "users.profile.get" => json!({"ok": true, "profile": profile(&admitted.user)}),
        "chat.postMessage" => json!({
            "ok": true, "channel": channel, "ts": "1700000001.000100",
            "message": message(&me, &argument("text").unwrap_or_default()),
        }),
        "reactions.add" => json!({"ok": true}),
        _ => json!({"ok": false, "error": "unknown_method", "req_method": method}),
    }
}

fn listed(name: &str, items: Value) -> Value {
    json!({"ok": true, name: items, "has_more": false, "response_metadata": {"next_cursor": ""}})
}

fn conversation(name: &str) -> Value {
    json!({"id": id('C', name), "name": name, "name_normalized": name, "is_channel": true, "is_archived": false, "is_private": false,
           "is_member": true, "num_members": 2})
}

fn message(author: &str, text: &str) -> Value {
    json!({"type": "message", "user": author, "text": text, "ts": "1700000001.000100"})
}

fn member(team: &str, name: &str) -> Value {
    json!({"id": id('U', name), "team_id": team, "name": name, "deleted": false, "real_name": name, "is_bot": false,
           "profile": profile(name)})
}

fn profile(name: &str) -> Value {
    json!({"real_name": name, "display_name": name, "email": user::email(name)})
}
