//! Helpers below every API root, for testing what lies in between: echo, streams, links, delays.
//! They also work below the company's usual prefix, e.g. `/v3/company/R/sse`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::api::Admitted;
use crate::clock::{self, sleep};
use crate::mark::SearchedBody;
use crate::profile::Profile;
use crate::random;
use crate::reply::{Reply, drain, json as json_reply, redirect, streaming, with_header};
use crate::token::Parameters;

const NAMES: [&str; 8] = ["echo", "sse", "chunks", "upload", "redirect", "link", "status", "slow"];

/// The path of the tool that is called, if one is.
pub(crate) fn wanted(admitted: &Admitted) -> Option<String> {
    let path = admitted.path.as_str();
    let realm = format!("/v3/company/{}", admitted.realm);
    let prefix = match admitted.call.profile {
        Profile::Quickbooks => realm.as_str(),
        Profile::Notion => "/v1",
        Profile::Slack => "/api",
        Profile::Gitlab => "/api/v4",
        Profile::Microsoft => "/v1.0",
        _ => "",
    };
    let below = path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'));
    let tool = below.unwrap_or(path).trim_start_matches('/');
    let name = tool.split('/').next()?;
    NAMES.contains(&name).then(|| tool.to_owned())
}

/// Answers a call to the tool at `path`, which [`wanted`] found.
pub(crate) async fn answer(path: &str, admitted: &Admitted, parts: &Parts, body: SearchedBody) -> Reply {
    let query = parts.uri.query().unwrap_or_default();
    let query = Parameters::from_form(query.as_bytes());
    let number = |name: &str, otherwise: u64| {
        let given = query.get(name).and_then(|text| text.parse().ok());
        given.unwrap_or(otherwise)
    };
    let (name, argument) = path.split_once('/').unwrap_or((path, ""));
    let interval = Duration::from_millis(number("interval_ms", 100));
    if matches!(name, "sse" | "chunks" | "redirect" | "link" | "status") {
        drain(body).await;
        return match name {
            "sse" => events(number("count", 3), interval),
            "chunks" => chunks(number("count", 3), interval, number("size", 1024)),
            "redirect" => {
                let status = u16::try_from(number("status", 302)).unwrap_or(302);
                redirect(status, query.get("to").unwrap_or_default())
            }
            "link" => links(admitted, &query),
            _ => status(argument, &query),
        };
    }
    match name {
        "upload" => upload(body).await,
        "slow" => {
            sleep(Duration::from_millis(number("ms", 1000))).await;
            echo(admitted, parts, body).await
        }
        _ => echo(admitted, parts, body).await,
    }
}

/// Says what arrived. The token itself is only shown as its hash.
pub(crate) async fn echo(admitted: &Admitted, parts: &Parts, body: SearchedBody) -> Reply {
    let (body_bytes, body_sha256) = digest(body).await;
    let listed: Vec<(String, String)> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), shown(name.as_str(), value.as_bytes()))).collect();
    let mut headers = Map::new();
    for name in parts.headers.keys() {
        headers.insert(name.to_string(), json!(joined(&listed, name.as_str())));
    }
    json_reply(
        200,
        &json!({
            "profile": admitted.call.profile.name(),
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "api_path": admitted.path,
            "query": parts.uri.query(),
            "headers": headers,
            "header_list": listed,
            "body_bytes": body_bytes,
            "body_sha256": body_sha256,
            "grant": admitted.grant_id,
            "realm": admitted.realm,
            "user": admitted.user,
            "token_id": admitted.token_id,
        }),
    )
}

fn joined(listed: &[(String, String)], name: &str) -> String {
    let values = listed.iter().filter(|(other, _)| other == name);
    let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
    values.join(", ")
}

fn shown(name: &str, value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match text.split_once(' ') {
        Some((_scheme, token)) if name == AUTHORIZATION.as_str() => {
            format!("sha256:{}", random::sha256_hex(token.trim()))
        }
        _ => text.into_owned(),
    }
}

async fn upload(body: SearchedBody) -> Reply {
    let (bytes, sha256) = digest(body).await;
    json_reply(200, &json!({"bytes": bytes, "sha256": sha256}))
}

/// Length and hash of a body, without keeping it. A body that breaks off counts as far as it came.
async fn digest(mut body: SearchedBody) -> (u64, String) {
    let mut length = 0;
    let mut hash = Sha256::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            hash.update(data);
        }
    }
    (length, random::hex(&hash.finalize()))
}

fn events(count: u64, interval: Duration) -> Reply {
    let (reply, mut sender) = streaming("text/event-stream");
    tokio::spawn(async move {
        for number in 1..=count {
            let data = json!({"n": number, "at_ms": clock::now_ms()});
            let event = format!("id: {number}\nevent: tick\ndata: {data}\n\n");
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
            if number < count {
                sleep(interval).await;
            }
        }
    });
    with_header(reply, "cache-control", "no-cache")
}

fn chunks(count: u64, interval: Duration, size: u64) -> Reply {
    let (reply, mut sender) = streaming("application/octet-stream");
    let chunk = Bytes::from(vec![b'c'; usize::try_from(size).unwrap_or(0)]);
    tokio::spawn(async move {
        for number in 1..=count {
            if sender.send_data(chunk.clone()).await.is_err() {
                return;
            }
            if number < count {
                sleep(interval).await;
            }
        }
    });
    reply
}

/// `?relation=target&…` becomes a `Link` header; a target that starts with `/` is taken to be
/// below the API root. Without a query: a next page.
fn links(admitted: &Admitted, query: &Parameters) -> Reply {
    let root = admitted.root();
    let absolute = |target: &str| match target.starts_with('/') {
        true => format!("{root}{target}"),
        false => target.to_owned(),
    };
    let mut links: Vec<String> =
        query.iter().map(|(relation, target)| format!("<{}>; rel=\"{relation}\"", absolute(target))).collect();
    if links.is_empty() {
        links.push(format!("<{root}/link?page=2>; rel=\"next\""));
    }
    let link = links.join(", ");
    with_header(json_reply(200, &json!({"link": link})), "link", &link)
}

/// `/status/CODE`, with `?retry_after=S` if wanted.
fn status(code: &str, query: &Parameters) -> Reply {
    let code = code.parse().ok().filter(|code| (200..=999).contains(code));
    let Some(code) = code else {
        return json_reply(400, &json!({"error": "no final status"}));
    };
    let reply = match code {
        204 | 304 => crate::reply::empty(code),
        _ => json_reply(code, &json!({"status": code})),
    };
    match query.get("retry_after") {
        Some(seconds) => with_header(reply, "retry-after", seconds),
        None => reply,
    }
}
