//! What GitLab's API answers, with all that its clients insist on.

use serde_json::{Value, json};

const WHEN: &str = "2026-01-02T03:04:05Z";

/// `GET /api/v4/user`.
pub(crate) fn user() -> Value {
    json!({
        "id": 1, "username": "tanuki", "name": "Tanuki", "state": "active", "avatar_url": null,
        "web_url": "https://gitlab.com/tanuki", "created_at": WHEN, "bio": "", "location": null, "public_email": null,
        "website_url": "", "organization": null, "job_title": null, "email": "tanuki@example.com",
        "last_sign_in_at": null, "confirmed_at": null, "last_activity_on": null,
    })
}

/// A project, by the path that is its name as well.
pub(crate) fn project(id: u64, path: &str) -> Value {
    let name = path.rsplit('/').next().unwrap_or(path);
    let web_url = format!("https://gitlab.com/{path}");
    json!({
        "id": id, "name": name, "path_with_namespace": path, "visibility": "private", "description": null,
        "ssh_url_to_repo": format!("git@gitlab.com:{path}.git"), "http_url_to_repo": format!("{web_url}.git"),
        "web_url": web_url, "created_at": WHEN, "last_activity_at": WHEN, "default_branch": "main",
    })
}
