//! What an answer means: which credential, which right, which path is at fault.
//!
//! Of what a server says, single words of its error are told: letters and no more, and nothing that
//! was sent to it.

use http::StatusCode;
use serde_json::Value;

use super::Status;
use super::call::Answer;
use super::credential::Own;
use super::plan::{Clues, Expects, Interface, Probe, missing_base};
use crate::upstream::Origin;

/// The longest word that is told.
const MAX_WORD: usize = 64;
/// Words of one error that are told, at most.
const MAX_WORDS: usize = 3;

/// How it is, what was found, and what to do about it.
type Judged = (Status, String, Option<String>);

pub(super) fn judge(
    answer: &Answer,
    probe: &Probe,
    interface: Interface,
    origin: &Origin,
    own: &Own,
    clues: &Clues,
) -> Judged {
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let words = words(answer, document.as_ref());
    let said = match words.is_empty() {
        true => answer.status.as_u16().to_string(),
        false => format!("{} {}", answer.status.as_u16(), words.join(", ")),
    };
    let fault = |advice: &str| (Status::Failed, said.clone(), Some(advice.to_owned()));
    let warning = |text: &str| (Status::Warning, format!("{said}; {text}"), None);
    let status = refused(answer.status, &words);
    match status.as_u16() {
        200..=299 => good(answer, document.as_ref(), probe, clues),
        300..=399 => {
            let place = place(answer).unwrap_or_else(|| "another place".to_owned());
            let text = format!("{said}, redirects to {place}");
            (Status::Failed, text, Some("write in `url` where the server really is".to_owned()))
        }
        401 | 403 => match own {
            Own::Some { kind, .. } => {
                let advice =
                    refusal(status, &words, right(answer, document.as_ref()), interface, kind);
                (Status::Failed, said, Some(advice))
            }
            Own::None | Own::Missing => (
                Status::Ok,
                format!("{said}: the caller's credential is needed, and goes through as it is"),
                None,
            ),
        },
        404 | 405 | 501 => {
            let is_of_model =
                matches!(probe.expects, Expects::Count(_)) && is_ours(document.as_ref());
            match (&probe.expects, is_of_model) {
                (Expects::Count(model), true) => {
                    warning(&format!("the server was reached, but does not serve {model} there"))
                }
                _ => (Status::Failed, said, Some(lost(origin))),
            }
        }
        429 => warning("it works, and is limited at the moment"),
        400 if answer.body.windows(5).any(|part| part == b"HTTPS") && !origin.tls => {
            fault("the port is for TLS: write https:// in `url`")
        }
        400 if matches!(probe.expects, Expects::Count(_)) && matches!(own, Own::Some { .. }) => {
            warning(
                "the credential was accepted; the model cannot count tokens there, so the right to call was not examined",
            )
        }
        503 if probe.expects == Expects::Health => {
            fault("the server is up but not ready: it may still be loading its model")
        }
        502 | 504 => {
            fault("something before the server answers in its place: see whether the server runs")
        }
        500..=599 => {
            fault("the server is at fault, or overloaded: see its logs or its status page")
        }
        _ => fault("see that `url` is the address of a model API"),
    }
}

/// 401 where a provider says by another status that it does not take the key.
fn refused(status: StatusCode, words: &[String]) -> StatusCode {
    let is_key = words.iter().any(|word| word.starts_with("API_KEY_"));
    if is_key && status == StatusCode::BAD_REQUEST { StatusCode::UNAUTHORIZED } else { status }
}

// === good ===

fn good(answer: &Answer, document: Option<&Value>, probe: &Probe, clues: &Clues) -> Judged {
    let status = answer.status.as_u16();
    match &probe.expects {
        Expects::Health => (Status::Ok, status.to_string(), None),
        Expects::Count(model) => match document {
            Some(Value::Object(_)) => {
                (Status::Ok, format!("{status}, tokens counted by {model}"), None)
            }
            _ => unexpected(status, "a count of tokens"),
        },
        Expects::Models => match document.and_then(models) {
            None if document.is_some_and(Value::is_object) => {
                (Status::Ok, format!("{status}"), None)
            }
            None => unexpected(status, "a list of models"),
            Some(models) => listed(status, models, clues.model.as_deref()),
        },
    }
}

fn unexpected(status: u16, what: &str) -> Judged {
    let text = format!("{status}, but with something that is not {what}");
    let advice = "another server answers in its place (a portal, a web page): see host and base path of `url`";
    (Status::Failed, text, Some(advice.to_owned()))
}

fn models(document: &Value) -> Option<&Vec<Value>> {
    let lists = ["data", "models", "publisherModels"].map(|key| &document[key]);
    lists.into_iter().find_map(Value::as_array).or_else(|| document.as_array())
}

fn listed(status: u16, models: &[Value], wanted: Option<&str>) -> Judged {
    let count = match models.len() {
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    let id = |model: &Value| {
        ["id", "name"].iter().find_map(|key| model[*key].as_str()).map(str::to_owned)
    };
    let is_it = |id: &str, wanted: &str| id == wanted || id.ends_with(&format!("/{wanted}"));
    match wanted {
        Some(wanted) if !models.iter().filter_map(id).any(|id| is_it(&id, wanted)) => (
            Status::Warning,
            format!("{status}, {count}, none of which is {wanted}"),
            Some("`model` names what records show; write it as the server does".to_owned()),
        ),
        Some(wanted) => (Status::Ok, format!("{status}, {count}, {wanted} among them"), None),
        None => (Status::Ok, format!("{status}, {count}"), None),
    }
}

// === refused ===

fn refusal(
    status: StatusCode,
    words: &[String],
    right: Option<String>,
    interface: Interface,
    kind: &str,
) -> String {
    let is = |word: &str| words.iter().any(|found| found.starts_with(word));
    if is("ExpiredToken") {
        return "the keys have expired: renew them where they come from".to_owned();
    }
    if is("InvalidSignature") || is("SignatureDoesNotMatch") || is("RequestTimeTooSkewed") {
        return "the signature is not right: see that secret and access key belong together, `region` and `service`, and this machine's clock"
            .to_owned();
    }
    if is("UnrecognizedClient") || is("InvalidClientTokenId") {
        return "AWS does not know the access key above: see that it is active, and of this partition"
            .to_owned();
    }
    if is("SERVICE_DISABLED") {
        return "enable the Vertex AI API (aiplatform.googleapis.com) in the project".to_owned();
    }
    if is("ACCESS_TOKEN_SCOPE_INSUFFICIENT") {
        return "give the credential the scope https://www.googleapis.com/auth/cloud-platform"
            .to_owned();
    }
    let whose = match kind {
        "aws" => "the AWS keys above",
        "google" => "the Google account above",
        "bearer" => "the bearer key above",
        _ => "the key above",
    };
    let usual = match interface {
        Interface::Bedrock => Some("bedrock:CountTokens (calls need bedrock:InvokeModel)"),
        Interface::Vertex => Some("aiplatform.endpoints.predict (roles/aiplatform.user)"),
        Interface::OpenAi => Some("to list models"),
        _ => None,
    };
    match (status.as_u16(), right, usual) {
        (_, Some(right), _) => format!("grant {right} to {whose}"),
        (403, None, Some(usual)) => {
            format!("{whose} is known, but lacks a right, most likely {usual}")
        }
        (403, None, None) => format!("{whose} is known, but may not do this: see its rights"),
        _ => format!(
            "{whose} is not accepted: see that it is this provider's, active, and in the right header"
        ),
    }
}

/// The right that is missing, where the server names it.
fn right(answer: &Answer, document: Option<&Value>) -> Option<String> {
    let details = document.and_then(|document| document["error"]["details"].as_array());
    let permission = details.into_iter().flatten();
    let mut permission = permission.filter_map(|detail| detail["metadata"]["permission"].as_str());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".:-".contains(&byte);
    let is_right = |text: &&str| {
        (3..=MAX_WORD).contains(&text.len())
            && text.bytes().all(legal)
            && text.contains(['.', ':'])
            && !is_sent(answer, text)
    };
    if let Some(permission) = permission.next().filter(is_right) {
        return Some(permission.to_owned());
    }
    let text = std::str::from_utf8(&answer.body).ok()?;
    ["not authorized to perform: ", "Missing scopes: "].iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        let word = rest.split(|letter: char| !u8::try_from(letter).is_ok_and(legal)).next()?;
        Some(word.trim_end_matches('.')).filter(is_right).map(str::to_owned)
    })
}

// === lost ===

fn lost(origin: &Origin) -> String {
    match missing_base(origin) {
        Some(base) => format!("the path is not known there: write {base} at the end of `url`"),
        None if origin.base.is_empty() => {
            "the path is not known there: see the host, and whether `url` needs a base path before /v1".to_owned()
        }
        None => format!(
            "the path is not known there: see the base path of `url`, {}",
            String::from_utf8_lossy(&origin.base)
        ),
    }
}

/// Whether a 404 is an error of an API rather than of a web server.
fn is_ours(document: Option<&Value>) -> bool {
    let Some(document) = document else { return false };
    document["error"]["status"].is_string() || document["message"].is_string()
}

/// Host of a redirect.
fn place(answer: &Answer) -> Option<String> {
    let location = answer.headers.get("location")?.to_str().ok()?;
    let rest = location.split_once("://").map(|(_, rest)| rest)?;
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let is_host =
        authority.len() <= 253 && authority.bytes().all(legal) && !is_sent(answer, authority);
    is_host.then(|| authority.to_owned())
}

// === words ===

/// What the server calls its error.
fn words(answer: &Answer, document: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    let header = answer.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let mut add = |text: Option<&str>| {
        let Some(word) = text.map(plain) else { return };
        let is_new = !found.iter().any(|known| known == word);
        if is_word(word) && is_new && found.len() < MAX_WORDS && !is_sent(answer, word) {
            found.push(word.to_owned());
        }
    };
    add(header);
    if let Some(document) = document.filter(|_| !answer.status.is_success()) {
        // Google wraps an error in a list at times.
        let document = document.get(0).unwrap_or(document);
        let error = &document["error"];
        for key in ["status", "code", "type"] {
            add(error[key].as_str());
        }
        for detail in error["details"].as_array().into_iter().flatten() {
            add(detail["reason"].as_str());
        }
        for key in ["__type", "code", "type", "error"] {
            add(document[key].as_str());
        }
    }
    found
}

/// `a.b#AccessDeniedException:http://...` is AccessDeniedException.
fn plain(text: &str) -> &str {
    let text = text.split(':').next().unwrap_or(text);
    text.rsplit('#').next().unwrap_or(text)
}

fn is_word(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(legal)
}

/// Whether a text is part of what we sent.
fn is_sent(answer: &Answer, text: &str) -> bool {
    answer.secrets.iter().any(|secret| secret.expose().contains(text))
}
