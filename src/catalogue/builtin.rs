//! The bundled provider files.

/// Name and content of each.
pub const FILES: [(&str, &str); 8] = [
    ("github", include_str!("../../config/providers/github.toml")),
    ("github-oauth-app", include_str!("../../config/providers/github-oauth-app.toml")),
    ("gitlab", include_str!("../../config/providers/gitlab.toml")),
    ("google", include_str!("../../config/providers/google.toml")),
    ("microsoft", include_str!("../../config/providers/microsoft.toml")),
    ("notion", include_str!("../../config/providers/notion.toml")),
    ("quickbooks", include_str!("../../config/providers/quickbooks.toml")),
    ("slack", include_str!("../../config/providers/slack.toml")),
];
