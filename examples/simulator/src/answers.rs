//! What the APIs answer: a few useful things of each company, and an echo for the rest.

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, header::LINK};
use serde_json::{Value, json};

use crate::api::{Admitted, percent_decoded};
use crate::clock;
use crate::company;
use crate::gitlab;
use crate::google;
use crate::mark::SearchedBody;
use crate::notion;
use crate::profile::Profile;
use crate::reply::{Reply, drain, empty, json as json_reply, read, with_header};
use crate::slack;
use crate::token::Parameters;
use crate::tools;
use crate::user;

/// How many pages every list has.
const PAGES: u64 = 3;

/// Answers an admitted call.
pub(crate) async fn answer(admitted: &Admitted, parts: &Parts, body: SearchedBody) -> Reply {
    let path = admitted.path.trim_start_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let query = Parameters::from_form(parts.uri.query().unwrap_or_default().as_bytes());
    if let Some(company) = admitted.call.profile.company() {
        let found = company::fixed(company, &parts.method, &admitted.path, admitted);
        return match found {
            Some(reply) => {
                drain(body).await;
                reply
            }
            None => tools::echo(admitted, parts, body).await,
        };
    }
    let get = parts.method == Method::GET;
    let post = parts.method == Method::POST;
    match (admitted.call.profile, segments.as_slice()) {
        (Profile::Quickbooks, ["v3", "company", realm, "companyinfo", _]) if get => json_reply(200, &company(realm)),
        (Profile::Quickbooks, ["v3", "company", _, "query"]) if get => {
            json_reply(200, &query_response(query.get("query").unwrap_or_default()))
        }
        (Profile::Quickbooks, ["v3", "company", _, "invoice"]) if post => created(body, "Invoice", 200).await,
        (Profile::Github | Profile::GithubOauthApp, ["user"]) if get => json_reply(
            200,
            &json!({"login": admitted.user, "id": user::github_id(&admitted.user), "name": admitted.user,
                    "type": "User", "grant": admitted.grant_id,
                    "repos_url": format!("{}/users/{}/repos", admitted.root(), admitted.user)}),
        ),
        (Profile::Github | Profile::GithubOauthApp, ["user", "repos"]) if get => {
            page(admitted, parts, &query, |number| {
                json!({"id": number, "name": format!("repository-{number}"),
                       "full_name": format!("{}/repository-{number}", admitted.user), "private": false,
                       "url": format!("{}/repos/{}/repository-{number}", admitted.root(), admitted.user)})
            })
        }
        (Profile::Github | Profile::GithubOauthApp, ["repos", owner, name, "issues"]) if get => {
            page(admitted, parts, &query, |number| {
                json!({"id": number, "number": number, "title": format!("Issue {number}"), "state": "open",
                       "body": null, "labels": [], "user": {"login": admitted.user},
                       "html_url": format!("https://github.com/{owner}/{name}/issues/{number}")})
            })
        }
        (Profile::Google, path) if get => match google::found(path, &admitted.user) {
            Some(found) => json_reply(200, &found),
            None => tools::echo(admitted, parts, body).await,
        },
        (Profile::Notion, ["v1", "users", "me"]) if get => json_reply(200, &notion::bot(admitted)),
        (Profile::Notion, ["v1", "users"]) if get => json_reply(200, &notion::users()),
        (Profile::Notion, ["v1", "search"]) if post => match read(body).await {
            Some(_) => json_reply(200, &notion::found()),
            None => empty(400),
        },
        (Profile::Gitlab, ["api", "v4", "user"]) if get => json_reply(200, &gitlab::user()),
        (Profile::Gitlab, ["api", "v4", "projects"]) if get => {
            page(admitted, parts, &query, |number| gitlab::project(number, &format!("group/project-{number}")))
        }
        (Profile::Gitlab, ["api", "v4", "projects"]) if post => created(body, "", 201).await,
        (Profile::Gitlab, ["api", "v4", "projects", id]) if get => {
            json_reply(200, &gitlab::project(1, &percent_decoded(id)))
        }
        // Somebody decoded the %2F of a project's path on the way.
        (Profile::Gitlab, ["api", "v4", "projects", id, _, ..]) if !id.contains('%') && id.parse::<u64>().is_err() => {
            drain(body).await;
            json_reply(404, &json!({"message": "404 Project Not Found"}))
        }
        (Profile::Microsoft, ["v1.0" | "beta", "me"]) if get => json_reply(
            200,
            &json!({"displayName": "Adele Vance", "id": "simulated-user",
                    "userPrincipalName": "adele@example.com"}),
        ),
        (Profile::Slack, ["api", method]) => slack::answer(admitted, method, &query, &parts.headers, body).await,
        _ => tools::echo(admitted, parts, body).await,
    }
}

fn company(realm: &str) -> Value {
    json!({
        "CompanyInfo": {
            "CompanyName": "Sandbox Company_US_1",
            "LegalName": "Sandbox Company_US_1",
            "Country": "US",
            "Id": realm,
            "SyncToken": "4",
            "domain": "QBO",
        },
        "time": clock::now_ms(),
    })
}

fn query_response(query: &str) -> Value {
    let (name, items) = if query.to_ascii_lowercase().contains("customer") {
        let items = json!([
            {"Id": "1", "DisplayName": "Amy's Bird Sanctuary", "Balance": 239.0},
            {"Id": "2", "DisplayName": "Bill's Windsurf Shop", "Balance": 85.0},
        ]);
        ("Customer", items)
    } else {
        let items = json!([
            {"Id": "130", "DocNumber": "1037", "TotalAmt": 362.07, "Balance": 362.07},
            {"Id": "129", "DocNumber": "1036", "TotalAmt": 477.5, "Balance": 477.5},
        ]);
        ("Invoice", items)
    };
    json!({
        "QueryResponse": {name: items, "startPosition": 1, "maxResults": 2, "totalCount": 2},
        "time": clock::now_ms(),
    })
}

/// Gives back what was sent, with an id; below `name` if there is one.
async fn created(body: SearchedBody, name: &str, status: u16) -> Reply {
    let Some(body) = read(body).await else {
        return empty(400);
    };
    let Some(mut item) = object(&body) else {
        return json_reply(400, &json!({"error": "the body is not a JSON object"}));
    };
    match name {
        "" => {
            item["id"] = json!(1001);
            json_reply(status, &item)
        }
        name => {
            item["Id"] = json!("1001");
            item["SyncToken"] = json!("0");
            json_reply(status, &json!({name: item, "time": clock::now_ms()}))
        }
    }
}

fn object(body: &Bytes) -> Option<Value> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.is_object().then_some(value)
}

/// One page of a list, with RFC 8288 links to its neighbours.
fn page(admitted: &Admitted, parts: &Parts, query: &Parameters, item: impl Fn(u64) -> Value) -> Reply {
    let number = |name: &str, otherwise: u64| {
        let given = query.get(name).and_then(|text| text.parse().ok());
        given.unwrap_or(otherwise).clamp(1, 100)
    };
    let (page, size) = (number("page", 1), number("per_page", 2));
    let items: Vec<Value> = (1..=size).map(|n| item((page - 1) * size + n)).collect();
    // As the client wrote it, whichever way it came.
    let path = parts.uri.path();
    let link = |page: u64, relation: &str| {
        let url = format!("{}{path}?page={page}&per_page={size}", admitted.call.origin);
        format!("<{url}>; rel=\"{relation}\"")
    };
    let mut links = Vec::new();
    if page > 1 {
        links.push(link(page - 1, "prev"));
    }
    if page < PAGES {
        links.push(link(page + 1, "next"));
    }
    links.push(link(PAGES, "last"));
    with_header(json_reply(200, &Value::Array(items)), LINK.as_str(), &links.join(", "))
}
