//! The dance, as a user walks it.

use serde_json::json;

use crate::arena::Target;
use crate::files::text;
use crate::http::ask;

/// Connects a subject to a provider. The simulated user is called like the subject.
pub async fn connect(target: &Target, provider: &str, subject: &str) -> Result<(), String> {
    let wanted = json!({ "provider": provider, "subject": subject });
    let link = ask(&target.admin, "POST", "/v1/connect-links", &wanted).await?;
    let link = link["url"].as_str().ok_or("a link without URL")?;
    let begun = target.client.post(link).send().await.map_err(text)?;
    let cookie = header(&begun, "set-cookie").split(';').next().unwrap_or_default().to_owned();
    let authorize = format!("{}&simulated_user={subject}", header(&begun, "location"));
    let agreed = target.client.get(authorize).send().await.map_err(text)?;
    let callback = header(&agreed, "location").to_owned();
    let done = target.client.get(callback).header("cookie", cookie).send().await.map_err(text)?;
    match done.status().as_u16() {
        303 => Ok(()),
        status => Err(format!("the callback answered {status}: {}", done.text().await.map_err(text)?)),
    }
}

/// Issues a handle for all connections of a subject.
pub async fn handle(target: &Target, subject: &str) -> Result<String, String> {
    let answer = ask(&target.admin, "POST", "/v1/handles", &json!({ "subject": subject })).await?;
    answer["handle"].as_str().map(str::to_owned).ok_or_else(|| "no handle".to_owned())
}

fn header<'r>(answer: &'r reqwest::Response, name: &str) -> &'r str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
