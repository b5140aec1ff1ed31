//! `/bypass`: shows the switch of all policies, and turns it for whoever has the token.

use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use serde_json::json;
use tidegate_credential::{Place, Secret};
use tracing::warn;

use super::{Inside, json, text};
use crate::bypass::{By, Setting};

/// The environment variable that holds the token, whatever the configuration says.
pub(crate) const TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";
/// Bytes of a request body: more says nothing that is understood here.
const MAX_BODY: usize = 1024;
/// How long a request body may take.
const BODY: Duration = Duration::from_secs(5);

/// Why the switch is not turned.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "no token is configured: set `admin_token` in the configuration, or the environment variable {TOKEN}"
    )]
    NoToken,
    #[error("the token that is configured cannot be used: {0}")]
    Unreadable(tidegate_credential::Error),
    #[error("this needs `Authorization: Bearer` and the token that is configured")]
    Unauthorized,
    #[error("the body is over {MAX_BODY} bytes, or did not come")]
    Body,
    #[error(
        "say which it is to be: POST /bypass?on=true or ?on=false, or the body {{\"on\": true}}"
    )]
    Unclear,
}

/// What a body says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    on: bool,
}

/// How the switch stands.
pub(super) fn shown(inside: &Inside) -> Response<Full<Bytes>> {
    json(&json!(inside.generations.borrow().switch().setting()))
}

/// Turns the switch, and shows how it stands.
pub(super) async fn turn(inside: &Inside, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match turned(inside, request).await {
        Ok(setting) => json(&json!(setting)),
        Err(refused) => {
            warn!(reason = %refused, "bypass was not switched");
            refused.answer()
        }
    }
}

async fn turned(inside: &Inside, request: Request<Incoming>) -> Result<Setting, Refused> {
    let token = token(inside).await?;
    if !bearer(request.headers()).is_some_and(|said| token.is(said)) {
        return Err(Refused::Unauthorized);
    }
    let on = wanted(request).await?;
    Ok(inside.generations.borrow().switch().turn(on, By::Admin))
}

/// Where the token stands, of those who may turn switches; absent where nobody may.
pub(crate) fn place(configured: Option<&Place>) -> Option<Place> {
    let variable = std::env::var_os(TOKEN).map(|_| Place::Env(TOKEN.to_owned()));
    variable.or_else(|| configured.cloned())
}

async fn token(inside: &Inside) -> Result<Secret, Refused> {
    let place = place(inside.generations.borrow().config.admin_token.as_ref());
    place.ok_or(Refused::NoToken)?.read().await.map_err(Refused::Unreadable)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What query and body ask for, which do not contradict each other.
async fn wanted(request: Request<Incoming>) -> Result<bool, Refused> {
    let query = request.uri().query().map(on).transpose()?;
    let body = tokio::time::timeout(BODY, Limited::new(request.into_body(), MAX_BODY).collect());
    let body = body.await.map_err(|_| Refused::Body)?.map_err(|_| Refused::Body)?.to_bytes();
    let said = match body.trim_ascii() {
        b"" => None,
        json @ [b'{', ..] => {
            let wanted: Wanted = serde_json::from_slice(json).map_err(|_| Refused::Unclear)?;
            Some(wanted.on)
        }
        form => Some(on(std::str::from_utf8(form).map_err(|_| Refused::Unclear)?)?),
    };
    match (query, said) {
        (Some(one), Some(other)) if one != other => Err(Refused::Unclear),
        (one, other) => one.or(other).ok_or(Refused::Unclear),
    }
}

/// `on=true`, in a query or a form.
fn on(text: &str) -> Result<bool, Refused> {
    match text {
        "on=true" => Ok(true),
        "on=false" => Ok(false),
        _ => Err(Refused::Unclear),
    }
}

impl Refused {
    fn answer(&self) -> Response<Full<Bytes>> {
        let status = match self {
            Self::NoToken | Self::Unreadable(_) => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unclear => StatusCode::BAD_REQUEST,
        };
        let mut answer = text(status, format!("{self}\n"));
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_told_from_who_brings_something_else() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer x").as_deref(), Some("x"));
        assert_eq!(of("bearer  x ").as_deref(), Some("x"));
        for other in ["Basic x", "x", "Bearer", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
