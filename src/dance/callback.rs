//! The browser comes back.

mod signature;

use std::sync::Arc;

use regex_lite::Regex;
use tracing::{info, warn};

use super::sites::earlier_site;
use super::{CallbackError, Dance, cookie_name};
use crate::base::backoff::RETRY_WAITS;
use crate::base::digest::{Digest, sha256};
use crate::base::http::HttpError;
use crate::base::random;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::{Authorize, Capture, ErrorClass};
use crate::catalogue::provider::TokenSource;
use crate::model::authorization::User;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState};
use crate::model::continuation::Continuation;
use crate::model::flow::{Allowance, Flow, FlowId, LIFETIME, Purpose, RETURN_LIFETIME, StateError, verify_state};
use crate::model::names::{Label, ProviderName, Subject};
use crate::model::token_set::TokenSet;
use crate::oauth::scopes::holds_more;
use crate::oauth::token_request;
use crate::oauth::token_response::{self, Exchange, TokenReply, Verdict};
use crate::store::TakenFlow;
use crate::store::record::{ConnectionRecord, FlowRecord, connection_context, field, verifier_context};
use crate::telemetry::audit;
use crate::telemetry::stopwatch::Stopwatch;

/// The query of a callback, decoded, in the order in which it came.
pub struct CallbackParameters(pub Vec<(String, String)>);

/// A connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Which.
    pub key: ConnectionKey,
    /// Its record's name, which no other connection of that key has.
    pub id: String,
    /// Who the provider says the user is, where that was the question.
    pub user: Option<User>,
    /// Whether the user has yet to choose what it is for ([`Dance::sites`]).
    pub choice_needed: bool,
}

/// A browser came back.
#[derive(Debug)]
pub struct Returned {
    /// Where it goes on; `None` if it is not the browser that began.
    pub continuation: Option<Continuation>,
    /// What the link allows that it was begun with, if it was.
    pub allowance: Option<Allowance>,
    /// The cookie that has done its work, without prefix. Those of other flows are still needed.
    pub spent_cookie: Option<String>,
    /// How the dance ended.
    pub result: Result<Connected, CallbackError>,
}

/// Whether the API key of this digest is still good for a connection.
pub type Vouches<'v> = &'v (dyn Fn(&Digest, &ConnectionKey) -> bool + Sync);

/// Longer values are not looked at.
const LONGEST_VALUE: usize = 8192;

impl CallbackParameters {
    /// The value of a parameter that may stand there once.
    fn one(&self, name: &str) -> Result<Option<&str>, CallbackError> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            return Err(CallbackError::Malformed("a parameter is there twice"));
        }
        match value {
            Some(value) if value.len() > LONGEST_VALUE => Err(CallbackError::Malformed("a parameter is too long")),
            value => Ok(value.filter(|value| !value.is_empty())),
        }
    }
}

/// What a callback says once it is well-formed and belongs to a flow of ours.
enum Answer {
    Code(Secret),
    Denied { code: Option<String>, description: String },
}

impl Dance {
    /// Ends the dance for a browser that came to the callback path of `provider`. `cookie` looks up a cookie by name; `signed_in` is
    /// who uses the browser now; `vouches` is whether an API key is still good for a connection.
    pub async fn callback(
        self: &Arc<Self>,
        provider: &ProviderName,
        parameters: &CallbackParameters,
        cookie: &(dyn Fn(&str) -> Option<String> + Sync),
        signed_in: Option<&Subject>,
        vouches: Vouches<'_>,
    ) -> Returned {
        let stopwatch = Stopwatch::start();
        let mut flow = None;
        let result = self.end(provider, parameters, cookie, (signed_in, vouches), &mut flow).await;
        let outcome = result.as_ref().map_or_else(CallbackError::word, |_| "ok");
        self.parts.metrics.connected(provider, outcome);
        let known = flow.as_ref().and_then(|flow: &Flow| flow.purpose.connection());
        let key = result.as_ref().map(|connected| &connected.key).ok().or(known);
        info!(
            operation = "connect", provider = %provider, subject = key.map(|key| key.subject.as_str()),
            label = key.map(|key| key.label.as_str()),
            sign_in = flow.as_ref().is_some_and(|flow| flow.purpose.subject().is_none()),
            duration_ms = stopwatch.millis(), outcome,
            error = result.as_ref().err().and_then(CallbackError::why),
        );
        self.parts.audit.record(audit_record(&result, flow.as_ref(), provider, outcome));
        let spent_cookie = flow.as_ref().map(|flow| cookie_name(flow.id));
        let allowance = flow.as_ref().and_then(|flow| flow.allowance);
        Returned { continuation: flow.map(|flow| flow.continuation), allowance, spent_cookie, result }
    }

    async fn end(
        self: &Arc<Self>,
        name: &ProviderName,
        parameters: &CallbackParameters,
        cookie: &(dyn Fn(&str) -> Option<String> + Sync),
        (signed_in, vouches): (Option<&Subject>, Vouches<'_>),
        flow: &mut Option<Flow>,
    ) -> Result<Connected, CallbackError> {
        let provider = self.provider(name).ok_or(CallbackError::OtherProvider)?;
        let (flow_id, answer, is_late) = self.read(parameters)?;
        let record = self.take(flow_id, name, cookie).await?;
        let (now, expires_at) = (self.parts.clock.now(), record.flow.expires_at);
        // Where a browser was long ago is of no interest to it.
        if now >= expires_at.plus(RETURN_LIFETIME.saturating_sub(LIFETIME)) {
            return Err(CallbackError::ExpiredState);
        }
        *flow = Some(record.flow.clone());
        if is_late || expires_at <= now {
            return Err(CallbackError::ExpiredState);
        }
        // What a link has begun is over with the API key that the link was made with.
        if let (Some(Allowance { api_key: Some(digest), .. }), Purpose::Connect(key)) =
            (&record.flow.allowance, &record.flow.purpose)
            && !vouches(digest, key)
        {
            return Err(CallbackError::ExpiredState);
        }
        // What was begun on the page of one user's account is not ended under another's, who may use the browser by now.
        if let (Continuation::Account, Purpose::Connect(key)) = (&record.flow.continuation, &record.flow.purpose)
            && signed_in != Some(&key.subject)
        {
            return Err(CallbackError::OtherBrowser);
        }
        self.finish(provider, record, answer, parameters).await
    }

    /// The flow that comes back, what it brings, and whether it took too long.
    fn read(&self, parameters: &CallbackParameters) -> Result<(FlowId, Answer, bool), CallbackError> {
        let state = parameters.one("state")?.ok_or(CallbackError::Malformed("`state` is missing"))?;
        let (code, error) = (parameters.one("code")?, parameters.one("error")?);
        let answer = match (code, error) {
            (Some(code), None) => Answer::Code(Secret::new(code)),
            (_, Some(error)) => Answer::Denied {
                code: plain_code(error),
                description: parameters.one("error_description")?.unwrap_or_default().to_owned(),
            },
            (None, None) => return Err(CallbackError::Malformed("both `code` and `error` are missing")),
        };
        match verify_state(&self.state_key, state, self.parts.clock.now()) {
            Ok(flow_id) => Ok((flow_id, answer, false)),
            Err(StateError::Expired(flow_id)) => Ok((flow_id, answer, true)),
            Err(StateError::Forged) => Err(CallbackError::ForgedState),
        }
    }

    /// Uses up the flow, whoever comes with its state: a state that was seen by a wrong browser is worth nothing anymore.
    async fn take(
        &self,
        flow_id: FlowId,
        provider: &ProviderName,
        cookie: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<FlowRecord, CallbackError> {
        let now = self.parts.clock.now();
        let record = match self.parts.store.take_flow(flow_id, now).await.map_err(CallbackError::Store)? {
            TakenFlow::Open(record) => *record,
            TakenFlow::AlreadyUsed => return Err(CallbackError::AlreadyUsed),
            TakenFlow::Unknown => return Err(CallbackError::ExpiredState),
        };
        // Compared as digests, so that the time it takes tells nothing about the value.
        let presented = cookie(&cookie_name(flow_id)).map(|value| sha256(value.as_bytes()));
        if presented != Some(record.flow.browser_binding) {
            return Err(CallbackError::OtherBrowser);
        }
        if record.flow.purpose.provider() != provider {
            return Err(CallbackError::OtherProvider);
        }
        Ok(record)
    }

    async fn finish(
        self: &Arc<Self>,
        provider: &Arc<Provider>,
        record: FlowRecord,
        answer: Answer,
        parameters: &CallbackParameters,
    ) -> Result<Connected, CallbackError> {
        check_issuer(&provider.entry.authorize, parameters)?;
        let code = match answer {
            Answer::Code(code) => code,
            Answer::Denied { code, description } => return Err(denied(provider, code, &description)),
        };
        signature::check(provider, parameters)?;
        let captured = capture(&provider.entry.authorize.capture, parameters)?;
        // In a task of its own: a browser that goes away must not leave a code exchanged and its tokens nowhere.
        let (dance, provider) = (Arc::clone(self), Arc::clone(provider));
        let under_way = dance.parts.vault.work_under_way();
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            dance.exchange_and_store(&provider, record, code, captured).await
        });
        task.await.unwrap_or_else(|error| Err(CallbackError::ProviderDown { summary: error.to_string() }))
    }

    async fn exchange_and_store(
        &self,
        provider: &Provider,
        record: FlowRecord,
        code: Secret,
        captured: Captured,
    ) -> Result<Connected, CallbackError> {
        // Before the code is used, where it is known already: then nothing was granted.
        if let Purpose::Connect(key) = &record.flow.purpose {
            self.guard_realm(provider, key, &captured, Known::Partly).await?;
        }
        let verifier = self.open_verifier(&record)?;
        // A code works once, and may end the grant before it: what it brings must find room.
        self.parts.store.health().await.map_err(CallbackError::Store)?;
        let reply = self.exchange(provider, &code, verifier.as_ref()).await?;
        let requested = record.flow.requested_scopes;
        let (key, user) = match record.flow.purpose {
            Purpose::Connect(key) => (key, None),
            Purpose::SignIn(name) => {
                let user = self.identify(provider, &reply, record.flow.id).await?;
                let subject = user.subject.clone();
                (ConnectionKey::new(subject, name, Label::default()), Some(user))
            }
        };
        let account = match user.as_ref().and_then(|user| user.account.clone()) {
            Some(account) => Some(account),
            None => self.parts.accounts.shown_name(provider, &reply).await,
        };
        let captured: Captured = captured.into_iter().chain(reply.captured.clone()).collect();
        let first_look = self.first_look(provider, &key, &reply.tokens.access_token).await?;
        let captured: Captured = captured.into_iter().chain(first_look.values).collect();
        // Its tokens are dropped and not given back: the other company may be connected elsewhere by the same grant.
        self.guard_realm(provider, &key, &captured, Known::Whole).await?;
        let choice_needed = !provider.is_finished(&captured);
        let earlier_site = first_look.earlier.filter(|_| choice_needed);
        let records = self.records(provider, &key, reply, &Noted { requested, account, captured, earlier_site });
        // Who only signs in takes nothing away from what was granted for more. The new tokens are dropped and not given
        // back, for that may end the whole grant.
        if user.is_some()
            && let Some(id) = self.outdone_by(provider, &key, &records).await?
        {
            return Ok(Connected { key, id, user, choice_needed: false });
        }
        let now = self.parts.clock.now();
        self.parts.store.connect(records.clone(), now).await.map_err(CallbackError::Store)?;
        if let Err(error) = self.parts.vault.adopt(&records) {
            warn!(operation = "connect", connection = %key, ?error, "stored, but not usable");
        }
        let id = records.first().map(|record| record.id.clone()).unwrap_or_default();
        Ok(Connected { key, id, user, choice_needed })
    }

    /// A connection is never silently replaced by one for another company, workspace or site.
    async fn guard_realm(
        &self,
        provider: &Provider,
        key: &ConnectionKey,
        chosen: &Captured,
        known: Known,
    ) -> Result<(), CallbackError> {
        if provider.entry.realm.is_empty() {
            return Ok(());
        }
        let Some(connected) = self.parts.store.connection(key.clone()).await.map_err(CallbackError::Store)? else {
            return Ok(());
        };
        let before: Captured = earlier_site(provider, &connected).into_iter().chain(connected.captured).collect();
        // What is looked up may be unknown for now; what the provider says of itself it must say again.
        let must_be_named = |name: &String| known == Known::Whole && !provider.looked_up.contains(name);
        other_realm(&provider.entry.realm, &before, chosen, must_be_named).map_or(Ok(()), Err)
    }

    /// The sound connection that is good for all that the new one is good for, and for more, if there is one. Where a new grant ends
    /// the one before it, there is not.
    async fn outdone_by(
        &self,
        provider: &Provider,
        key: &ConnectionKey,
        new: &[ConnectionRecord],
    ) -> Result<Option<String>, CallbackError> {
        let Some(new) = new.first().filter(|_| !provider.entry.rotation.one_grant) else { return Ok(None) };
        let there = self.parts.store.connection(key.clone()).await.map_err(CallbackError::Store)?;
        let is_better = |there: &ConnectionRecord| {
            there.state == ConnectionState::Active
                && there.trouble.is_none()
                && there.refresh_token.is_some() == new.refresh_token.is_some()
                && holds_more(provider, there.held(), new.held())
        };
        Ok(there.filter(is_better).map(|there| there.id))
    }

    async fn identify(&self, provider: &Provider, reply: &TokenReply, flow: FlowId) -> Result<User, CallbackError> {
        let account = self.parts.accounts.identify(provider, reply, &self.nonce(flow)).await;
        account.map(|account| account.user()).map_err(|error| {
            warn!(operation = "sign_in", provider = %provider.name, %error, "nobody was identified");
            CallbackError::NotIdentified { summary: error.to_string() }
        })
    }

    fn open_verifier(&self, record: &FlowRecord) -> Result<Option<Secret>, CallbackError> {
        let id = record.flow.id.to_string();
        let context = verifier_context(&record.flow.purpose, &id);
        let open = |sealed| self.parts.sealer.open(&context, sealed).map_err(|_| CallbackError::ExpiredState);
        record.verifier.as_ref().map(open).transpose()
    }

    /// A code works once: it is sent again only if nothing of the request was sent.
    async fn exchange(
        &self,
        provider: &Provider,
        code: &Secret,
        verifier: Option<&Secret>,
    ) -> Result<TokenReply, CallbackError> {
        let mut waits = RETRY_WAITS.iter();
        loop {
            let sent_at = self.parts.clock.now();
            let reply = self.parts.http.send(token_request::exchange_code(provider, code, verifier)).await;
            match (reply, waits.next()) {
                (Ok(reply), _) => {
                    return token_response::read(&provider.entry, Exchange::Code, &reply, sent_at).map_err(|refusal| {
                        let summary = refusal.summary;
                        match refusal.verdict {
                            Verdict::Class(ErrorClass::Configuration) => CallbackError::Registration { summary },
                            Verdict::Class(ErrorClass::Permanent | ErrorClass::UserAction) | Verdict::Misbehaved => {
                                CallbackError::CodeRefused { summary }
                            }
                            Verdict::Class(ErrorClass::Transient) | Verdict::Throttled | Verdict::Unknown => {
                                CallbackError::ProviderDown { summary }
                            }
                        }
                    });
                }
                (Err(HttpError::NotSent(why)), Some(wait)) => {
                    warn!(operation = "connect", provider = %provider.name, error = why, "the code could not be sent yet");
                    self.parts.clock.sleep(*wait).await;
                }
                (Err(error), _) => return Err(CallbackError::ProviderDown { summary: error.to_string() }),
            }
        }
    }

    /// The records of a new connection: one for each of its access tokens, the first one first.
    fn records(
        &self,
        provider: &Provider,
        key: &ConnectionKey,
        reply: TokenReply,
        noted: &Noted,
    ) -> Vec<ConnectionRecord> {
        let TokenReply { tokens, further, .. } = reply;
        let mut others = Vec::new();
        for wanted in &provider.further_tokens {
            let tokens = match &wanted.source {
                // What the user did not agree to is not in the reply, and not there to be used.
                TokenSource::Reply => {
                    further.iter().find(|(name, _)| *name == wanted.name).map(|(_, tokens)| tokens.clone())
                }
                // It is asked for at once: what is there meanwhile has expired.
                TokenSource::Scopes(_) => tokens.refresh_token.is_some().then(|| TokenSet {
                    access_token: Secret::new(""),
                    access_expires_at: Some(self.parts.clock.now()),
                    scopes: None,
                    ..tokens.clone()
                }),
            };
            if tokens.is_none() {
                warn!(operation = "connect", connection = %key, token = %wanted.name, "the reply has no such token");
            }
            others.extend(tokens.map(|tokens| (key.with_token(Some(wanted.name.clone())), tokens)));
        }
        let first = (key.clone(), tokens);
        std::iter::once(first).chain(others).map(|(key, tokens)| self.record(key, &tokens, noted)).collect()
    }

    fn record(&self, key: ConnectionKey, tokens: &TokenSet, noted: &Noted) -> ConnectionRecord {
        const FIRST_GENERATION: u64 = 1;
        let id = random::identifier(self.parts.random.as_ref(), "c_");
        let now = self.parts.clock.now();
        let seal = |field, secret: &Secret| {
            self.parts.sealer.seal(&connection_context(&key, &id, field, FIRST_GENERATION), secret)
        };
        let access_token = seal(field::ACCESS_TOKEN, &tokens.access_token);
        let refresh_token = tokens.refresh_token.as_ref().map(|token| seal(field::REFRESH_TOKEN, token));
        let refresh_due_at = match &refresh_token {
            Some(_) => self.parts.vault.due_at(now, tokens.access_expires_at, tokens.refresh_expires_at),
            None => None,
        };
        ConnectionRecord {
            state: ConnectionState::Active,
            captured: noted.captured.clone(),
            earlier_site: noted.earlier_site.clone(),
            scopes: tokens.scopes.clone(),
            requested_scopes: Some(noted.requested.clone()),
            account: noted.account.clone(),
            generation: FIRST_GENERATION,
            access_token,
            access_expires_at: tokens.access_expires_at,
            refresh_token_since: refresh_token.as_ref().map(|_| now),
            refresh_expires_at: tokens.refresh_expires_at.filter(|_| refresh_token.is_some()),
            grant_expires_at: tokens.grant_expires_at.filter(|_| refresh_token.is_some()),
            refresh_token,
            previous_refresh_token: None,
            refresh_due_at,
            intent: None,
            trouble: None,
            connected_at: now,
            refreshed_at: None,
            id,
            key,
        }
    }
}

/// What is known of a new connection besides its tokens.
struct Noted {
    requested: Vec<String>,
    account: Option<String>,
    captured: Captured,
    earlier_site: Option<Captured>,
}

/// What it means that access was not granted. Whether an administrator must agree first stands in the code at some providers, and
/// in the description at others.
fn denied(provider: &Provider, code: Option<String>, description: &str) -> CallbackError {
    let says = |known: &String| code.as_ref() == Some(known) || description.contains(known.as_str());
    if provider.entry.errors.admin_consent.iter().any(says) {
        return CallbackError::AdminConsent { code };
    }
    CallbackError::Denied { code }
}

/// Who tried to connect what, as far as it is known, and how it ended.
fn audit_record(
    result: &Result<Connected, CallbackError>,
    flow: Option<&Flow>,
    provider: &ProviderName,
    outcome: &str,
) -> audit::Record {
    let operation = match flow {
        Some(flow) if flow.purpose.subject().is_none() => "sign_in",
        _ => "connect",
    };
    let known = flow.and_then(|flow| flow.purpose.connection());
    let record = match result.as_ref().map(|connected| &connected.key).ok().or(known) {
        Some(key) => audit::Record::of_connection(operation, outcome, key),
        None => audit::Record { provider: Some(provider.clone()), ..audit::Record::new(operation, outcome) },
    };
    audit::Record { reason: result.as_ref().err().and_then(CallbackError::why), ..record }
}

/// RFC 9207 section 2.4: what is sent must be right, and what is advertised must be sent.
fn check_issuer(authorize: &Authorize, parameters: &CallbackParameters) -> Result<(), CallbackError> {
    match (parameters.one("iss")?, &authorize.issuer) {
        (Some(sent), Some(expected)) if sent != expected => Err(CallbackError::WrongIssuer),
        (None, _) if authorize.issuer_required => Err(CallbackError::WrongIssuer),
        _ => Ok(()),
    }
}

fn capture(declared: &[Capture], parameters: &CallbackParameters) -> Result<Captured, CallbackError> {
    let mut captured = Captured::new();
    for capture in declared {
        let bad = |missing| CallbackError::BadCapture { parameter: capture.parameter.clone(), missing };
        match parameters.one(&capture.parameter)? {
            Some(value) if Regex::new(&capture.pattern).is_ok_and(|pattern| pattern.is_match(value)) => {
                captured.insert(capture.to.clone(), value.to_owned());
            }
            Some(_) => return Err(bad(false)),
            None if capture.required => return Err(bad(true)),
            None => {}
        }
    }
    Ok(captured)
}

/// How much is known of what a new connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// What the callback says.
    Partly,
    /// All that there is to know.
    Whole,
}

/// The first of these values that both have and that differs, or that the new one does not have and must.
fn other_realm(
    realm: &[String],
    connected: &Captured,
    chosen: &Captured,
    must_be_named: impl Fn(&String) -> bool,
) -> Option<CallbackError> {
    let other = |name: &String, connected: &String, chosen: &str| {
        let (name, connected, chosen) = (name.clone(), connected.clone(), chosen.to_owned());
        Some(CallbackError::OtherRealm { name, connected, chosen })
    };
    realm.iter().find_map(|name| match (connected.get(name), chosen.get(name)) {
        (Some(connected), Some(chosen)) if connected != chosen => other(name, connected, chosen),
        (Some(connected), None) if must_be_named(name) => other(name, connected, "none"),
        _ => None,
    })
}

/// The code of an OAuth error as it may be shown (RFC 6749 section 4.1.2.1 has no others).
fn plain_code(code: &str) -> Option<String> {
    let plain = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    plain.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_must_be_named_again_where_the_provider_says_it_itself() {
        let named = |value: &str| Captured::from([("team_id".to_owned(), value.to_owned())]);
        let realm = ["team_id".to_owned()];
        let judged = |chosen: &Captured, must: bool| other_realm(&realm, &named("T1"), chosen, |_| must).is_some();
        assert!(judged(&named("T2"), false) && judged(&named("T2"), true));
        assert!(!judged(&named("T1"), true));
        assert!(judged(&Captured::new(), true), "a reply without it would let any other follow");
        assert!(!judged(&Captured::new(), false), "not yet known");
        assert!(other_realm(&realm, &Captured::new(), &named("T2"), |_| true).is_none(), "the first one");
    }
}
