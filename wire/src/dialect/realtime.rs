//! Sessions over WebSocket: OpenAI's Realtime API, and the Live API of Gemini and Vertex AI.
//!
//! Only their heads are read. What the two sides say to each other passes unread; a refusal is an
//! ordinary reply, with an error in the provider's own form.

use std::sync::LazyLock;

use super::openai::{self, ERROR_PATHS};
use super::{Asks, Call, Path, Reading, decoded};
use crate::json::Table;
use crate::{Dialect, HeadView};

static REFUSAL: Reading = Reading {
    paths: LazyLock::new(|| Table::new(ERROR_PATHS)),
    nested: None,
    usage: openai::usage,
    has_end: false,
    count_headers: &[],
};

/// Recognises a request that asks for a WebSocket at one of their paths.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    if head.method != "GET" {
        return None;
    }
    let asked = head.headers.value("upgrade")?;
    if !asked.eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    let (dialect, provider, model) = match path.segments() {
        [.., "realtime"] => (Dialect::OpenAi, "openai", openai_model(head)),
        [.., method] if is_gemini(method) => (Dialect::Gemini, "gcp.gemini", None),
        [.., service, "BidiGenerateContent"] if is_vertex(service) => {
            (Dialect::Vertex, "gcp.vertex_ai", None)
        }
        _ => return None,
    };
    Some(Call {
        dialect,
        operation: "realtime",
        provider: Some(provider),
        model,
        region: path.after("locations").map(|location| decoded(location).into_owned()),
        project: None,
        stream: None,
        streams_unasked: false,
        asks: Asks::NOTHING,
        reading: &REFUSAL,
    })
}

/// `google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent`, and the same for
/// callers whose token constrains them.
fn is_gemini(method: &str) -> bool {
    method.starts_with("google.ai.generativelanguage.")
        && method.contains(".GenerativeService.BidiGenerateContent")
}

/// `google.cloud.aiplatform.v1beta1.LlmBidiService`.
fn is_vertex(service: &str) -> bool {
    service.starts_with("google.cloud.aiplatform.") && service.ends_with(".LlmBidiService")
}

/// The query names the model, or the deployment on Azure.
fn openai_model(head: &HeadView<'_>) -> Option<String> {
    let named = |key: &str| {
        let mut pairs = head.query?.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, value)| *name == key && !value.is_empty())?;
        Some(decoded(value).into_owned())
    };
    named("model").or_else(|| named("deployment"))
}
