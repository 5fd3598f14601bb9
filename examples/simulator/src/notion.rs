//! What Notion's API answers, in the shapes that its clients expect.

use serde_json::{Value, json};

use crate::api::Admitted;
use crate::user;

/// `GET /v1/users/me`: the bot of this connection, and who gave it access.
pub(crate) fn bot(admitted: &Admitted) -> Value {
    json!({
        "object": "user",
        "id": format!("bot-of-{}", admitted.grant_id),
        "name": admitted.user,
        "avatar_url": null,
        "type": "bot",
        "bot": {"owner": user::notion_owner(&admitted.user), "workspace_name": "Simulated workspace"},
    })
}

/// `GET /v1/users`.
pub(crate) fn users() -> Value {
    list("user", json!([user::notion_person("Ada")]))
}

/// `POST /v1/search`.
pub(crate) fn found() -> Value {
    let pages = [
        page("11111111-0000-4000-8000-000000000001", "Shopping"),
        page("11111111-0000-4000-8000-000000000002", "Plans"),
    ];
    list("page_or_data_source", json!(pages))
}

fn list(kind: &str, results: Value) -> Value {
    json!({
        "object": "list", "results": results, "next_cursor": null, "has_more": false, "type": kind, kind: {},
    })
}

fn page(id: &str, title: &str) -> Value {
    let author = json!({"object": "user", "id": user::notion_person("Ada")["id"]});
    let url = format!("https://www.notion.so/{title}-{}", id.replace('-', ""));
    json!({
        "object": "page",
        "id": id,
        "created_time": "2024-01-01T08:00:00.000Z",
        "last_edited_time": "2024-01-02T08:00:00.000Z",
        "created_by": author,
        "last_edited_by": author,
        "cover": null,
        "icon": null,
        "parent": {"type": "workspace", "workspace": true},
        "archived": false,
        "in_trash": false,
        "properties": {"title": {"id": "title", "type": "title", "title": [text(title)]}},
        "url": url,
        "public_url": null,
    })
}

fn text(content: &str) -> Value {
    json!({
        "type": "text",
        "text": {"content": content, "link": null},
        "annotations": {
            "bold": false, "italic": false, "strikethrough": false, "underline": false, "code": false,
            "color": "default",
        },
        "plain_text": content,
        "href": null,
    })
}
