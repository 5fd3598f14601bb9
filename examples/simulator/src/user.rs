//! How users appear: their accounts, addresses and ids.

use serde_json::{Value, json};

use crate::profile::Profile;
use crate::random;

/// A user's own account, when accounts are not shared.
pub(crate) fn own_realm(profile: Profile, shared: &str, user: &str) -> String {
    let named = format!("{shared}/{user}");
    match profile {
        // As long as a company's number.
        Profile::Quickbooks => format!("934145{:010}", random::number_of(&named)),
        _ => random::uuid_of(&named),
    }
}

/// Where a user gets mail.
pub(crate) fn email(user: &str) -> String {
    format!("{user}@example.test")
}

/// GitHub's number for a user.
pub(crate) fn github_id(user: &str) -> u32 {
    random::number_of(user)
}

/// What Notion calls the owner of a connection: in token replies, and when its bot asks who it is.
pub(crate) fn notion_owner(user: &str) -> Value {
    json!({"type": "user", "user": notion_person(user)})
}

/// How Notion shows a person.
pub(crate) fn notion_person(user: &str) -> Value {
    json!({
        "object": "user",
        "id": random::uuid_of(user),
        "name": user,
        "avatar_url": null,
        "type": "person",
        "person": {"email": email(user)},
    })
}
