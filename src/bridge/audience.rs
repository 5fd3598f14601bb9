//! Who is to be told what a child says to nobody in particular: sessions of the older era with an open GET stream, and
//! subscriptions of the newer one. It outlives the child, for a child is stopped when it is idle, and clients are not to
//! notice.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dashmap::DashMap;
use serde_json::value::RawValue;

use super::ChildKey;
use super::era::{Level, meta};
use super::message::{self, Object, Outcome, raw};
use super::multiplexer::Multiplexer;
use super::queue::{self, Receiver, Sender};
use super::refusal::Refusal;
use crate::model::names::ServerName;

/// Messages that wait for one slow stream, and no more than one largest message of bytes. More end it: its client comes
/// back and asks anew.
const LONGEST_QUEUE: usize = 256;
/// Sessions that one user has at one server. The oldest is forgotten for another: it goes on, without the log level and
/// the subscriptions that it had asked for.
const MOST_SESSIONS: usize = 64;
/// Streams and subscriptions that one user has open at one server.
const MOST_STREAMS: usize = 64;
/// Resources that one session, or one subscription, asks to know of.
const MOST_RESOURCES: usize = 256;
/// How many bytes the URI of one may have.
const LONGEST_URI: usize = 2048;

/// The audiences of all children.
#[derive(Default)]
pub struct Audiences {
    all: DashMap<ChildKey, Arc<Audience>>,
    is_closed: AtomicBool,
}

impl Audiences {
    /// That of one child.
    pub fn of(&self, key: &ChildKey) -> Arc<Audience> {
        Arc::clone(&self.all.entry(key.clone()).or_default())
    }

    /// Ends all streams, and has none opened from here on: Sidekey is about to stop, and would wait for them.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.all.iter().for_each(|audience| audience.end_streams());
    }

    /// Ends the streams of all servers but those that are to be kept.
    pub fn keep_streams(&self, is_kept: impl Fn(&ServerName) -> bool) {
        self.all.iter().filter(|audience| !is_kept(&audience.key().server)).for_each(|audience| audience.end_streams());
    }

    /// Whether no more streams are opened.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Forgets those that hold nothing and that nobody else has.
    pub fn sweep(&self) {
        self.all.retain(|_, audience| Arc::strong_count(audience) > 1 || !audience.is_empty());
    }
}

/// Who listens to one child.
#[derive(Default)]
pub struct Audience {
    listeners: Mutex<Listeners>,
    /// The child, while it runs.
    child: Mutex<Weak<Multiplexer>>,
}

#[derive(Default)]
struct Listeners {
    sessions: HashMap<String, Session>,
    streams: Vec<Stream>,
    count: u64,
}

#[derive(Default)]
struct Session {
    begun: u64,
    level: Option<Level>,
    resources: BTreeSet<String>,
}

struct Stream {
    number: u64,
    wants: Wants,
    sender: Sender,
}

impl Stream {
    fn of_session(&self) -> Option<(String, u64)> {
        match &self.wants {
            Wants::Session(session) => Some((session.clone(), self.number)),
            Wants::Subscription { .. } => None,
        }
    }
}

enum Wants {
    /// The GET stream of a session.
    Session(String),
    /// A subscription, under the id of the request that asked for it.
    Subscription { id: Box<RawValue>, filter: Filter },
}

/// What a subscription asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Methods of notifications.
    pub methods: BTreeSet<&'static str>,
    /// Resources.
    pub resources: BTreeSet<String>,
}

/// What a filter may ask for besides resources.
pub const LIST_CHANGES: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];
/// A resource that somebody subscribed to is another now.
pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";

/// An open stream; it is no longer written to once this is dropped.
pub struct Open {
    /// What is to be sent on it.
    pub messages: Receiver,
    audience: Arc<Audience>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.audience.lock().streams.retain(|stream| stream.number != self.number);
        // What nobody listens for any longer need not be watched.
        if let Some(child) = self.audience.child() {
            child.watch(None);
        }
    }
}

impl Filter {
    /// The `notifications` of a `subscriptions/listen`; what is not known is left out.
    pub fn parse(notifications: &Object<'_>) -> Result<Self, Refusal> {
        let is_wanted = |name: &str| notifications.get(name).is_some_and(|value| value.get() == "true");
        let resources = notifications.get("resourceSubscriptions");
        let resources = resources.and_then(|value| serde_json::from_str(value.get()).ok());
        let resources: BTreeSet<String> = resources.unwrap_or_default();
        if resources.len() > MOST_RESOURCES {
            return Err(Refusal::TooManyResources);
        }
        resources.iter().try_for_each(|resource| check_uri(resource))?;
        let methods = LIST_CHANGES.iter().filter(|(name, _)| is_wanted(name)).map(|(_, method)| *method).collect();
        Ok(Self { methods, resources })
    }

    /// What is promised in the acknowledgement.
    pub fn granted(&self) -> Box<RawValue> {
        let mut granted = Object::default();
        for (name, _) in LIST_CHANGES.iter().filter(|(_, method)| self.methods.contains(method)) {
            granted.set(name, raw(&true));
        }
        if !self.resources.is_empty() {
            granted.set("resourceSubscriptions", raw(&self.resources));
        }
        granted.raw()
    }
}

impl Audience {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child, if it runs.
    pub fn child(&self) -> Option<Arc<Multiplexer>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Another child speaks to this audience from now on.
    pub fn set_child(&self, child: &Arc<Multiplexer>) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(child);
    }

    fn is_empty(&self) -> bool {
        let listeners = self.lock();
        listeners.sessions.is_empty() && listeners.streams.is_empty()
    }

    /// Forgets a session, and ends its streams.
    pub fn end_session(&self, session: &str) {
        let mut listeners = self.lock();
        listeners.sessions.remove(session);
        listeners.streams.retain(|stream| !matches!(&stream.wants, Wants::Session(own) if own == session));
    }

    /// Ends all streams. Subscriptions are told that it is on purpose (subscriptions, graceful closure).
    fn end_streams(&self) {
        for stream in std::mem::take(&mut self.lock().streams) {
            if let Wants::Subscription { id, .. } = &stream.wants {
                let mut result = Object::default();
                result.set("resultType", raw("complete"));
                result.set("_meta", subscription_meta(id));
                // One that reads nothing sees the end of the stream all the same.
                let _ = stream.sender.try_send(message::response(id, Outcome::Result(&result.raw())));
            }
        }
    }

    /// What a session's log level is.
    pub fn level(&self, session: &str) -> Option<Level> {
        self.lock().sessions.get(session).and_then(|session| session.level)
    }

    /// Sets a session's log level.
    pub fn set_level(&self, session: &str, level: Level) {
        self.lock().session(session).level = Some(level);
    }

    /// Notes that a session wants to know of a resource, or no longer.
    pub fn subscribe(&self, session: &str, resource: String, wants: bool) -> Result<(), Refusal> {
        check_uri(&resource)?;
        let mut listeners = self.lock();
        let resources = &mut listeners.session(session).resources;
        if !wants {
            resources.remove(&resource);
        } else if resources.len() < MOST_RESOURCES || resources.contains(&resource) {
            resources.insert(resource);
        } else {
            return Err(Refusal::TooManyResources);
        }
        Ok(())
    }

    /// Resources that somebody wants to know of.
    pub fn resources(&self) -> BTreeSet<String> {
        let listeners = self.lock();
        let of_sessions = listeners.sessions.values().flat_map(|session| &session.resources);
        let of_subscriptions = listeners.streams.iter().flat_map(|stream| match &stream.wants {
            Wants::Subscription { filter, .. } => filter.resources.iter().collect(),
            Wants::Session(_) => Vec::new(),
        });
        of_sessions.chain(of_subscriptions).cloned().collect()
    }

    /// The lowest of the log levels that sessions asked for.
    pub fn lowest_level(&self) -> Option<Level> {
        self.lock().sessions.values().filter_map(|session| session.level).min()
    }

    /// Opens the GET stream of a session, for which so many bytes may wait; `None` if there are too many streams.
    pub fn open_session(self: &Arc<Self>, session: &str, bytes: usize) -> Option<Open> {
        self.open(Wants::Session(session.to_owned()), None, bytes)
    }

    /// Opens a subscription, for which so many bytes may wait; `None` if there are too many streams. Its acknowledgement is
    /// the first message.
    pub fn open_subscription(self: &Arc<Self>, id: &RawValue, filter: Filter, bytes: usize) -> Option<Open> {
        let mut params = Object::default();
        params.set("_meta", subscription_meta(id));
        params.set("notifications", filter.granted());
        let acknowledged = message::notification("notifications/subscriptions/acknowledged", Some(&params.raw()));
        self.open(Wants::Subscription { id: id.to_owned(), filter }, Some(acknowledged), bytes)
    }

    fn open(self: &Arc<Self>, wants: Wants, first: Option<Vec<u8>>, bytes: usize) -> Option<Open> {
        let mut listeners = self.lock();
        if listeners.streams.len() >= MOST_STREAMS {
            return None;
        }
        let (sender, messages) = queue::bounded(LONGEST_QUEUE, bytes);
        // Before anybody else can write to it.
        if let Some(first) = first {
            let _ = sender.try_send(first);
        }
        listeners.count += 1;
        let number = listeners.count;
        listeners.streams.push(Stream { number, wants, sender });
        drop(listeners);
        Some(Open { messages, audience: Arc::clone(self), number })
    }

    /// Passes on what a child said to nobody in particular.
    pub fn publish(&self, method: &str, params: Option<&RawValue>) {
        let object = params.and_then(|params| Object::parse(params.get().as_bytes()));
        let field = |name: &str| object.as_ref().and_then(|object| object.string(name));
        let (resource, level) = match method {
            RESOURCE_UPDATED => (field("uri"), None),
            "notifications/message" => (None, field("level").as_deref().and_then(Level::parse)),
            _ => (None, None),
        };
        let mut guard = self.lock();
        let Listeners { sessions, streams, .. } = &mut *guard;
        // A session may have several, and is told everything on one of them only (streamable HTTP, multiple connections).
        let newest: HashMap<String, u64> = streams.iter().filter_map(Stream::of_session).collect();
        streams.retain(|stream| {
            let message = match &stream.wants {
                Wants::Session(session) if newest.get(session) != Some(&stream.number) => None,
                Wants::Session(session) => {
                    let session = sessions.get(session);
                    let is_wanted = match (&resource, level) {
                        (Some(uri), _) => session.is_some_and(|session| session.resources.contains(uri)),
                        (None, Some(level)) => {
                            session.and_then(|session| session.level).is_none_or(|least| level >= least)
                        }
                        (None, None) => true,
                    };
                    is_wanted.then(|| message::notification(method, params))
                }
                Wants::Subscription { id, filter } => {
                    let of_resource = resource.as_ref().is_some_and(|uri| filter.resources.contains(uri));
                    let is_wanted = of_resource || filter.methods.contains(method);
                    is_wanted.then(|| message::notification(method, Some(&with_subscription(params, id))))
                }
            };
            // Who does not read loses the stream, rather than messages without a word.
            message.is_none_or(|message| stream.sender.try_send(message).is_ok())
        });
    }
}

impl Listeners {
    fn session(&mut self, id: &str) -> &mut Session {
        if !self.sessions.contains_key(id) && self.sessions.len() >= MOST_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.begun).map(|(id, _)| id.clone());
            self.sessions.remove(&oldest.unwrap_or_default());
        }
        self.count += 1;
        let begun = self.count;
        self.sessions.entry(id.to_owned()).or_insert_with(|| Session { begun, ..Session::default() })
    }
}

fn check_uri(uri: &str) -> Result<(), Refusal> {
    let too_long = Refusal::Parameter("The URI of a resource that is subscribed to has more than 2048 bytes.");
    if uri.len() > LONGEST_URI { Err(too_long) } else { Ok(()) }
}

fn subscription_meta(id: &RawValue) -> Box<RawValue> {
    let mut meta = Object::default();
    meta.set(meta::SUBSCRIPTION, id.to_owned());
    meta.raw()
}

fn with_subscription(params: Option<&RawValue>, id: &RawValue) -> Box<RawValue> {
    let mut params = params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
    let given = params.get("_meta").map(ToOwned::to_owned);
    let mut meta = given.as_deref().and_then(|meta| Object::parse(meta.get().as_bytes())).unwrap_or_default();
    meta.set(meta::SUBSCRIPTION, id.to_owned());
    let meta = meta.raw();
    params.set("_meta", meta);
    params.raw()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROOM: usize = 1 << 20;

    fn next(open: &mut Open) -> Option<Value> {
        let message = open.messages.try_recv()?;
        Some(serde_json::from_slice(&message).expect("JSON"))
    }

    #[test]
    fn each_stream_gets_what_it_asked_for() {
        let audience = Arc::new(Audience::default());
        let mut session = audience.open_session("s", ROOM).expect("open");
        let filter =
            json!({ "toolsListChanged": true, "resourceSubscriptions": ["a:1"], "taskIds": ["x"] }).to_string();
        let filter = Filter::parse(&Object::parse(filter.as_bytes()).expect("an object")).expect("a filter");
        let mut subscription = audience.open_subscription(&raw("sub"), filter, ROOM).expect("open");
        let meta = json!({ meta::SUBSCRIPTION: "sub" });
        assert_eq!(
            next(&mut subscription).expect("acknowledged")["params"],
            json!({ "_meta": meta, "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["a:1"] } })
        );
        audience.publish("notifications/tools/list_changed", None);
        audience.publish("notifications/prompts/list_changed", None);
        audience.publish(RESOURCE_UPDATED, Some(&raw(&json!({ "uri": "a:1" }))));
        audience.publish(RESOURCE_UPDATED, Some(&raw(&json!({ "uri": "a:2" }))));
        let of = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "method": method, "params": params });
        assert_eq!(next(&mut subscription), Some(of("notifications/tools/list_changed", json!({ "_meta": meta }))));
        assert_eq!(next(&mut subscription), Some(of(RESOURCE_UPDATED, json!({ "uri": "a:1", "_meta": meta }))));
        assert_eq!(next(&mut subscription), None);
        assert_eq!(next(&mut session).expect("told")["method"], "notifications/tools/list_changed");
        assert_eq!(next(&mut session).expect("told")["method"], "notifications/prompts/list_changed");
        assert_eq!(next(&mut session), None, "nobody subscribed to a resource in this session");
        audience.subscribe("s", "a:2".to_owned(), true).expect("noted");
        assert_eq!(audience.resources(), BTreeSet::from(["a:1".to_owned(), "a:2".to_owned()]));
        audience.publish(RESOURCE_UPDATED, Some(&raw(&json!({ "uri": "a:2" }))));
        assert_eq!(next(&mut session).expect("told")["params"]["uri"], "a:2");
    }

    #[test]
    fn log_messages_below_the_level_of_a_session_are_kept_from_it() {
        let audience = Arc::new(Audience::default());
        let (mut all, mut few) =
            (audience.open_session("a", ROOM).expect("open"), audience.open_session("b", ROOM).expect("open"));
        audience.set_level("b", Level::parse("error").expect("a level"));
        audience.publish("notifications/message", Some(&raw(&json!({ "level": "info", "data": 1 }))));
        assert!(next(&mut all).is_some() && next(&mut few).is_none());
        audience.publish("notifications/message", Some(&raw(&json!({ "level": "alert", "data": 1 }))));
        assert!(next(&mut few).is_some());
        assert_eq!(audience.lowest_level(), Level::parse("error"));
    }

    #[test]
    fn nobody_holds_more_than_a_share() {
        let audience = Arc::new(Audience::default());
        let streams: Vec<_> = (0..MOST_STREAMS).filter_map(|_| audience.open_session("s", ROOM)).collect();
        assert_eq!(streams.len(), MOST_STREAMS);
        assert!(audience.open_session("s", ROOM).is_none());
        drop(streams);
        let mut slow = audience.open_session("s", ROOM).expect("open again");
        for _ in 0..=LONGEST_QUEUE {
            audience.publish("notifications/tools/list_changed", None);
        }
        assert_eq!(std::iter::from_fn(|| next(&mut slow)).count(), LONGEST_QUEUE);
        assert!(slow.messages.is_closed(), "what was lost is not kept from its client");
        for number in 0..=MOST_SESSIONS {
            audience.set_level(&number.to_string(), Level::parse("info").expect("a level"));
        }
        assert_eq!((audience.level("0"), audience.level("1")), (None, Level::parse("info")));
        audience.end_session("1");
        assert_eq!(audience.level("1"), None);
    }

    #[test]
    fn a_slow_stream_holds_no_more_than_a_largest_message() {
        let audience = Arc::new(Audience::default());
        let mut slow = audience.open_session("s", 1000).expect("open");
        let mut others = audience.open_session("t", ROOM).expect("open");
        let long = raw(&json!({ "level": "info", "data": "x".repeat(400) }));
        for _ in 0..3 {
            audience.publish("notifications/message", Some(&long));
        }
        assert_eq!(std::iter::from_fn(|| next(&mut slow)).count(), 2);
        assert!(slow.messages.is_closed());
        assert_eq!(std::iter::from_fn(|| next(&mut others)).count(), 3);
    }

    #[test]
    fn streams_end_on_purpose_when_all_stops() {
        let audiences = Audiences::default();
        let audience = audiences.of(&crate::bridge::tests::key("alice"));
        let mut session = audience.open_session("s", ROOM).expect("open");
        let mut subscription = audience.open_subscription(&raw("sub"), Filter::default(), ROOM).expect("open");
        assert!(!audiences.is_closed());
        audiences.close();
        assert!(audiences.is_closed());
        assert_eq!(next(&mut subscription).expect("acknowledged")["params"]["notifications"], json!({}));
        let meta = json!({ meta::SUBSCRIPTION: "sub" });
        let ended = json!({ "jsonrpc": "2.0", "id": "sub", "result": { "resultType": "complete", "_meta": meta } });
        assert_eq!(next(&mut subscription), Some(ended));
        assert!(next(&mut session).is_none() && session.messages.is_closed() && subscription.messages.is_closed());
    }

    #[test]
    fn streams_end_with_their_server() {
        let audiences = Audiences::default();
        let key = crate::bridge::tests::key("alice");
        let other = ChildKey { server: "others".parse().expect("a name"), ..key.clone() };
        let mut session = audiences.of(&key).open_session("s", ROOM).expect("open");
        let mut subscription =
            audiences.of(&key).open_subscription(&raw("sub"), Filter::default(), ROOM).expect("open");
        let kept = audiences.of(&other).open_session("s", ROOM).expect("open");
        audiences.keep_streams(|server| *server == other.server);
        assert!(next(&mut session).is_none() && session.messages.is_closed());
        assert_eq!(next(&mut subscription).expect("acknowledged")["params"]["notifications"], json!({}));
        assert_eq!(next(&mut subscription).expect("told that it is on purpose")["id"], "sub");
        assert!(subscription.messages.is_closed() && !kept.messages.is_closed());
        assert!(!audiences.is_closed(), "others are opened");
    }

    #[test]
    fn audiences_are_forgotten_with_their_last_listener() {
        let audiences = Audiences::default();
        let key = crate::bridge::tests::key("alice");
        let open = audiences.of(&key).open_session("s", ROOM).expect("open");
        audiences.sweep();
        assert_eq!(audiences.all.len(), 1);
        drop(open);
        audiences.sweep();
        assert!(audiences.all.is_empty());
    }
}
