//! Just enough of a browser: it follows redirects when asked to, and keeps cookies for each host and port.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use crate::processes::text;

/// An answer, complete.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<Url>,
    /// All headers as text, for the record.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A browser, or any other HTTP client that does as it is told.
pub struct Browser {
    client: reqwest::Client,
    cookies: std::sync::Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Browser {
    /// One without cookies.
    #[expect(clippy::disallowed_methods, reason = "the demo is a client of Sidekey, not a part of it")]
    pub fn new() -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build().map_err(text)?;
        Ok(Self { client, cookies: std::sync::Mutex::default() })
    }

    /// Fetches a page.
    pub async fn get(&self, url: &str) -> Result<Answer, String> {
        self.send(self.client.get(url), url).await
    }

    /// Posts an empty form.
    pub async fn post_form(&self, url: &str) -> Result<Answer, String> {
        let form = self.client.post(url).header("content-type", "application/x-www-form-urlencoded");
        self.send(form, url).await
    }

    /// Sends a request with headers and a body.
    pub async fn call(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(text)?;
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, url).await
    }

    /// Follows redirects to the end.
    pub async fn follow(&self, mut answer: Answer) -> Result<Answer, String> {
        for _ in 0..10 {
            match answer.location.take() {
                Some(url) => answer = self.get(url.as_str()).await?,
                None => return Ok(answer),
            }
        }
        Err("too many redirects".to_owned())
    }

    async fn send(&self, request: reqwest::RequestBuilder, url: &str) -> Result<Answer, String> {
        let url = Url::parse(url).map_err(text)?;
        let site = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        let cookies = {
            let jar = self.cookies.lock().map_err(text)?;
            let pairs = jar.get(&site).into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join("; ")
        };
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies) };
        let answer = request.send().await.map_err(text)?;
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().map_err(text)?.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                let mut jar = self.cookies.lock().map_err(text)?;
                jar.entry(site.clone()).or_default().insert(name.to_owned(), value.to_owned());
            }
        }
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: answer.status().as_u16(),
            location: location.and_then(|location| url.join(location).ok()),
            headers: format!("{:?}", answer.headers()),
            body: answer.bytes().await.map_err(text)?.to_vec(),
        })
    }
}
