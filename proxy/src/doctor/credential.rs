//! The credential of an upstream, source by source.

use std::sync::Arc;
use std::time::Duration;

use tidegate_credential::{Credential, CredentialConfig, Finding, Said};
use tokio::runtime::Handle;

use super::{Hop, Progress, Status};

/// What is known of an upstream's credential.
pub(super) struct Examined {
    pub(super) hops: Vec<Hop>,
    pub(super) credential: Own,
    /// The Google Cloud project that it belongs to.
    pub(super) project: Option<String>,
}

/// The credential that calls are signed with.
#[derive(Debug)]
pub(super) enum Own {
    /// The upstream has none of its own: its callers bring theirs.
    None,
    /// It has one, which cannot be had.
    Missing,
    Some {
        kind: &'static str,
        credential: Box<Credential>,
        header: Option<String>,
    },
}

pub(super) async fn examine(
    upstream: &Arc<str>,
    config: Option<&CredentialConfig>,
    limit: Duration,
    progress: &Progress,
) -> Examined {
    let Some(config) = config else {
        let finding = "none of its own: callers' credentials go through as they are";
        let hops = vec![Hop::new("credential", None, Status::Absent, finding)];
        return Examined { hops, credential: Own::None, project: None };
    };
    let under_way = progress.begin(format!("{upstream}: credential"));
    let examined = tidegate_credential::examine(config, limit).await;
    drop(under_way);
    let credential = match examined.is_found() {
        true => Credential::new(config, &Handle::current()).ok(),
        false => None,
    };
    let credential = match credential {
        Some(credential) => Own::Some {
            kind: kind(config),
            credential: Box::new(credential),
            header: match config {
                CredentialConfig::Header(header) => Some(header.name.clone()),
                _ => None,
            },
        },
        None => Own::Missing,
    };
    let hops = examined.findings.into_iter().map(hop).collect();
    Examined { hops, credential, project: examined.project }
}

fn kind(config: &CredentialConfig) -> &'static str {
    match config {
        CredentialConfig::Bearer(_) => "bearer",
        CredentialConfig::Header(_) => "header",
        CredentialConfig::Aws(_) => "aws",
        CredentialConfig::Google(_) => "google",
    }
}

fn hop(finding: Finding) -> Hop {
    let status = match finding.said {
        Said::Yes => Status::Ok,
        Said::Doubtful => Status::Warning,
        Said::Absent => Status::Absent,
        Said::No => Status::Failed,
        Said::NotAsked => Status::Skipped,
    };
    let hop = Hop::new("credential", Some(finding.source.to_owned()), status, finding.text);
    let hop = Hop { advice: finding.advice, ..hop }.expiring(finding.expires_in);
    match finding.took {
        Duration::ZERO => hop,
        took => hop.taking(took),
    }
}
