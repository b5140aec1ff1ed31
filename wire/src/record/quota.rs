//! What quotas made of a call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::Line;

/// What quotas made of a call. What is estimated here is charged to budgets, and is no usage: it
/// stands in no metric of tokens or money.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quota {
    /// The quota that was spent. The call was refused for it where its `error.type` says so; else
    /// the quota only observes, and would have refused it.
    #[serde(rename = "tidegate.quota.spent", skip_serializing_if = "Option::is_none")]
    pub spent: Option<Arc<str>>,
    /// Input tokens that were charged where the provider stated none.
    #[serde(rename = "tidegate.estimated.input_tokens", skip_serializing_if = "Option::is_none")]
    pub estimated_input_tokens: Option<u64>,
    /// Output tokens that were charged where the provider stated none, or not the last of them.
    #[serde(rename = "tidegate.estimated.output_tokens", skip_serializing_if = "Option::is_none")]
    pub estimated_output_tokens: Option<u64>,
}

impl Quota {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("tidegate.quota.spent", self.spent.as_deref());
        line.plain("tidegate.estimated.input_tokens", self.estimated_input_tokens);
        line.plain("tidegate.estimated.output_tokens", self.estimated_output_tokens);
    }
}
