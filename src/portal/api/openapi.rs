//! The description of the API for programs: OpenAPI 3.1, whose schemas come from the types that requests are read into and answers
//! written from. `docs/openapi.json` is the same text; a test keeps it so.

use std::sync::OnceLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::connect::{ConnectAnswer, ConnectRequest};
use super::connections::{Connection, Connections, DisconnectAnswer, DisconnectRequest, ListQuery, StatusQuery};
use super::sites::{ChooseRequest, Site, Sites};
use crate::base::problem_details::{CONTENT_TYPE as PROBLEM_JSON, ProblemDetails};

/// `GET /api/v1/openapi.json`
pub async fn show() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")], text.as_str()).into_response()
}

/// The whole document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for operation in operations(&mut schemas) {
        let described = operation.describe();
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sidekey partner API",
            "version": "1",
            "summary": "Have your users connect their accounts at providers, and see how that stands.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "api_key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "api_key": { "type": "http", "scheme": "bearer", "description": "A key that the operator has issued." },
            },
            "schemas": schemas.all(),
        },
    })
}

/// The schemas by name, as they are needed.
struct Schemas {
    of_requests: SchemaGenerator,
    of_answers: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            of_requests: settings().for_deserialize().into_generator(),
            of_answers: settings().for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    fn request<T: JsonSchema>(&mut self) -> Value {
        self.of_requests.subschema_for::<T>().to_value()
    }

    fn answer<T: JsonSchema>(&mut self) -> Body {
        Body::Json(self.of_answers.subschema_for::<T>().to_value())
    }

    fn problem(&mut self) -> Body {
        Body::Problem(self.of_answers.subschema_for::<ProblemDetails>().to_value())
    }

    fn all(&mut self) -> Map<String, Value> {
        let mut all = self.of_answers.take_definitions(true);
        all.extend(self.of_requests.take_definitions(true));
        all.sort_keys();
        all
    }
}

/// One method at one path.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Whether it takes an API key.
    with_key: bool,
    parameters: Vec<Value>,
    /// The schema of the body, and whether there must be one.
    request: Option<(Value, bool)>,
    answers: Vec<Answer>,
}

/// An answer: its status, when it comes, and what it holds.
struct Answer(u16, &'static str, Body);

/// What an answer holds.
#[derive(Clone)]
enum Body {
    Json(Value),
    Problem(Value),
    /// A page; problem details for those who ask for JSON.
    Page(Value),
    /// Nothing but where to go on.
    Redirect,
}

impl Operation {
    fn describe(&self) -> Value {
        let mut described = json!({ "operationId": self.id, "summary": self.summary });
        if !self.with_key {
            described["security"] = json!([]);
        }
        if !self.parameters.is_empty() {
            described["parameters"] = self.parameters.clone().into();
        }
        if let Some((schema, required)) = &self.request {
            described["requestBody"] =
                json!({ "required": required, "content": { "application/json": { "schema": schema } } });
        }
        let answers = self.answers.iter().map(|answer| (answer.0.to_string(), self.describe_answer(answer)));
        described["responses"] = Value::Object(answers.collect());
        described
    }

    fn describe_answer(&self, Answer(status, when, body): &Answer) -> Value {
        let mut described = json!({ "description": when });
        let content = |kind: &str, schema: &Value| json!({ kind: { "schema": schema } });
        let text = json!({ "type": "string" });
        match body {
            Body::Json(schema) => described["content"] = content("application/json", schema),
            Body::Problem(schema) => described["content"] = content(PROBLEM_JSON, schema),
            Body::Page(schema) => {
                described["content"] = content("text/html", &text);
                described["content"][PROBLEM_JSON] = json!({ "schema": schema });
            }
            Body::Redirect => {
                described["headers"] = json!({ "Location": header("Where to go on.", "string") });
            }
        }
        if self.with_key && *status != 413 {
            for (name, what) in [
                ("RateLimit-Limit", "How many requests there may be at once."),
                ("RateLimit-Remaining", "How many are left."),
                ("RateLimit-Reset", "Seconds until all are there again, or the next one."),
            ] {
                described["headers"][name] = header(what, "integer");
            }
        }
        if *status == 429 {
            described["headers"]["Retry-After"] = header("Seconds to wait.", "integer");
        }
        described
    }
}

fn header(what: &str, kind: &str) -> Value {
    json!({ "description": what, "schema": { "type": kind }, "required": true })
}

const PROVIDER: &str = r"^[a-z][a-z0-9-]{0,39}$";
const SUBJECT: &str = r"^[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}$";

fn in_path(name: &str, what: &str, pattern: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": what,
        "schema": { "type": "string", "pattern": pattern },
    })
}

fn in_query(name: &str, what: &str) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": what, "schema": { "type": "string" } })
}

/// The parameters that a query is read into.
fn query_of<T: JsonSchema>(schemas: &mut Schemas) -> Vec<Value> {
    let schema: Schema = T::json_schema(&mut schemas.of_requests);
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let what = schema.as_object_mut().and_then(|schema| schema.shift_remove("description"));
        // A query has no `null`: what is not there is not said.
        if let Some(kinds) = schema.get_mut("type").filter(|kinds| kinds.is_array()) {
            *kinds = kinds[0].clone();
        }
        if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
            schema = choices[0].clone();
        }
        for name in ["default", "format"] {
            schema.as_object_mut().and_then(|schema| schema.shift_remove(name));
        }
        json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}

/// All operations. What may be answered is said here and nowhere else.
fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let named = || {
        vec![
            in_path("provider", "The provider, as the configuration calls it.", PROVIDER),
            in_path("subject", "Whose connection.", SUBJECT),
        ]
    };
    let problem = schemas.problem();
    let refusals = |more: &[(u16, &'static str)]| {
        let common = [
            (400, "Something in the request cannot be read, or is not allowed."),
            (401, "There is no API key, or none that is good."),
            (403, "The key is not for this provider or subject."),
            (429, "Too many requests."),
            (503, "The store, or a token that is needed, is not there right now."),
        ];
        let mut all: Vec<Answer> =
            common.iter().chain(more).map(|(status, when)| Answer(*status, when, problem.clone())).collect();
        all.sort_by_key(|answer| answer.0);
        all
    };
    let with = |good: Answer, more: &[(u16, &'static str)]| {
        let mut answers = refusals(more);
        answers.insert(0, good);
        answers
    };
    let unknown_provider = (404, "The provider is not configured.");
    let unknown = (404, "The provider is not configured, or there is no such connection.");
    let bodies = [(413, "The body is larger than 64 KiB, or too slow."), (415, "The body is not announced as JSON.")];
    let of_sites = [
        unknown,
        (409, "There is nothing to choose, or the connection must be mended first, or has changed meanwhile."),
        (502, "The provider did not say what there is."),
    ];
    let Body::Problem(problem_schema) = problem.clone() else { return Vec::new() };
    let page = Body::Page(problem_schema);
    let status_query = query_of::<StatusQuery>(schemas);
    vec![
        Operation {
            method: "post",
            path: "/api/v1/oauth/{provider}/connect/{subject}",
            id: "createConnectUrl",
            summary: "Make a one-time URL at which the subject connects in a browser.",
            with_key: true,
            parameters: named(),
            request: Some((schemas.request::<ConnectRequest>(), false)),
            answers: with(
                Answer(201, "The URL.", schemas.answer::<ConnectAnswer>()),
                &[&[unknown_provider][..], &bodies].concat(),
            ),
        },
        Operation {
            method: "get",
            path: "/api/v1/oauth/{provider}/connect/{subject}",
            id: "openConnectUrl",
            summary: "For browsers: go on to the provider, or to a page that asks first.",
            with_key: false,
            parameters: [
                named(),
                vec![
                    in_query("token", "What makes it a one-time URL. Without it the subject must be signed in here."),
                    in_query("label", "Without a token: which of several connections."),
                    in_query("return_to", "Without a token: the page that the browser is led to afterwards."),
                ],
            ]
            .concat(),
            request: None,
            answers: vec![
                Answer(303, "The browser goes on.", Body::Redirect),
                Answer(400, "Something in the address cannot be read, or is not allowed.", page.clone()),
                Answer(401, "The URL is over, or nobody is signed in whom it is for.", page.clone()),
                Answer(404, "The provider is not configured.", page.clone()),
                Answer(429, "Too many requests from this address.", page.clone()),
                Answer(503, "The store is not there right now.", page.clone()),
            ],
        },
        Operation {
            method: "get",
            path: "/api/v1/oauth/{provider}/callback",
            id: "callback",
            summary: "For browsers: where providers send them back to, with `callback = \"api\"` of the provider.",
            with_key: false,
            parameters: vec![
                in_path("provider", "The provider, as the configuration calls it.", PROVIDER),
                in_query("state", "What Sidekey sent along."),
                in_query("code", "What the provider grants. Some send further parameters, such as a company."),
                in_query("error", "Why it grants nothing."),
            ],
            request: None,
            answers: vec![
                Answer(303, "The browser goes on, to the partner's page if there is one.", Body::Redirect),
                Answer(400, "This is not how a sign-in comes back that was begun here.", page.clone()),
                Answer(404, "The provider is not configured.", page.clone()),
                Answer(409, "Another company is connected.", page.clone()),
                Answer(502, "The provider did not complete the sign-in.", page.clone()),
                Answer(503, "The store is not there right now.", page),
            ],
        },
        Operation {
            method: "get",
            path: "/api/v1/oauth/{provider}/status/{subject}",
            id: "status",
            summary: "How a connection stands.",
            with_key: true,
            parameters: [named(), status_query.clone()].concat(),
            request: None,
            answers: with(
                Answer(200, "How it stands; also where there is none.", schemas.answer::<Connection>()),
                &[unknown_provider],
            ),
        },
        Operation {
            method: "post",
            path: "/api/v1/oauth/{provider}/disconnect/{subject}",
            id: "disconnect",
            summary: "End a connection: here at once, at the provider as soon as it listens.",
            with_key: true,
            parameters: named(),
            request: Some((schemas.request::<DisconnectRequest>(), false)),
            answers: with(
                Answer(200, "It has ended.", schemas.answer::<DisconnectAnswer>()),
                &[&[unknown][..], &bodies].concat(),
            ),
        },
        Operation {
            method: "get",
            path: "/api/v1/oauth/{provider}/sites/{subject}",
            id: "sites",
            summary: "The sites, tenants or organizations that a connection may be for.",
            with_key: true,
            parameters: [named(), status_query].concat(),
            request: None,
            answers: with(Answer(200, "All of them.", schemas.answer::<Sites>()), &of_sites),
        },
        Operation {
            method: "post",
            path: "/api/v1/oauth/{provider}/sites/{subject}",
            id: "chooseSite",
            summary: "Choose the one that a connection is for.",
            with_key: true,
            parameters: named(),
            request: Some((schemas.request::<ChooseRequest>(), true)),
            answers: with(
                Answer(200, "It is for this one now.", schemas.answer::<Site>()),
                &[&of_sites[..], &bodies].concat(),
            ),
        },
        Operation {
            method: "get",
            path: "/api/v1/oauth/connections",
            id: "connections",
            summary: "The connections that the key covers, page by page.",
            with_key: true,
            parameters: query_of::<ListQuery>(schemas),
            request: None,
            answers: with(Answer(200, "One page.", schemas.answer::<Connections>()), &[]),
        },
        Operation {
            method: "get",
            path: "/api/v1/openapi.json",
            id: "openapi",
            summary: "This document.",
            with_key: false,
            parameters: Vec::new(),
            request: None,
            answers: vec![Answer(200, "The document.", Body::Json(json!({ "type": "object" })))],
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_checked_in_document_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&document()).expect("JSON"));
        if std::env::var_os("SIDEKEY_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "docs/openapi.json is stale: run `make schema`");
    }

    #[test]
    fn every_reference_leads_somewhere_and_names_are_said_once() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
            references += 1;
        }
        assert!(references > 40, "{references}");
        let operations = operations(&mut Schemas::default());
        let mut ids: Vec<&str> = operations.iter().map(|operation| operation.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), operations.len());
    }
}
