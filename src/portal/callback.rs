//! The provider sends the browser back. Bad input is 400 and never more; the code is gone from the address bar at once.

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::account::to_account_with;
use super::api::{self, wants_json};
use super::authorize::{store_failed, visit_error};
use super::connections::card::{self, Place};
use super::cookies::{cookie, cookie_key, expire_cookie};
use super::explain::{ELSEWHERE, Explanation, HERE, explain, slug};
use super::notice::Notice;
use super::{PublicState, branding, connected, pages, session};
use crate::base::digest::Digest;
use crate::base::problem_details::ProblemDetails;
use crate::catalogue::Provider;
use crate::dance::{CallbackError, CallbackParameters, Connected, Returned};
use crate::issuer::visit::{VisitError, cookie_name};
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::names::{Label, ProviderName};
use crate::model::redirect_uri::with_parameters;
use crate::model::return_to::ReturnTo;

/// `GET /callback/{provider}`
pub async fn callback(
    State(state): State<PublicState>,
    Path(provider): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(provider) = provider.parse::<ProviderName>() else { return pages::not_found() };
    let Some(configured) = state.dance.provider(&provider) else { return pages::not_found() };
    if method != Method::GET {
        return other_method().await;
    }
    let parameters = CallbackParameters(
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
    );
    let is_https = state.public_url.is_https();
    let find = |name: &str| cookie(&headers, name, is_https);
    let user = session::user(&state, &headers).await.ok().flatten();
    let signed_in = user.as_ref().map(|user| &user.subject);
    let vouches = |digest: &Digest, key: &ConnectionKey| state.api.vouches_for(digest, key, state.clock.now());
    let mut returned = state.dance.callback(&provider, &parameters, &find, signed_in, &vouches).await;
    let spent = returned.spent_cookie.take().and_then(|name| expire_cookie(&cookie_key(&name, is_https), is_https));
    let mut response = go_on(&state, &headers, configured, returned).await;
    if let Some(expired) = spent {
        response.headers_mut().append(SET_COOKIE, expired);
    }
    response
}

/// Where the browser goes once the dance is over, well or not.
async fn go_on(state: &PublicState, headers: &HeaderMap, provider: &Provider, returned: Returned) -> Response {
    let name = &provider.entry.display_name;
    let Some(continuation) = returned.continuation else {
        let error = returned.result.err().unwrap_or(CallbackError::OtherBrowser);
        return match wants_json(headers) {
            true => problem(name, &error),
            false => explain(name, &error, ELSEWHERE).page(),
        };
    };
    if let (Continuation::Done | Continuation::Return(_), Err(error)) = (&continuation, &returned.result)
        && wants_json(headers)
    {
        return problem(name, error);
    }
    let mut sign_in = None;
    if let Ok(Connected { user: Some(user), .. }) = &returned.result {
        match session::sign_in(state, headers, user.clone()).await {
            Ok(cookie) => sign_in = Some(cookie),
            Err(error) => return store_failed(&error),
        }
    }
    let mut response = match (continuation, returned.result) {
        (Continuation::Visit(id), result) => {
            let kept = keep_in_visit(state, headers, &id, name, result).await;
            kept.map_or_else(|error| visit_error(&error), |()| see_other(&format!("/visit/{id}")))
        }
        (Continuation::Return(to), result) if state.api.may_return_to(&to.url) => {
            see_other(&returned_to(&to, &provider.name, &result))
        }
        (Continuation::Done | Continuation::Return(_), Err(error)) => {
            connected::failed(state, headers, provider, &error)
        }
        (Continuation::Done | Continuation::Return(_), Ok(Connected { choice_needed, key, id, .. })) => {
            let mut response = match choice_needed {
                true => see_other(&Place::Link.step("choose", &provider.name)),
                false => see_other(&format!("/connected/{}", provider.name)),
            };
            // From now on this browser may see what it has just connected, and nothing that was there before.
            if let Some(allowance) = returned.allowance {
                response.headers_mut().append(SET_COOKIE, connected::ticket(state, &key, Some(id), allowance));
            }
            response
        }
        (Continuation::Account | Continuation::Connect(..), Err(error)) => {
            to_account_with(state, explain(name, &error, HERE).notice())
        }
        (Continuation::Account, Ok(Connected { choice_needed: true, key, .. })) => {
            see_other(&format!("{}{}", Place::Account.step("choose", &provider.name), card::query(&key.label)))
        }
        (Continuation::Account, Ok(Connected { user: None, .. })) => {
            let text = format!("{} keeps the connection and refreshes it by itself.", branding::current().name);
            to_account_with(state, Notice::good(format!("{name} is connected."), text))
        }
        (Continuation::Account, Ok(_)) => see_other("/account"),
        (Continuation::Connect(next, label), Ok(_)) => {
            see_other(&format!("{}{}", Place::Account.step("connect", &next), card::query(&label)))
        }
    };
    if let Some(cookie) = sign_in {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// A visit remembers who has signed in, or what went wrong.
async fn keep_in_visit(
    state: &PublicState,
    headers: &HeaderMap,
    id: &str,
    name: &str,
    result: Result<Connected, CallbackError>,
) -> Result<(), VisitError> {
    let mut visit = state.issuer.visit(id, cookie(headers, &cookie_name(id), state.public_url.is_https())).await?;
    match result {
        Ok(Connected { user: None, .. }) => return Ok(()),
        Ok(Connected { user: Some(user), .. }) => match &visit.user {
            // What one user approved is not carried out for another.
            Some(known) if known.subject != user.subject => visit.notice = Some(OTHER_ACCOUNT.to_owned()),
            _ => visit.user = Some(user),
        },
        Err(error) => visit.notice = Some(explain(name, &error, HERE).inline()),
    }
    state.issuer.change_visit(visit).await
}

/// The partner's page, told how it ended: in words that say nothing which only the partner's program should know.
fn returned_to(to: &ReturnTo, provider: &ProviderName, result: &Result<Connected, CallbackError>) -> String {
    let mut parameters = vec![("provider", provider.as_str()), ("subject", to.subject.as_str())];
    if to.label != Label::default() {
        parameters.push(("label", to.label.as_str()));
    }
    match result {
        Ok(Connected { choice_needed, .. }) => {
            parameters.push(("result", "connected"));
            if *choice_needed {
                parameters.push(("choice_needed", "true"));
            }
        }
        Err(error @ (CallbackError::Denied { .. } | CallbackError::AdminConsent { .. })) => {
            parameters.extend([("result", "denied"), ("error", error.word())]);
        }
        Err(error) => parameters.extend([("result", "failed"), ("error", error.word())]),
    }
    with_parameters(&to.url, &parameters)
}

/// What a program is told.
fn problem(name: &str, error: &CallbackError) -> Response {
    let Explanation { status, title, what, next } = explain(name, error, ELSEWHERE);
    api::answer(&ProblemDetails::new(slug(error), status.as_u16(), title, what, next))
}

fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// Anything but GET at the callback path.
pub async fn other_method() -> Response {
    pages::message(
        StatusCode::BAD_REQUEST,
        "Not a sign-in",
        "A sign-in comes back here by a plain redirect.",
        "Begin again from a connect link.",
    )
}

const OTHER_ACCOUNT: &str = "This is another account than the one that the visit was begun with.";
