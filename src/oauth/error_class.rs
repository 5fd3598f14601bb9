//! What an error of the token endpoint means for the grant.

use crate::catalogue::entry::{ErrorClass, ErrorRule, Errors};

/// What was read from an error reply.
#[derive(Clone, Debug, Default)]
pub struct ErrorReply<'r> {
    /// The HTTP status.
    pub status: u16,
    /// All error codes found, in order of preference; numbers and `true` as they are written.
    pub codes: Vec<String>,
    /// `error_description`.
    pub description: Option<&'r str>,
}

/// Exceptions first, then the entry's lists, then RFC 6749 section 5.2. `None` where nothing is known about the code: no
/// verdict on the grant.
pub fn classify(errors: &Errors, reply: &ErrorReply<'_>) -> Option<ErrorClass> {
    by_rule(errors, reply).or_else(|| reply.codes.iter().find_map(|code| by_code(errors, code)))
}

/// What the entry says of an error with exactly this status.
pub fn declared_for_status(errors: &Errors, reply: &ErrorReply<'_>) -> Option<ErrorClass> {
    errors.rules.iter().filter(|rule| rule.status.is_some()).find(|rule| holds(rule, reply)).map(|rule| rule.class)
}

fn by_rule(errors: &Errors, reply: &ErrorReply<'_>) -> Option<ErrorClass> {
    errors.rules.iter().find(|rule| holds(rule, reply)).map(|rule| rule.class)
}

fn holds(rule: &ErrorRule, reply: &ErrorReply<'_>) -> bool {
    let description = reply.description.unwrap_or_default().to_lowercase();
    rule.error.as_ref().is_none_or(|code| reply.codes.contains(code))
        && rule.description_contains.as_deref().is_none_or(|part| description.contains(&part.to_lowercase()))
        && rule.status.is_none_or(|status| status == reply.status)
}

fn by_code(errors: &Errors, code: &str) -> Option<ErrorClass> {
    let listed = [
        (&errors.permanent, ErrorClass::Permanent),
        (&errors.transient, ErrorClass::Transient),
        (&errors.configuration, ErrorClass::Configuration),
        (&errors.user_action, ErrorClass::UserAction),
    ];
    let declared = listed.iter().find(|(codes, _)| codes.iter().any(|known| known == code)).map(|(_, class)| *class);
    declared.or(match code {
        "invalid_grant" => Some(ErrorClass::Permanent),
        "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" => {
            Some(ErrorClass::Configuration)
        }
        "temporarily_unavailable" | "server_error" | "slow_down" => Some(ErrorClass::Transient),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_go_before_lists_and_lists_before_the_standard() {
        let errors = Errors {
            transient: vec!["invalid_client".to_owned()],
            rules: vec![ErrorRule {
                error: Some("invalid_grant".to_owned()),
                description_contains: Some("Already Being Processed".to_owned()),
                status: None,
                class: ErrorClass::Transient,
            }],
            ..Errors::default()
        };
        let class = |code, description| {
            classify(&errors, &ErrorReply { status: 400, codes: vec![str::to_owned(code)], description })
        };
        let busy = Some("token request is already being processed");
        assert_eq!(class("invalid_grant", busy), Some(ErrorClass::Transient));
        assert_eq!(class("invalid_grant", None), Some(ErrorClass::Permanent));
        assert_eq!(class("invalid_client", None), Some(ErrorClass::Transient));
        assert_eq!(class("unauthorized_client", None), Some(ErrorClass::Configuration));
        assert_eq!(class("out_of_cheese", None), None);
    }
}
