//! What follows from one exchange with the token endpoint: decided here, carried out in [`super::refresh`].

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::http::HttpError;
use crate::catalogue::entry::{ErrorClass, Repetition, Rotation};
use crate::oauth::token_response::{TokenRefusal, TokenReply, Verdict};
use crate::store::record::ConnectionRecord;

/// What one exchange came to.
pub type Exchanged = Result<Result<TokenReply, TokenRefusal>, HttpError>;

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Store the tokens.
    Store(Box<TokenReply>),
    /// Ask once more.
    AskAgain(String),
    /// Give up for now.
    Fail(Failure),
}

/// Why a refresh failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The grant is dead.
    Dead(String),
    /// It is unknown whether the provider used up the refresh token.
    InDoubt {
        /// What happened.
        why: String,
        /// Since when: the first request whose reply was lost.
        since: Timestamp,
        /// What that means for asking again.
        repetition: Repetition,
        /// How long the provider asks us to wait.
        retry_after: Option<Duration>,
    },
    /// It passes, or the provider is to blame.
    Transient(String, Option<Duration>),
    /// The operator must act.
    Operator(String),
}

impl Failure {
    /// What happened, for logs and people.
    pub fn summary(&self) -> &str {
        match self {
            Self::Dead(why) | Self::InDoubt { why, .. } | Self::Transient(why, _) | Self::Operator(why) => why,
        }
    }

    /// The word in metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dead(_) => "dead",
            Self::InDoubt { .. } => "in_doubt",
            Self::Transient(..) => "transient",
            Self::Operator(_) => "operator",
        }
    }
}

/// What is known when a request is judged.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Since when the outcome is in doubt, if an earlier request left it so.
    pub in_doubt_since: Option<Timestamp>,
    /// Since when the refresh token has its value.
    pub token_since: Option<Timestamp>,
    /// When a repetition would be sent; `None` if there is to be none.
    pub repeat_at: Option<Timestamp>,
}

impl Asked {
    /// The lost reply that the repetition is about: the first one.
    fn doubt(&self, rotation: &Rotation) -> (Timestamp, Repetition) {
        let since = self.in_doubt_since.unwrap_or(self.sent_at);
        (since, repetition(rotation, since, self.token_since, self.sent_at))
    }
}

/// What a reply that was lost at `since` means at `now`. A moment that is still to come is one before the clock was set back:
/// nobody knows how long ago it was.
pub fn repetition(rotation: &Rotation, since: Timestamp, token_since: Option<Timestamp>, now: Timestamp) -> Repetition {
    match rotation.repetition(since, token_since) {
        Repetition::HarmlessUntil(_) if since > now => Repetition::LastResort,
        repetition => repetition,
    }
}

/// Judges one exchange. Repeated is only what cannot have burnt the refresh token: nothing was sent, or the provider's
/// rotation makes repetition harmless.
pub fn judge(exchanged: Exchanged, rotation: &Rotation, asked: Asked) -> Step {
    match exchanged {
        Ok(Ok(reply)) => Step::Store(Box::new(reply)),
        Ok(Err(refusal)) => refused(refusal, rotation, asked),
        Err(HttpError::NotSent(why)) if asked.repeat_at.is_some() => Step::AskAgain(why),
        Err(error @ HttpError::NotSent(_)) => Step::Fail(Failure::Transient(error.to_string(), None)),
        Err(error @ HttpError::Ambiguous(_)) => unknown(error.to_string(), None, rotation, asked),
    }
}

fn refused(refusal: TokenRefusal, rotation: &Rotation, asked: Asked) -> Step {
    let TokenRefusal { verdict, summary, retry_after } = refusal;
    match verdict {
        Verdict::Class(ErrorClass::Permanent) => Step::Fail(Failure::Dead(summary)),
        Verdict::Class(ErrorClass::Configuration) => Step::Fail(Failure::Operator(summary)),
        Verdict::Class(ErrorClass::Transient | ErrorClass::UserAction) | Verdict::Throttled | Verdict::Misbehaved => {
            Step::Fail(Failure::Transient(summary, retry_after))
        }
        Verdict::Unknown => unknown(summary, retry_after, rotation, asked),
    }
}

fn unknown(why: String, retry_after: Option<Duration>, rotation: &Rotation, asked: Asked) -> Step {
    let (since, repetition) = asked.doubt(rotation);
    let repeat_at = asked.repeat_at.filter(|_| retry_after.is_none());
    match (repetition, repeat_at) {
        (Repetition::Harmless, Some(_)) => Step::AskAgain(why),
        (Repetition::Harmless, None) => Step::Fail(Failure::Transient(why, retry_after)),
        (Repetition::HarmlessUntil(end), Some(at)) if at < end => Step::AskAgain(why),
        _ => Step::Fail(Failure::InDoubt { why, since, repetition, retry_after }),
    }
}

/// How long before its expiry a token in doubt is probed.
const PROBE_AHEAD: Duration = Duration::from_secs(2);

/// When to try again; `None` for never. What is in doubt is asked again at once while that is harmless. Where it is not, it is
/// left alone while the access token works: the same refresh token sent again might end the whole grant, and there is
/// nothing to win before the token expires. But where a refresh ends earlier access tokens, the one in use may be dead
/// already: then it is asked at once.
pub fn retry_at(
    failure: &Failure,
    rotation: Option<&Rotation>,
    now: Timestamp,
    backoff: Duration,
    access_expires_at: Option<Timestamp>,
) -> Option<Timestamp> {
    match failure {
        Failure::Dead(_) => None,
        Failure::InDoubt { repetition: Repetition::HarmlessUntil(end), retry_after, .. } if now < *end => {
            // However long the back-off has become, there is one more try before the end, unless the provider forbids it.
            let before_the_end = backoff.min((end.since(now) / 2).max(SHORTEST_IN_GRACE));
            Some(now.plus(before_the_end.max(retry_after.unwrap_or_default())))
        }
        Failure::InDoubt { retry_after, .. } => {
            let backoff = backoff.max(retry_after.unwrap_or_default());
            let may_be_dead = rotation.is_some_and(|rotation| rotation.kills_access);
            let expires_at = access_expires_at.filter(|_| !may_be_dead);
            let probe = expires_at.map_or(now, |expires_at| expires_at.minus(PROBE_AHEAD));
            Some(probe.max(now.plus(backoff)))
        }
        Failure::Transient(_, retry_after) => {
            Some(now.plus(retry_after.unwrap_or_default().max(before_the_end(backoff, now, access_expires_at))))
        }
        Failure::Operator(_) => Some(now.plus(before_the_end(backoff, now, access_expires_at))),
    }
}

/// The back-off while a token still works: at most half of the time that it has left, so that an outage which is over a minute
/// before the end is noticed in time.
fn before_the_end(backoff: Duration, now: Timestamp, access_expires_at: Option<Timestamp>) -> Duration {
    match access_expires_at {
        Some(end) if now < end => backoff.min((end.since(now) / 2).max(SHORTEST_BACKOFF)),
        _ => backoff,
    }
}

/// However little is left of a grace, requests do not follow closer upon one another.
const SHORTEST_IN_GRACE: Duration = Duration::from_secs(2);
/// However little time a token has left, nobody is asked more often.
const SHORTEST_BACKOFF: Duration = Duration::from_secs(5);

/// Until when a connection whose last outcome is in doubt is left alone, if so: there is a token that works, and asking now could end
/// it together with the grant.
pub fn left_alone_until(record: &ConnectionRecord, rotation: &Rotation, now: Timestamp) -> Option<Timestamp> {
    let since = record.trouble.as_ref()?.in_doubt_since.filter(|_| !rotation.kills_access)?;
    let probe = record.access_expires_at?.minus(PROBE_AHEAD);
    match repetition(rotation, since, record.refresh_token_since, now) {
        Repetition::Harmless => None,
        Repetition::HarmlessUntil(end) if now < end => None,
        _ => (now < probe).then_some(probe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::duration::DurationText;
    use crate::catalogue::entry::RotationModel;

    fn rotation(model: RotationModel) -> Rotation {
        let grace = Some(DurationText(Duration::from_secs(600)));
        Rotation {
            model,
            interval: None,
            grace,
            grace_cap: None,
            when_on: None,
            reuse: None,
            kills_access: false,
            one_grant: false,
            multi_resource: false,
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn asked(may_repeat: bool) -> Asked {
        let repeat_at = may_repeat.then(|| NOW.plus(Duration::from_secs(1)));
        Asked { sent_at: NOW, in_doubt_since: None, token_since: None, repeat_at }
    }

    fn word(exchanged: Exchanged, model: RotationModel, may_repeat: bool) -> &'static str {
        word_of(judge(exchanged, &rotation(model), asked(may_repeat)))
    }

    fn word_of(step: Step) -> &'static str {
        match step {
            Step::Store(_) => "store",
            Step::AskAgain(_) => "ask again",
            Step::Fail(failure) => failure.word(),
        }
    }

    fn lost() -> Exchanged {
        Err(HttpError::Ambiguous("reset".to_owned()))
    }

    fn refusal(verdict: Verdict) -> Exchanged {
        Ok(Err(TokenRefusal { verdict, summary: "s".to_owned(), retry_after: None }))
    }

    #[test]
    fn what_was_not_sent_is_asked_again_at_any_provider() {
        for model in [RotationModel::SingleUse, RotationModel::Static] {
            let not_sent = || Err(HttpError::NotSent("refused".to_owned()));
            assert_eq!(word(not_sent(), model, true), "ask again");
            assert_eq!(word(not_sent(), model, false), "transient");
        }
    }

    #[test]
    fn what_may_have_been_done_is_asked_again_only_where_that_is_harmless() {
        let harmless =
            [RotationModel::None, RotationModel::Static, RotationModel::Overlap, RotationModel::UntilSuccessor];
        let strict = [RotationModel::SingleUse, RotationModel::Optional];
        for lost in [lost, || refusal(Verdict::Unknown)] {
            for model in harmless {
                assert_eq!(word(lost(), model, true), "ask again", "{model:?}");
                assert_eq!(word(lost(), model, false), "transient", "{model:?}");
            }
            for model in strict {
                assert_eq!(word(lost(), model, true), "in_doubt", "{model:?}");
            }
        }
    }

    #[test]
    fn within_a_grace_it_is_asked_again_and_after_it_no_more() {
        let leeway = rotation(RotationModel::Leeway);
        assert_eq!(word_of(judge(lost(), &leeway, asked(true))), "ask again");
        assert_eq!(word_of(judge(lost(), &leeway, asked(false))), "in_doubt", "it stays known that something was lost");
        let late = Asked { in_doubt_since: Some(NOW.minus(Duration::from_secs(580))), ..asked(true) };
        assert_eq!(word_of(judge(lost(), &leeway, late)), "in_doubt");
        let short = Rotation { grace: Some(DurationText(Duration::from_secs(1))), ..leeway };
        assert_eq!(word_of(judge(lost(), &short, asked(true))), "in_doubt", "the repetition would come too late");
    }

    #[test]
    fn a_value_that_cannot_have_changed_is_sent_again() {
        let daily = Rotation {
            interval: Some(DurationText(Duration::from_secs(86_400))),
            grace: None,
            ..rotation(RotationModel::Interval)
        };
        let since = |hours: u64| Some(NOW.minus(Duration::from_secs(3600 * hours)));
        let young = Asked { token_since: since(2), ..asked(true) };
        assert_eq!(word_of(judge(lost(), &daily, young)), "ask again");
        let old = Asked { token_since: since(23), ..asked(true) };
        assert_eq!(word_of(judge(lost(), &daily, old)), "in_doubt");
    }

    #[test]
    fn refusals_are_not_repeated() {
        let class = |class| refusal(Verdict::Class(class));
        let model = RotationModel::Static;
        assert_eq!(word(class(ErrorClass::Permanent), model, true), "dead");
        assert_eq!(word(class(ErrorClass::Configuration), model, true), "operator");
        assert_eq!(word(class(ErrorClass::Transient), model, true), "transient");
        assert_eq!(word(class(ErrorClass::UserAction), model, true), "transient");
        assert_eq!(word(refusal(Verdict::Throttled), model, true), "transient");
        assert_eq!(word(refusal(Verdict::Misbehaved), model, true), "transient");
    }

    #[test]
    fn what_is_in_doubt_waits_for_the_end_of_the_token() {
        let (backoff, expiry) = (Duration::from_secs(15), NOW.plus(Duration::from_secs(100)));
        let in_doubt = |repetition| Failure::InDoubt { why: String::new(), since: NOW, repetition, retry_after: None };
        let last_resort = in_doubt(Repetition::LastResort);
        let strict = rotation(RotationModel::SingleUse);
        let at = |failure: &Failure, rotation, expiry| retry_at(failure, rotation, NOW, backoff, expiry);
        let after = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));
        assert_eq!(at(&last_resort, Some(&strict), Some(expiry)), after(98));
        assert_eq!(at(&last_resort, Some(&strict), Some(NOW)), after(15));
        let kills = Rotation { kills_access: true, ..strict };
        assert_eq!(at(&last_resort, Some(&kills), Some(expiry)), after(15));
        assert_eq!(at(&Failure::Dead(String::new()), None, None), None);
        assert_eq!(at(&Failure::Transient(String::new(), Some(Duration::from_secs(90))), None, None), after(90));
        let soon = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));
        let long = Duration::from_secs(300);
        let passing = Failure::Transient(String::new(), None);
        let next = |expiry| retry_at(&passing, None, NOW, long, expiry);
        assert_eq!((next(soon(90)), next(soon(4)), next(Some(NOW))), (after(45), after(5), after(300)));
        let until = |seconds| in_doubt(Repetition::HarmlessUntil(NOW.plus(Duration::from_secs(seconds))));
        assert_eq!(at(&until(60), None, Some(expiry)), after(15), "while it is harmless, soon");
        assert_eq!(at(&until(20), None, Some(expiry)), after(10), "and once more before that ends");
        assert_eq!(at(&until(0), None, Some(expiry)), after(98), "afterwards as if there were no grace");
    }
}
