//! What follows from one exchange with the token endpoint: decided here, carried out in [`super::refresh`].

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::http::HttpError;
use crate::catalogue::entry::{ErrorClass, Rotation};
use crate::oauth::token_response::{TokenRefusal, TokenReply, Verdict};

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
    InDoubt(String),
    /// It passes, or the provider is to blame.
    Transient(String, Option<Duration>),
    /// The operator must act.
    Operator(String),
}

impl Failure {
    /// What happened, for logs and people.
    pub fn summary(&self) -> &str {
        match self {
            Self::Dead(why) | Self::InDoubt(why) | Self::Transient(why, _) | Self::Operator(why) => why,
        }
    }

    /// The word in metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dead(_) => "dead",
            Self::InDoubt(_) => "in_doubt",
            Self::Transient(..) => "transient",
            Self::Operator(_) => "operator",
        }
    }
}

/// Judges one exchange. Repeated is only what cannot have burnt the refresh token: nothing was sent, or the provider's
/// rotation makes repetition harmless.
pub fn judge(exchanged: Exchanged, rotation: &Rotation, may_repeat: bool) -> Step {
    let harmless = rotation.repetition_is_harmless();
    match exchanged {
        Ok(Ok(reply)) => Step::Store(Box::new(reply)),
        Ok(Err(refusal)) => refused(refusal, harmless, may_repeat),
        Err(HttpError::NotSent(why)) if may_repeat => Step::AskAgain(why),
        Err(error @ HttpError::NotSent(_)) => Step::Fail(Failure::Transient(error.to_string(), None)),
        Err(error @ HttpError::Ambiguous(_)) => unknown(error.to_string(), None, harmless, may_repeat),
    }
}

fn refused(refusal: TokenRefusal, harmless: bool, may_repeat: bool) -> Step {
    let TokenRefusal { verdict, summary, retry_after } = refusal;
    match verdict {
        Verdict::Class(ErrorClass::Permanent) => Step::Fail(Failure::Dead(summary)),
        Verdict::Class(ErrorClass::Configuration) => Step::Fail(Failure::Operator(summary)),
        Verdict::Class(ErrorClass::Transient | ErrorClass::UserAction) | Verdict::Throttled | Verdict::Misbehaved => {
            Step::Fail(Failure::Transient(summary, retry_after))
        }
        Verdict::Unknown => unknown(summary, retry_after, harmless, may_repeat),
    }
}

fn unknown(summary: String, retry_after: Option<Duration>, harmless: bool, may_repeat: bool) -> Step {
    match (harmless, may_repeat && retry_after.is_none()) {
        (true, true) => Step::AskAgain(summary),
        (true, false) => Step::Fail(Failure::Transient(summary, retry_after)),
        (false, _) => Step::Fail(Failure::InDoubt(summary)),
    }
}

/// How long before its expiry a token in doubt is probed.
const PROBE_AHEAD: Duration = Duration::from_secs(2);

/// When to try again; `None` for never. What is in doubt is left alone while the access token works: the same refresh
/// token sent again might end the whole grant, and there is nothing to win before the token expires. But where a refresh
/// ends earlier access tokens, the one in use may be dead already: then it is asked at once.
pub fn retry_at(
    failure: &Failure,
    rotation: Option<&Rotation>,
    now: Timestamp,
    backoff: Duration,
    access_expires_at: Option<Timestamp>,
) -> Option<Timestamp> {
    match failure {
        Failure::Dead(_) => None,
        Failure::InDoubt(_) => {
            let may_be_dead = rotation.is_some_and(|rotation| rotation.kills_access);
            let expires_at = access_expires_at.filter(|_| !may_be_dead);
            let probe = expires_at.map_or(now, |expires_at| expires_at.minus(PROBE_AHEAD));
            Some(probe.max(now.plus(backoff)))
        }
        Failure::Transient(_, retry_after) => Some(now.plus(retry_after.unwrap_or_default().max(backoff))),
        Failure::Operator(_) => Some(now.plus(backoff)),
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

    fn word(exchanged: Exchanged, model: RotationModel, may_repeat: bool) -> &'static str {
        match judge(exchanged, &rotation(model), may_repeat) {
            Step::Store(_) => "store",
            Step::AskAgain(_) => "ask again",
            Step::Fail(failure) => failure.word(),
        }
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
        let harmless = [
            RotationModel::None,
            RotationModel::Static,
            RotationModel::Overlap,
            RotationModel::UntilSuccessor,
            RotationModel::Leeway,
        ];
        let strict = [RotationModel::SingleUse, RotationModel::Interval, RotationModel::Optional];
        for lost in [|| Err(HttpError::Ambiguous("reset".to_owned())), || refusal(Verdict::Unknown)] {
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
    fn a_short_grace_is_no_grace() {
        let short = Rotation { grace: Some(DurationText(Duration::from_secs(10))), ..rotation(RotationModel::Leeway) };
        assert!(!short.repetition_is_harmless());
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
        let now = Timestamp::from_millis(1_000_000);
        let (backoff, expiry) = (Duration::from_secs(15), now.plus(Duration::from_secs(100)));
        let in_doubt = Failure::InDoubt(String::new());
        let strict = rotation(RotationModel::SingleUse);
        assert_eq!(
            retry_at(&in_doubt, Some(&strict), now, backoff, Some(expiry)),
            Some(now.plus(Duration::from_secs(98)))
        );
        assert_eq!(retry_at(&in_doubt, Some(&strict), now, backoff, Some(now)), Some(now.plus(backoff)));
        let kills = Rotation { kills_access: true, ..strict };
        assert_eq!(retry_at(&in_doubt, Some(&kills), now, backoff, Some(expiry)), Some(now.plus(backoff)));
        assert_eq!(retry_at(&Failure::Dead(String::new()), None, now, backoff, None), None);
        let throttled = Failure::Transient(String::new(), Some(Duration::from_secs(90)));
        assert_eq!(retry_at(&throttled, None, now, backoff, None), Some(now.plus(Duration::from_secs(90))));
    }
}
