//! Just enough of a browser: it follows redirects and refreshes when asked to, fills in forms, and keeps cookies for each
//! host and port.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION};
use serde_json::Value;
use url::Url;

use crate::page::{self, Form};
use crate::processes::text;

/// An answer, complete.
pub struct Answer {
    /// What was asked.
    pub url: Url,
    /// The status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// An error unless it is a success.
    pub fn success(&self) -> Result<(), String> {
        match self.status {
            200..=299 => Ok(()),
            status => Err(format!("{} answered {status}: {}", self.url, self.text())),
        }
    }

    /// The body of a success, as JSON.
    pub fn json(&self) -> Result<Value, String> {
        self.success()?;
        serde_json::from_slice(&self.body).map_err(text)
    }

    /// Where it leads at once: by a redirect, or by a refresh.
    pub fn next(&self) -> Option<Url> {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.url.join(&location.or_else(|| page::refresh(&self.text()))?).ok()
    }
}

type Cookies = BTreeMap<String, BTreeMap<String, String>>;

/// A browser, or any other HTTP client that does as it is told.
pub struct Browser {
    client: reqwest::Client,
    user: Option<String>,
    cookies: Mutex<Cookies>,
    history: Mutex<Vec<Url>>,
}

impl Browser {
    /// One without cookies.
    #[expect(clippy::disallowed_methods, reason = "the demo is a client of Sidekey, not a part of it")]
    pub fn new() -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build().map_err(text)?;
        Ok(Self { client, user: None, cookies: Mutex::default(), history: Mutex::default() })
    }

    /// One of a person, who says this name to the simulated provider.
    pub fn of(user: &str) -> Result<Self, String> {
        Ok(Self { user: Some(user.to_owned()), ..Self::new()? })
    }

    /// Fetches a page.
    pub async fn get(&self, url: &str) -> Result<Answer, String> {
        self.send(self.client.get(url), url).await
    }

    /// Posts a form.
    pub async fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer, String> {
        let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.call("POST", url, &headers, form.into_bytes()).await
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

    /// Presses a button of the form on a page, and goes on to the end.
    pub async fn press(&self, page: &Answer, button: &str) -> Result<Answer, String> {
        let form = Form::sent_by(&page.text(), button);
        let form = form.ok_or_else(|| format!("{} has no form: {}", page.url, page.text()))?;
        let fields: Vec<_> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let action = page.url.join(&form.action).map_err(text)?;
        self.follow(self.post_form(action.as_str(), &fields).await?).await
    }

    /// Goes on to the end.
    pub async fn follow(&self, mut answer: Answer) -> Result<Answer, String> {
        for _ in 0..10 {
            let Some(mut url) = answer.next() else { return Ok(answer) };
            self.history.lock().unwrap_or_else(PoisonError::into_inner).push(url.clone());
            if let Some(user) = self.user.as_deref().filter(|_| url.path() == "/quickbooks/authorize") {
                url.query_pairs_mut().append_pair("simulated_user", user);
            }
            answer = self.get(url.as_str()).await?;
        }
        Err("too many redirects".to_owned())
    }

    /// Where it was led to on a site, without queries.
    pub fn led_to(&self, site: &str) -> Option<String> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let found = history.iter().find(|url| url.as_str().starts_with(site));
        found.map(|url| format!("{}{}", url.origin().ascii_serialization(), url.path()))
    }

    async fn send(&self, request: reqwest::RequestBuilder, url: &str) -> Result<Answer, String> {
        let url = Url::parse(url).map_err(text)?;
        let site = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        let cookies = {
            let jar = self.jar();
            let pairs = jar.get(&site).into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join("; ")
        };
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies) };
        let answer = request.send().await.map_err(text)?;
        for cookie in answer.headers().get_all("set-cookie") {
            self.keep(&site, cookie.to_str().map_err(text)?);
        }
        Ok(Answer {
            url,
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.bytes().await.map_err(text)?.to_vec(),
        })
    }

    fn keep(&self, site: &str, cookie: &str) {
        let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) else { return };
        let mut jar = self.jar();
        let own = jar.entry(site.to_owned()).or_default();
        if cookie.contains("Max-Age=0") {
            own.remove(name);
        } else {
            own.insert(name.to_owned(), value.to_owned());
        }
    }

    fn jar(&self) -> std::sync::MutexGuard<'_, Cookies> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
