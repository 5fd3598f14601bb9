//! What a child says, and to whom it goes.

use std::collections::BTreeSet;

use serde_json::json;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::{Answer, Asker, Ending, Failure, MOST_MALFORMED, Multiplexer, OwnError, Waiting};
use crate::bridge::era::{Era, Introduction, Level, meta};
use crate::bridge::lines::Line;
use crate::bridge::message::{self, Batch, Message, Object, Outcome, raw};

/// What a child wrote that is no message, or answers nothing.
struct Nonsense<'a> {
    what: &'static str,
    /// Where the id of an answer may be found that was in it.
    text: &'a [u8],
}

impl Multiplexer {
    /// Understands one line.
    pub(super) fn hear(&self, line: &Line) {
        let text = match line {
            Line::Whole(text) => text.trim_ascii(),
            Line::TooLong { length } => {
                let nonsense = Nonsense { what: "a line that is longer than a message may be", text: &[] };
                return self.malformed(*length, &[nonsense]);
            }
        };
        let nonsense: Vec<_> = match text.first() {
            None => return,
            // Batches, which one revision had.
            Some(b'[') => match Batch::parse(text) {
                Some(parts) => parts.iter().filter_map(|part| self.hear_message(part.get().as_bytes()).err()).collect(),
                None => vec![Nonsense { what: "a line that is not JSON, or too long a batch", text }],
            },
            Some(_) => self.hear_message(text).err().into_iter().collect(),
        };
        if nonsense.is_empty() {
            self.state().malformed_in_a_row = 0;
        } else {
            self.malformed(text.len(), &nonsense);
        }
    }

    fn hear_message<'a>(&self, text: &'a [u8]) -> Result<(), Nonsense<'a>> {
        let object = Object::parse(text);
        match object.as_ref().and_then(Message::of) {
            Some(Message::Response { id, outcome }) => return self.answered(id, outcome),
            Some(Message::Notification { method, params }) => self.told(&method, params),
            Some(Message::Request { id, method, .. }) => self.asked(id, &method),
            None => return Err(Nonsense { what: "a line that is no JSON-RPC message", text }),
        }
        Ok(())
    }

    fn answered(&self, id: &RawValue, outcome: Outcome<'_>) -> Result<(), Nonsense<'static>> {
        let id = id.get().parse::<u64>().ok();
        let asker = {
            let mut state = self.state();
            if id.is_some_and(|id| state.dropped.remove(&id)) {
                return Ok(());
            }
            id.and_then(|id| state.pending.remove(&id))
        };
        match asker {
            Some(Asker::Client(waiting)) => {
                let answer = self.answer(&waiting, outcome);
                // The client may have gone in this moment.
                let _ = waiting.answer.send(answer);
            }
            Some(Asker::Ourselves(sender)) => {
                let _ = sender.send(match outcome {
                    Outcome::Result(result) => Ok(result.to_owned()),
                    Outcome::Error(error) => {
                        let error = Object::parse(error.get().as_bytes()).unwrap_or_default();
                        Err(OwnError::Error { code: code(&error), data: error.get("data").map(ToOwned::to_owned) })
                    }
                });
            }
            None => return Err(Nonsense { what: "an answer to nothing that was asked", text: &[] }),
        }
        Ok(())
    }

    fn answer(&self, waiting: &Waiting, outcome: Outcome<'_>) -> Result<Answer, Failure> {
        let id = &waiting.request.id;
        let result = match outcome {
            Outcome::Error(error) => {
                let code = code(&Object::parse(error.get().as_bytes()).unwrap_or_default());
                return Ok(Answer { text: message::response(id, outcome), error: Some(code) });
            }
            Outcome::Result(result) => result,
        };
        let text = match (waiting.request.era, self.era()) {
            (Era::Modern, Era::Handshake) => {
                let change = |introduction: &Introduction| introduction.modern_result(&waiting.request.method, result);
                let result = self.introduction.get().map_or_else(|| result.to_owned(), change);
                message::response(id, Outcome::Result(&result))
            }
            (Era::Handshake, Era::Modern) if needs_input(result) => return Err(Failure::NeedsInput),
            _ => message::response(id, outcome),
        };
        Ok(Answer { text, error: None })
    }

    /// A request of the child: nothing was declared that it could ask for.
    fn asked(&self, id: &RawValue, method: &str) {
        let line = if method == "ping" {
            message::response(id, Outcome::Result(&raw(&json!({}))))
        } else {
            let error = json!({ "code": -32601, "message": "Method not found: this client has no such capability" });
            message::response(id, Outcome::Error(&raw(&error)))
        };
        self.send_if_possible(line);
    }

    fn told(&self, method: &str, params: Option<&RawValue>) {
        match method {
            "notifications/progress" => self.progress(params),
            "notifications/message" => self.log_message(params),
            // It takes back what it asked; that was answered at once.
            "notifications/cancelled" | "notifications/subscriptions/acknowledged" => {}
            _ => {
                let own = params.map(without_subscription);
                self.audience.publish(method, own.as_deref());
            }
        }
    }

    fn progress(&self, params: Option<&RawValue>) {
        let Some(mut params) = params.and_then(|params| Object::parse(params.get().as_bytes())) else { return };
        let Some(own) = params.get(meta::PROGRESS).and_then(|token| token.get().parse::<u64>().ok()) else { return };
        let state = self.state();
        let Some(Asker::Client(waiting)) = state.pending.get(&own) else { return };
        let Some(token) = &waiting.progress else { return };
        params.set(meta::PROGRESS, token.clone());
        waiting.note(message::notification("notifications/progress", Some(&params.raw())));
    }

    /// Nothing says which request a log message belongs to. It goes to all clients of this user that are waiting for an
    /// answer and want such messages, and where nobody waits to those that listen.
    fn log_message(&self, params: Option<&RawValue>) {
        let level = params.and_then(|params| Object::parse(params.get().as_bytes())?.string("level"));
        let level = level.as_deref().and_then(Level::parse);
        let state = self.state();
        let mut told: Vec<&str> = Vec::new();
        let mut is_anybody_waiting = false;
        for asker in state.pending.values() {
            let Asker::Client(waiting) = asker else { continue };
            is_anybody_waiting = true;
            let is_wanted = match (waiting.request.era, waiting.request.level) {
                (Era::Handshake, None) => true,
                (Era::Modern, None) => false,
                (_, Some(least)) => level.is_none_or(|level| level >= least),
            };
            let session = waiting.request.session.as_deref();
            if !is_wanted || session.is_some_and(|session| told.contains(&session)) {
                continue;
            }
            told.extend(session);
            waiting.note(message::notification("notifications/message", params));
        }
        drop(state);
        if !is_anybody_waiting {
            self.audience.publish("notifications/message", params);
        }
    }

    /// A line of the child holds what is no message, or answers what was not asked. An answer that somebody waits for may
    /// have been in it: the only one, those that it names, or any. After too many of such lines it is given up.
    fn malformed(&self, length: usize, nonsense: &[Nonsense<'_>]) {
        let what = nonsense.first().map_or("nonsense", |nonsense| nonsense.what);
        let mut state = self.state();
        state.malformed += 1;
        state.malformed_in_a_row += 1;
        let is_given_up = state.malformed_in_a_row >= MOST_MALFORMED;
        // Never what it wrote, which may be secret; and of a child that does nothing else not every line.
        if state.malformed.is_power_of_two() {
            warn!(
                operation = "bridge_child_output", server = %self.key.server, subject = %self.key.subject, length,
                times = state.malformed,
                "the child wrote {what} to its standard output; it must write nothing there but MCP messages"
            );
        }
        let clients = state.pending.iter().filter(|(_, asker)| matches!(asker, Asker::Client(_)));
        let waiting: BTreeSet<u64> = clients.map(|(id, _)| *id).collect();
        let mut named = BTreeSet::new();
        if waiting.len() > 1 {
            named.extend(nonsense.iter().flat_map(|nonsense| ids(nonsense.text)).filter(|id| waiting.contains(id)));
        }
        let failed = if named.is_empty() { waiting } else { named };
        for id in failed {
            if let Some(asker) = state.pending.remove(&id) {
                state.drop_answer(id);
                asker.fail(Failure::Malformed);
            }
        }
        drop(state);
        if is_given_up {
            self.end(Ending::GivenUp);
        }
    }
}

impl Waiting {
    fn note(&self, message: Vec<u8>) {
        if self.notes.try_send(message).is_err() {
            debug!(operation = "bridge_notification", "a client does not read; left out");
        }
    }
}

fn code(error: &Object<'_>) -> i64 {
    error.get("code").and_then(|code| code.get().parse().ok()).unwrap_or(-32603)
}

fn needs_input(result: &RawValue) -> bool {
    let result = Object::parse(result.get().as_bytes());
    result.and_then(|result| result.string("resultType")).as_deref() == Some("input_required")
}

/// The subscription that it came by is ours.
fn without_subscription(params: &RawValue) -> Box<RawValue> {
    let Some(mut object) = Object::parse(params.get().as_bytes()) else { return params.to_owned() };
    let given = object.get("_meta").map(ToOwned::to_owned);
    let Some(mut meta) = given.as_deref().and_then(|meta| Object::parse(meta.get().as_bytes())) else {
        return params.to_owned();
    };
    meta.retain(|name| name != meta::SUBSCRIPTION);
    if meta.is_empty() {
        object.retain(|name| name != "_meta");
    } else {
        let meta = meta.raw();
        object.set("_meta", meta);
    }
    object.raw()
}

/// The ids that a broken message seems to have had.
fn ids(text: &[u8]) -> impl Iterator<Item = u64> {
    const BEFORE: &str = "\"id\":";
    memchr::memmem::find_iter(text, BEFORE).filter_map(|at| {
        let rest = &text[at + BEFORE.len()..];
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        // No id of ours has more digits.
        let digits = rest.iter().take(20).take_while(|digit| digit.is_ascii_digit()).count();
        std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
    })
}
