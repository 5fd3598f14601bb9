//! The one mutex, and what is behind it. Never held across an await.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::calls::Calls;
use crate::clock;
use crate::faults::{ArmedFaults, Endpoint, FaultKind};
use crate::jwt::Keys;
use crate::ledger::{Event, Grant, IssuedValues, LedgerSnapshot, ProfileLedger};
use crate::profile::Profile;
use crate::random;
use crate::settings::Settings;

/// How many events are kept.
const EVENTS_KEPT: usize = 10_000;

/// What all connections share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// What signs ID tokens.
    pub(crate) keys: Keys,
    /// Token requests that were read and of which nobody knows yet whether they take effect.
    undecided: AtomicUsize,
    /// The most there ever were.
    most_undecided: AtomicUsize,
    /// Connections that were accepted and have not ended.
    connections: AtomicUsize,
}

/// A connection from when it was accepted to its end.
pub(crate) struct Connected(Arc<Shared>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A token request from when it was read until it has taken effect or cannot anymore.
pub(crate) struct Undecided(Arc<Shared>);

impl Drop for Undecided {
    fn drop(&mut self) {
        self.0.undecided.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Everything a simulator knows.
pub(crate) struct State {
    profiles: BTreeMap<Profile, ProfileState>,
    initial: BTreeMap<Profile, Settings>,
    events: VecDeque<Event>,
    last_event: u64,
    last_id: u64,
    pub(crate) faults: ArmedFaults,
    pub(crate) calls: Calls,
    pub(crate) values: IssuedValues,
}

/// Everything known about one profile.
pub(crate) struct ProfileState {
    pub(crate) settings: Settings,
    pub(crate) ledger: ProfileLedger,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) access_by_value: HashMap<String, Place>,
    pub(crate) refresh_by_value: HashMap<String, Place>,
    /// Values by token id, for providers that hand out the same value again.
    pub(crate) refresh_values: HashMap<String, String>,
}

/// Where a token is in its profile's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) grant: usize,
    pub(crate) token: usize,
}

/// An authorization that waits for its exchange.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Option<String>,
    pub(crate) scope: String,
    /// Slack: the scopes of a token of the user's own, which there is if there are any.
    pub(crate) user_scope: String,
    /// To be repeated in the ID token.
    pub(crate) nonce: Option<String>,
    pub(crate) realm: String,
    /// Who approved.
    pub(crate) user: String,
    /// Google: whether a refresh token was asked for.
    pub(crate) offline: bool,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) used: bool,
}

impl Shared {
    pub(crate) fn new(initial: BTreeMap<Profile, Settings>) -> Arc<Shared> {
        let mut state = State {
            profiles: BTreeMap::new(),
            initial,
            events: VecDeque::new(),
            last_event: 0,
            last_id: 0,
            faults: ArmedFaults::default(),
            calls: Calls::default(),
            values: IssuedValues::default(),
        };
        state.reset();
        Arc::new(Shared {
            state: Mutex::new(state),
            keys: Keys::new(),
            undecided: AtomicUsize::new(0),
            most_undecided: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        })
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn connected(self: &Arc<Shared>) -> Connected {
        self.connections.fetch_add(1, Ordering::SeqCst);
        Connected(Arc::clone(self))
    }

    /// How many connections there are.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Counts a token request as undecided for as long as the value lives.
    pub(crate) fn undecided(self: &Arc<Shared>) -> Undecided {
        let count = self.undecided.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_undecided.fetch_max(count, Ordering::SeqCst);
        Undecided(Arc::clone(self))
    }

    /// How many token requests are undecided.
    pub(crate) fn undecided_count(&self) -> usize {
        self.undecided.load(Ordering::SeqCst)
    }

    /// How many of them there were at the same time at most.
    pub(crate) fn most_undecided(&self) -> usize {
        self.most_undecided.load(Ordering::SeqCst)
    }

    /// The state. A panic of another holder does not matter: a test is failing anyway.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Back to how it started. Issued values stay: a leak of an old token is still a leak.
    pub(crate) fn reset(&mut self) {
        self.faults.clear();
        self.events.clear();
        self.calls.clear();
        self.profiles = Profile::all()
            .map(|profile| {
                let settings = self.initial.get(&profile).cloned();
                let settings = settings.unwrap_or_else(|| Settings::of(profile));
                (profile, ProfileState::new(settings))
            })
            .collect();
        self.remember_secrets();
    }

    pub(crate) fn profile(&mut self, profile: Profile) -> &mut ProfileState {
        self.profiles.entry(profile).or_insert_with(|| ProfileState::new(Settings::of(profile)))
    }

    pub(crate) fn settings(&mut self, profile: Profile) -> Settings {
        self.profile(profile).settings.clone()
    }

    /// Notes all client secrets in force, for leak searches.
    pub(crate) fn remember_secrets(&mut self) {
        for profile in self.profiles.values() {
            let secret = &profile.settings.client_secret;
            if !self.values.client_secrets.contains(secret) {
                self.values.client_secrets.push(secret.clone());
            }
        }
    }

    /// A new id such as `rt-7`.
    pub(crate) fn new_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}-{}", self.last_id)
    }

    /// Counts a call to an endpoint, and says what should go wrong with it.
    pub(crate) fn due_fault(&mut self, profile: Profile, endpoint: Endpoint) -> Option<FaultKind> {
        let fault = self.faults.due(profile, endpoint)?;
        // Only the name: the rest may be long, and a test knows it anyway.
        let name: String = format!("{fault:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
        self.event(profile, "fault", None, format!("{endpoint:?}: {name}"));
        Some(fault)
    }

    pub(crate) fn event(&mut self, profile: Profile, kind: &str, token_id: Option<&str>, detail: impl Into<String>) {
        self.last_event += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            seq: self.last_event,
            at_ms: clock::now_ms(),
            profile: profile.name().to_owned(),
            kind: kind.to_owned(),
            token_id: token_id.map(str::to_owned),
            detail: detail.into(),
        });
    }

    pub(crate) fn snapshot(&self) -> LedgerSnapshot {
        LedgerSnapshot {
            at_ms: clock::now_ms(),
            profiles: self
                .profiles
                .iter()
                .map(|(profile, state)| (profile.name().to_owned(), state.ledger.clone()))
                .collect(),
            events: self.events.iter().cloned().collect(),
        }
    }
}

impl ProfileState {
    fn new(settings: Settings) -> ProfileState {
        ProfileState {
            settings,
            ledger: ProfileLedger::default(),
            codes: HashMap::new(),
            access_by_value: HashMap::new(),
            refresh_by_value: HashMap::new(),
            refresh_values: HashMap::new(),
        }
    }

    /// The grant that an access or refresh token belongs to.
    pub(crate) fn grant_of(&self, token: &str) -> Option<usize> {
        let refresh = self.refresh_by_value.get(token);
        let place = refresh.or_else(|| self.access_by_value.get(token))?;
        Some(place.grant)
    }
}

/// Kills a grant and, if asked, its access tokens.
pub(crate) fn end_grant(grant: &mut Grant, now: u64, access_tokens_too: bool) {
    grant.revoked_at_ms.get_or_insert(now);
    for token in &mut grant.refresh_tokens {
        token.dead_at_ms = Some(token.dead_at_ms.map_or(now, |dead| dead.min(now)));
    }
    if access_tokens_too {
        end_access_tokens(grant, now);
    }
}

/// Kills a grant's access tokens.
pub(crate) fn end_access_tokens(grant: &mut Grant, now: u64) {
    for token in &mut grant.access_tokens {
        if token.is_valid(now) {
            token.dead_at_ms = Some(now);
        }
    }
}

/// Follows a reply with a refresh token until it is out or lost. It travels with the reply; a
/// reply that is dropped anywhere on its way counts as lost.
#[derive(Clone)]
pub(crate) struct Delivery(Arc<Tracked>);

struct Tracked {
    shared: Arc<Shared>,
    profile: Profile,
    place: Place,
    token_id: String,
    succeeded: AtomicBool,
}

impl Delivery {
    pub(crate) fn new(shared: &Arc<Shared>, profile: Profile, place: Place, token_id: String) -> Delivery {
        Delivery(Arc::new(Tracked {
            shared: Arc::clone(shared),
            profile,
            place,
            token_id,
            succeeded: AtomicBool::new(false),
        }))
    }

    /// The last byte was handed to the network.
    pub(crate) fn succeeded(&self) {
        if !self.0.succeeded.swap(true, Ordering::SeqCst) {
            self.0.record(true);
        }
    }
}

impl Tracked {
    fn record(&self, succeeded: bool) {
        let mut state = self.shared.lock();
        let grants = &mut state.profile(self.profile).ledger.grants;
        let grant = grants.get_mut(self.place.grant);
        let token = grant.and_then(|grant| grant.refresh_tokens.get_mut(self.place.token));
        // After a reset the place may be another token's.
        let Some(token) = token.filter(|token| token.id == self.token_id) else {
            return;
        };
        token.replied |= succeeded;
        token.reply_failed = !succeeded;
        let kind = if succeeded { "replied" } else { "reply_failed" };
        state.event(self.profile, kind, Some(&self.token_id), "");
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if !self.succeeded.load(Ordering::SeqCst) {
            self.record(false);
        }
    }
}

/// How the ledger names a token value.
pub(crate) fn fingerprint(value: &str) -> String {
    random::sha256_hex(value)
}
