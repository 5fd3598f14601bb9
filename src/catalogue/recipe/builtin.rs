//! The bundled recipe files.

/// Name and content of each.
pub const FILES: [(&str, &str); 20] = [
    ("github", include_str!("../../../config/recipes/github.toml")),
    ("github-crunchtools", include_str!("../../../config/recipes/github-crunchtools.toml")),
    ("gitlab", include_str!("../../../config/recipes/gitlab.toml")),
    ("gitlab-zereight", include_str!("../../../config/recipes/gitlab-zereight.toml")),
    ("gmail", include_str!("../../../config/recipes/gmail.toml")),
    ("gmail-shinzo", include_str!("../../../config/recipes/gmail-shinzo.toml")),
    ("google-calendar", include_str!("../../../config/recipes/google-calendar.toml")),
    ("google-drive", include_str!("../../../config/recipes/google-drive.toml")),
    ("google-drive-reference", include_str!("../../../config/recipes/google-drive-reference.toml")),
    ("google-sheets", include_str!("../../../config/recipes/google-sheets.toml")),
    ("google-workspace", include_str!("../../../config/recipes/google-workspace.toml")),
    ("microsoft-365", include_str!("../../../config/recipes/microsoft-365.toml")),
    ("microsoft-lokka", include_str!("../../../config/recipes/microsoft-lokka.toml")),
    ("notion", include_str!("../../../config/recipes/notion.toml")),
    ("quickbooks", include_str!("../../../config/recipes/quickbooks.toml")),
    ("quickbooks-npm", include_str!("../../../config/recipes/quickbooks-npm.toml")),
    ("slack", include_str!("../../../config/recipes/slack.toml")),
    ("slack-crunchtools", include_str!("../../../config/recipes/slack-crunchtools.toml")),
    ("slack-korotovsky", include_str!("../../../config/recipes/slack-korotovsky.toml")),
    ("slack-zencoder", include_str!("../../../config/recipes/slack-zencoder.toml")),
];
