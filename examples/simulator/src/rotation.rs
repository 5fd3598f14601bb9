//! The rules by which tokens are issued, replaced and killed.

use crate::clock;
use crate::ledger::{AccessToken, Grant, RefreshToken};
use crate::profile::Profile;
use crate::settings::{Reuse, Rotation, Settings};
use crate::state::{Code, Place, State, end_access_tokens, end_grant, fingerprint};

/// What a token reply is made of.
pub(crate) struct Issued {
    pub(crate) access_token: String,
    /// The refresh token's value and place, if the reply carries one.
    pub(crate) refresh_token: Option<(String, Place)>,
    pub(crate) refresh_token_id: Option<String>,
    pub(crate) scope: String,
    pub(crate) realm: String,
    pub(crate) grant_id: String,
    pub(crate) user: String,
    /// At the exchange of a code only.
    pub(crate) sign_in: Option<SignIn>,
    /// The user's own access and refresh token, where there are such.
    pub(crate) of_user: Option<(String, Option<String>)>,
    /// Its scopes.
    pub(crate) user_scope: String,
    /// Seconds until the refresh token expires: if unused, and in any case.
    pub(crate) refresh_expires_in_s: Option<u64>,
    pub(crate) refresh_hard_expires_in_s: Option<u64>,
}

/// What an ID token needs to know of its authorization.
pub(crate) struct SignIn {
    pub(crate) client_id: String,
    pub(crate) nonce: Option<String>,
}

/// Turns an accepted code into a grant with its first tokens. `scope` is what the access token is to be for, if that was said.
pub(crate) fn open_grant(state: &mut State, profile: Profile, code: &Code, scope: Option<&str>) -> Issued {
    let now = clock::now_ms();
    let settings = state.settings(profile);
    let id = state.new_id("grant");
    let grants = &mut state.profile(profile).ledger.grants;
    if settings.one_grant {
        let same = |grant: &&mut Grant| grant.realm == code.realm && grant.user == code.user;
        grants.iter_mut().filter(same).for_each(|grant| end_grant(grant, now, true));
    }
    let index = grants.len();
    grants.push(Grant {
        id: id.clone(),
        profile: profile.name().to_owned(),
        realm: code.realm.clone(),
        user: code.user.clone(),
        client_id: code.client_id.clone(),
        redirect_uri: code.redirect_uri.clone(),
        scope: code.scope.clone(),
        created_at_ms: now,
        revoked_at_ms: None,
        refresh_tokens: Vec::new(),
        access_tokens: Vec::new(),
    });
    let wanted = settings.rotation != Rotation::None && code.offline;
    let refresh = wanted.then(|| new_refresh_token(state, profile, index, None, None));
    let access_token = new_access_token(state, profile, index, None, None, scope.unwrap_or(&code.scope));
    let of_user = (settings.user_token || !code.user_scope.is_empty()).then(|| {
        let part = || Some("user".to_owned());
        let refresh = wanted.then(|| new_refresh_token(state, profile, index, None, part()));
        let access_token = new_access_token(
            state,
            profile,
            index,
            None,
            part(),
            if code.user_scope.is_empty() { &code.scope } else { &code.user_scope },
        );
        (access_token, refresh.and_then(|place| value_of(state, profile, place)))
    });
    state.event(profile, "code_exchanged", Some(&id), "");
    let sign_in = SignIn { client_id: code.client_id.clone(), nonce: code.nonce.clone() };
    let user_scope = code.user_scope.clone();
    Issued { sign_in: Some(sign_in), of_user, user_scope, ..issued(state, profile, index, access_token, refresh, true) }
}

/// Refreshes with a token that exists, or says why not. `scope` is what the new access token is to be for, if that was
/// said.
pub(crate) fn refresh(
    state: &mut State,
    profile: Profile,
    presented: Place,
    scope: Option<&str>,
) -> Result<Issued, String> {
    let now = clock::now_ms();
    let settings = state.settings(profile);
    judge(state, profile, presented, &settings, now)?;
    let presented_id = use_token(state, profile, presented, &settings, now);
    let answer = successor(state, profile, presented, &settings, now);
    let grant = grant_at(state, profile, presented.grant);
    let lifetime = clock::after(now, settings.refresh_lifetime_s);
    grant.refresh_tokens[answer.token].expires_at_ms = lifetime;
    if settings.kills_access {
        end_access_tokens(grant, now);
    }
    let by = Some(presented_id.clone());
    let grant = grant_at(state, profile, presented.grant);
    let part = grant.refresh_tokens[presented.token].part.clone();
    // Another token of the grant was given for scopes of its own.
    let earlier = grant.access_tokens.iter().rfind(|token| part.is_some() && token.part == part);
    let own_scope = earlier.map(|token| token.scope.clone());
    let scope = scope.map(str::to_owned).or(own_scope.clone()).unwrap_or_else(|| grant.scope.clone());
    let access_token = new_access_token(state, profile, presented.grant, by, part, &scope);
    let repeat = answer != presented || settings.refresh_reply_has_refresh_token;
    state.event(profile, "refresh_ok", Some(&presented_id), "");
    let issued = issued(state, profile, presented.grant, access_token, Some(answer), repeat);
    Ok(Issued { scope: own_scope.unwrap_or_else(|| issued.scope.clone()), ..issued })
}

/// Whether a refresh token may be used now. Noticing reuse has consequences.
fn judge(state: &mut State, profile: Profile, place: Place, settings: &Settings, now: u64) -> Result<(), String> {
    let hard_limit = settings.refresh_hard_lifetime_s;
    let grant = grant_at(state, profile, place.grant);
    let token = grant.refresh_tokens[place.token].clone();
    let too_old = clock::after(grant.created_at_ms, hard_limit).is_some_and(|end| now >= end);
    if grant.revoked_at_ms.is_some() {
        return Err("the grant was revoked".to_owned());
    }
    if token.dead_at_ms.is_some_and(|dead| now >= dead) {
        return Err(punish_reuse(state, profile, place, settings, &token, now));
    }
    if too_old || !token.is_valid(now) {
        return Err("the refresh token expired".to_owned());
    }
    Ok(())
}

fn punish_reuse(
    state: &mut State,
    profile: Profile,
    place: Place,
    settings: &Settings,
    token: &RefreshToken,
    now: u64,
) -> String {
    if token.superseded_at_ms.is_none() {
        return "the refresh token is dead".to_owned();
    }
    grant_at(state, profile, place.grant).refresh_tokens[place.token].reused_count += 1;
    state.profile(profile).ledger.counters.reuse_detected += 1;
    state.event(profile, "reuse_detected", Some(&token.id), "");
    if settings.reuse == Reuse::RevokeFamily {
        let grant = grant_at(state, profile, place.grant);
        end_grant(grant, now, settings.revoke_access_on_reuse);
        let id = grant.id.clone();
        state.event(profile, "family_revoked", Some(&id), "after reuse");
    }
    "the refresh token was already used".to_owned()
}

/// Notes the use, and lets it end the predecessor where that is the rule.
fn use_token(state: &mut State, profile: Profile, place: Place, settings: &Settings, now: u64) -> String {
    let grant = grant_at(state, profile, place.grant);
    let token = &mut grant.refresh_tokens[place.token];
    token.used_count += 1;
    token.first_used_at_ms.get_or_insert(now);
    let (id, parent) = (token.id.clone(), token.parent.clone());
    successor_used(grant, settings, parent.as_deref(), now);
    id
}

/// Notes that an access token was accepted, and lets it end the refresh token that it was issued for where that is the
/// rule.
pub(crate) fn use_access_token(grant: &mut Grant, index: usize, settings: &Settings, now: u64) {
    let token = &mut grant.access_tokens[index];
    token.used_count += 1;
    token.first_used_at_ms.get_or_insert(now);
    token.last_used_at_ms = Some(now);
    let parent = token.issued_by.clone();
    successor_used(grant, settings, parent.as_deref(), now);
}

/// What was issued in exchange for the refresh token `parent` is in use: whoever has it does not need `parent` anymore.
fn successor_used(grant: &mut Grant, settings: &Settings, parent: Option<&str>, now: u64) {
    if settings.rotation != Rotation::UntilSuccessor {
        return;
    }
    let parent = grant.refresh_tokens.iter_mut().find(|token| Some(token.id.as_str()) == parent);
    // One that was not replaced has no successor: the rule was another one when it was used.
    if let Some(parent) = parent.filter(|parent| parent.superseded_at_ms.is_some()) {
        parent.dead_at_ms = Some(parent.dead_at_ms.map_or(now, |dead| dead.min(now)));
    }
}

/// The refresh token that follows the presented one: possibly itself.
fn successor(state: &mut State, profile: Profile, presented: Place, settings: &Settings, now: u64) -> Place {
    let tokens = &mut grant_at(state, profile, presented.grant).refresh_tokens;
    let token = &tokens[presented.token];
    let issued_at = token.issued_at_ms;
    match settings.rotation {
        Rotation::Static | Rotation::None => return presented,
        Rotation::Interval if token.superseded_at_ms.is_some() => {
            // Only the newest value is ever handed out.
            let is_kin = |other: &RefreshToken| other.part == tokens[presented.token].part;
            let token = tokens.iter().rposition(is_kin).unwrap_or(presented.token);
            return Place { token, ..presented };
        }
        Rotation::Interval if now < issued_at + clock::milliseconds(settings.interval_s) => {
            return presented;
        }
        _ => {}
    }
    let old = &mut tokens[presented.token];
    if old.superseded_at_ms.is_none() {
        old.superseded_at_ms = Some(now);
        old.dead_at_ms = match settings.rotation {
            Rotation::SingleUse => Some(now),
            Rotation::Interval | Rotation::Leeway => Some(now + clock::milliseconds(settings.grace_s)),
            Rotation::UntilSuccessor => clock::after(now, settings.grace_s),
            Rotation::Overlap | Rotation::Static | Rotation::None => None,
        };
    }
    let (parent, part) = (Some(old.id.clone()), old.part.clone());
    new_refresh_token(state, profile, presented.grant, parent, part)
}

fn value_of(state: &mut State, profile: Profile, place: Place) -> Option<String> {
    let known = state.profile(profile);
    let id = &known.ledger.grants[place.grant].refresh_tokens[place.token].id;
    known.refresh_values.get(id).cloned()
}

fn new_refresh_token(
    state: &mut State,
    profile: Profile,
    grant: usize,
    parent: Option<String>,
    part: Option<String>,
) -> Place {
    let now = clock::now_ms();
    let value = profile.new_refresh_token();
    let id = state.new_id("rt");
    state.values.refresh_tokens.push(value.clone());
    let known = state.profile(profile);
    let expires_at_ms = clock::after(now, known.settings.refresh_lifetime_s);
    let tokens = &mut known.ledger.grants[grant].refresh_tokens;
    let token = tokens.len();
    tokens.push(RefreshToken {
        id: id.clone(),
        value_sha256: fingerprint(&value),
        issued_at_ms: now,
        expires_at_ms,
        parent,
        part,
        first_used_at_ms: None,
        used_count: 0,
        reused_count: 0,
        committed: true,
        replied: false,
        reply_failed: false,
        superseded_at_ms: None,
        dead_at_ms: None,
    });
    let place = Place { grant, token };
    known.refresh_by_value.insert(value.clone(), place);
    known.refresh_values.insert(id, value);
    place
}

fn new_access_token(
    state: &mut State,
    profile: Profile,
    grant: usize,
    issued_by: Option<String>,
    part: Option<String>,
    scope: &str,
) -> String {
    let now = clock::now_ms();
    let value = match &part {
        Some(_) => profile.new_further_access_token(),
        None => profile.new_access_token(),
    };
    let id = state.new_id("at");
    state.values.access_tokens.push(value.clone());
    let known = state.profile(profile);
    let expires_at_ms = clock::after(now, known.settings.access_lifetime_s);
    let tokens = &mut known.ledger.grants[grant].access_tokens;
    let token = tokens.len();
    tokens.push(AccessToken {
        id,
        value_sha256: fingerprint(&value),
        issued_at_ms: now,
        issued_by,
        part,
        scope: scope.to_owned(),
        expires_at_ms,
        dead_at_ms: None,
        used_count: 0,
        first_used_at_ms: None,
        last_used_at_ms: None,
    });
    known.access_by_value.insert(value.clone(), Place { grant, token });
    value
}

/// Collects what the reply needs; `repeat` is whether it may carry the refresh token.
fn issued(
    state: &mut State,
    profile: Profile,
    grant: usize,
    access_token: String,
    refresh: Option<Place>,
    repeat: bool,
) -> Issued {
    let now = clock::now_ms();
    let known = state.profile(profile);
    let grant = &known.ledger.grants[grant];
    let token = refresh.map(|place| &grant.refresh_tokens[place.token]);
    let hard_end = clock::after(grant.created_at_ms, known.settings.refresh_hard_lifetime_s);
    let seconds_left = |end: u64| end.saturating_sub(now).div_ceil(1000);
    let value = token.and_then(|token| known.refresh_values.get(&token.id));
    Issued {
        access_token,
        refresh_token: value.cloned().zip(refresh).filter(|_| repeat),
        refresh_token_id: token.map(|token| token.id.clone()),
        scope: grant.scope.clone(),
        realm: grant.realm.clone(),
        grant_id: grant.id.clone(),
        user: grant.user.clone(),
        sign_in: None,
        of_user: None,
        user_scope: String::new(),
        refresh_expires_in_s: token.and_then(|token| token.expires_at_ms).map(seconds_left),
        refresh_hard_expires_in_s: hard_end.map(seconds_left),
    }
}

fn grant_at(state: &mut State, profile: Profile, index: usize) -> &mut Grant {
    &mut state.profile(profile).ledger.grants[index]
}
