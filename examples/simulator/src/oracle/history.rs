//! Small ledgers for the tests of the rules. Tokens are called `rt-N` and `at-N`, also by their digests.

use super::{Held, Standing};
use crate::ledger::{AccessToken, Grant, ProfileLedger, RefreshToken};

/// How long access tokens live.
const LIFETIME: u64 = 2_000;

/// A ledger in the making.
pub(crate) struct History {
    pub(crate) ledger: ProfileLedger,
    tokens: u64,
}

impl History {
    /// One grant of `user`, with rt-1 and at-1.
    pub(crate) fn of(user: &str) -> History {
        let mut history = History { ledger: ProfileLedger::default(), tokens: 0 };
        history.connect(user);
        history
    }

    /// A further grant, with the next tokens.
    pub(crate) fn connect(&mut self, user: &str) {
        self.ledger.grants.push(Grant {
            id: format!("grant-{}", self.ledger.grants.len() + 1),
            profile: "generic".to_owned(),
            realm: String::new(),
            user: user.to_owned(),
            client_id: String::new(),
            redirect_uri: String::new(),
            scope: String::new(),
            created_at_ms: 0,
            revoked_at_ms: None,
            refresh_tokens: Vec::new(),
            access_tokens: Vec::new(),
        });
        self.issue(0);
    }

    /// Replaces the last refresh token of the last grant, which dies of it.
    pub(crate) fn rotate(&mut self, at_ms: u64) {
        let grant = self.ledger.grants.last_mut().unwrap();
        let last = grant.refresh_tokens.last_mut().unwrap();
        (last.superseded_at_ms, last.dead_at_ms) = (Some(at_ms), Some(at_ms));
        self.issue(at_ms);
    }

    /// Has the API accept an access token.
    pub(crate) fn use_access(&mut self, id: &str, at_ms: u64) {
        let token = self.access(id);
        token.used_count += 1;
        token.first_used_at_ms = Some(at_ms);
    }

    /// A refresh token.
    pub(crate) fn token(&mut self, id: &str) -> &mut RefreshToken {
        let mut tokens = self.ledger.grants.iter_mut().flat_map(|grant| &mut grant.refresh_tokens);
        tokens.find(|token| token.id == id).unwrap()
    }

    /// An access token.
    pub(crate) fn access(&mut self, id: &str) -> &mut AccessToken {
        let mut tokens = self.ledger.grants.iter_mut().flat_map(|grant| &mut grant.access_tokens);
        tokens.find(|token| token.id == id).unwrap()
    }

    fn issue(&mut self, at_ms: u64) {
        self.tokens += 1;
        let (rt, at) = (format!("rt-{}", self.tokens), format!("at-{}", self.tokens));
        let grant = self.ledger.grants.last_mut().unwrap();
        grant.refresh_tokens.push(RefreshToken {
            part: None,
            id: rt.clone(),
            value_sha256: rt,
            issued_at_ms: at_ms,
            expires_at_ms: None,
            parent: None,
            first_used_at_ms: None,
            used_count: 0,
            reused_count: 0,
            committed: true,
            replied: true,
            reply_failed: false,
            superseded_at_ms: None,
            dead_at_ms: None,
        });
        grant.access_tokens.push(AccessToken {
            part: None,
            scope: String::new(),
            id: at.clone(),
            value_sha256: at,
            issued_at_ms: at_ms,
            issued_by: None,
            expires_at_ms: Some(at_ms + LIFETIME),
            dead_at_ms: None,
            used_count: 0,
            first_used_at_ms: None,
            last_used_at_ms: None,
        });
    }
}

/// What a client holds: one refresh token, one access token.
pub(crate) fn held(user: &str, refresh_token: &str, access_token: &str, standing: Standing) -> Held {
    Held {
        user: user.to_owned(),
        refresh_tokens: vec![refresh_token.to_owned()],
        access_token: access_token.to_owned(),
        standing,
    }
}
