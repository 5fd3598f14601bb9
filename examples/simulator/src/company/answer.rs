//! What a company's file has answered.

use hyper::Method;
use serde_json::{Value, json};

use super::{Answer, Company, Fit, Values, filled, fits, sites_of};
use crate::api::Admitted;
use crate::clock;
use crate::random;
use crate::reply::{Reply, empty, json as json_reply, whole, with_header};
use crate::user;

/// The values that every template may have.
pub(crate) fn usual_value(name: &str) -> Option<Value> {
    match name {
        "uuid" => Some(json!(random::uuid())),
        "now_s" => Some(json!(clock::now_ms() / 1000)),
        "now_ms" => Some(json!(clock::now_ms())),
        "now_ms_text" => Some(json!(clock::now_ms().to_string())),
        "now_s_text" => Some(json!((clock::now_ms() / 1000).to_string())),
        "description" => Some(json!("The simulator refused.")),
        _ => None,
    }
}

/// The fixed answer for an admitted call, if there is one.
pub(crate) fn fixed(company: &Company, method: &Method, path: &str, admitted: &Admitted) -> Option<Reply> {
    let is_asked = |pattern: &str| fits(pattern, path, |_, _| true) == Fit::Yes;
    let mut all = company.api.answers.iter();
    let found = all.find(|answer| answer.method == method.as_str() && is_asked(&answer.path))?;
    let sites = admitted.call.shared.lock().settings(admitted.call.profile).sites;
    let values = |name: &str| match name {
        "sites" => Some(sites_of(company, sites).into_iter().cloned().collect()),
        "realm" => Some(json!(admitted.realm)),
        "user" => Some(json!(admitted.user)),
        "user_id" => Some(json!(random::uuid_of(&admitted.user))),
        "email" => Some(json!(user::email(&admitted.user))),
        "grant" => Some(json!(admitted.grant_id)),
        _ => usual_value(name),
    };
    Some(found.answer.reply(&values))
}

impl Answer {
    pub(crate) fn reply(&self, values: Values<'_>) -> Reply {
        let reply = match (&self.body, &self.text) {
            (Some(body), _) => json_reply(self.status, &filled(&body.0, values).unwrap_or_default()),
            (None, Some(text)) => whole(self.status, "text/plain; charset=utf-8", text.clone()),
            (None, None) => empty(self.status),
        };
        let headers = self.headers.iter();
        headers.fold(reply, |reply, (name, value)| with_header(reply, name, &super::filled_text(value, values)))
    }
}
