//! What tells series apart.

use std::sync::Arc;

use tidegate_wire::Outcome;

use super::Label;
use crate::export::metrics::Labels;
use crate::export::names;

pub(super) static CALLER: Label = Label::same("caller", |labels, _| labels.caller.clone());
pub(super) static MODEL: Label = Label::same("model", |labels, _| labels.model.clone());
pub(super) static PROVIDER: Label = Label::same("provider", |labels, _| labels.provider.clone());
pub(super) static OPERATION: Label = Label::same("operation", |labels, _| labels.operation.clone());
pub(super) static REGION: Label = Label::same("region", |labels, _| labels.region.clone());
pub(super) static ROUTE: Label = Label::same("route", |labels, _| labels.route.clone());
pub(super) static UPSTREAM: Label = Label::same("upstream", |labels, _| labels.upstream.clone());
pub(super) static SPLIT: Label = Label::same("split", |labels, _| labels.split.clone());
pub(super) static OWN: Label = Label::same("kind", |labels, _| labels.own.into());
pub(super) static TO: Label = Label::same("to", |_, part| part.into());
pub(super) static BY: Label = Label::same("by", |_, part| part.into());
pub(super) static CACHE: Label = Label::same("cache", |_, part| part.into());
pub(super) static STREAM: Label = Label::same("stream", |labels, _| text(labels.stream));
pub(super) static STATUS: Label = Label::same("status", |labels, _| text(labels.status));
pub(super) static OUTCOME: Label =
    Label::same("outcome", |labels, _| text(labels.outcome.map(Outcome::as_str)));
pub(super) static ERROR_ORIGIN: Label = Label::same("error_origin", |labels, _| {
    text(labels.error_origin.map(tidegate_wire::ErrorOrigin::as_str))
});
pub(super) static TYPE: Label = Label::same("type", |_, part| part.into());
pub(super) static INPUT_SIZE: Label = Label::same("input_size", |_, part| part.into());
pub(super) static OUTPUT_SIZE: Label = Label::same("output_size", |_, part| part.into());
pub(super) static WAIT: Label = Label::same("wait", |_, part| part.into());
pub(super) static SOURCE: Label = Label::same("source", |_, part| part.into());
pub(super) static HOST: Label = Label::same("host", |_, part| part.into());
pub(super) static END: Label = Label::same("end", |_, part| part.into());
pub(super) static MEDIA_KIND: Label = Label::same("kind", |_, part| part.into());
// These families are not read off series of calls: the registry names their values itself.
pub(super) static EXPORTER: Label = Label::same("exporter", |_, part| part.into());
pub(super) static STORE_OPERATION: Label = Label::same("operation", |_, part| part.into());
pub(super) static TARGET: Label = Label::same("target", |_, part| part.into());
pub(super) static SIGNAL: Label = Label::same("signal", |_, part| part.into());
pub(super) static RESULT: Label = Label::same("result", |_, part| part.into());
pub(super) static POLICY: Label = Label::same("policy", |_, part| part.into());
pub(super) static REASON: Label = Label::same("reason", |_, part| part.into());
pub(super) static STATE: Label = Label::same("state", |_, part| part.into());
pub(super) static QUOTA_NAME: Label = Label::same("quota", |_, part| part.into());
pub(super) static MODE: Label = Label::same("mode", |_, part| part.into());
pub(super) static DIMENSION: Label = Label::same("dimension", |_, part| part.into());
pub(super) static WARNING: Label = Label::same("warning", |_, part| part.into());
pub(super) static BUILD_VERSION: Label = Label::same("version", |_, part| part.into());
pub(super) static BUILD_REVISION: Label = Label::same("revision", |_, part| part.into());

pub(super) static GEN_AI_OPERATION: Label = Label {
    name: "gen_ai.operation.name",
    prometheus: "gen_ai_operation_name",
    value: OPERATION.value,
};
pub(super) static GEN_AI_PROVIDER: Label =
    Label { name: names::PROVIDER, prometheus: "gen_ai_provider_name", value: PROVIDER.value };
// Of these two, the conventions that are followed show one or both.
pub(super) static GEN_AI_SYSTEM: Label = Label {
    name: names::SYSTEM,
    prometheus: "gen_ai_system",
    value: |labels, _| names::system(&labels.provider).into(),
};
pub(super) static GEN_AI_MODEL: Label =
    Label { name: "gen_ai.request.model", prometheus: "gen_ai_request_model", value: MODEL.value };
pub(super) static GEN_AI_TOKEN_TYPE: Label =
    Label { name: "gen_ai.token.type", prometheus: "gen_ai_token_type", value: TYPE.value };
pub(super) static ERROR_TYPE: Label =
    Label { name: "error.type", prometheus: "error_type", value: |labels, _| error_type(labels) };

impl Label {
    const fn same(name: &'static str, value: fn(&Labels, &'static str) -> Arc<str>) -> Self {
        Self { name, prometheus: name, value }
    }
}

pub(super) fn is_model_call(labels: &Labels) -> bool {
    !labels.operation.is_empty()
}

/// The status where it is an error, else the outcome where it is none; nothing on success. The
/// provider's own words stay in the records: they are not ours to bound.
fn error_type(labels: &Labels) -> Arc<str> {
    match (labels.outcome, labels.status) {
        (None | Some(Outcome::Completed), _) => Arc::default(),
        (Some(_), Some(status)) if status >= 400 => text(Some(status)),
        (Some(outcome), _) => outcome.as_str().into(),
    }
}

fn text(value: Option<impl ToString>) -> Arc<str> {
    value.map(|value| value.to_string().into()).unwrap_or_default()
}
