//! What Google's APIs answer, in the shapes that their clients expect.

use serde_json::{Value, json};

use crate::user;

/// What is found at a path; none where nothing is simulated.
pub(crate) fn found(path: &[&str], user: &str) -> Option<Value> {
    match path {
        ["calendar", "v3", "users", "me", "calendarList"] => Some(json!({
            "kind": "calendar#calendarList",
            "items": [calendar(&user::email(user), "Appointments"), calendar("holidays@example.com", "Holidays")],
        })),
        ["drive", "v3", "files"] => Some(json!({
            "kind": "drive#fileList", "incompleteSearch": false, "files": [file("1", "Shopping"), file("2", "Plans")],
        })),
        ["drive", "v3", "about"] => Some(json!({"user": {"displayName": user, "emailAddress": user::email(user)}})),
        ["gmail", "v1", "users", "me", "profile"] => {
            Some(json!({"emailAddress": user::email(user), "messagesTotal": 2, "threadsTotal": 1, "historyId": "7"}))
        }
        ["gmail", "v1", "users", "me", "labels"] => Some(json!({
            "labels": [{"id": "INBOX", "name": "INBOX", "type": "system"},
                       {"id": "Label_1", "name": "Receipts", "type": "user"}],
        })),
        _ => None,
    }
}

fn calendar(id: &str, summary: &str) -> Value {
    json!({"kind": "calendar#calendarListEntry", "id": id, "summary": summary, "accessRole": "owner",
           "timeZone": "Europe/Berlin", "primary": summary == "Appointments"})
}

fn file(id: &str, name: &str) -> Value {
    json!({"kind": "drive#file", "id": id, "name": name, "mimeType": "application/vnd.google-apps.spreadsheet",
           "modifiedTime": "2024-01-02T08:00:00.000Z", "createdTime": "2024-01-01T08:00:00.000Z",
           "webViewLink": format!("https://docs.google.com/spreadsheets/d/{id}"), "size": "1024"})
}
