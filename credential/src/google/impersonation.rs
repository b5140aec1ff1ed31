//! Acting as a service account at an address of the user's own: the last step of federation from
//! AWS, where the credentials' file names the URL
//! (<https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>).

use std::time::Duration;

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use http::Extensions;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::aws::told;
use crate::fresh::Fetched;
use crate::{Secret, Signed};

use super::in_time;

/// Tokens are fetched anew so long before their end, or after half of a shorter life.
const AHEAD: Duration = Duration::from_secs(240);
const SOONEST: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Exchanges one identity's token for a service account's.
pub(super) struct Impersonation {
    own: Credentials,
    url: String,
    scopes: Vec<String>,
}

impl Impersonation {
    pub(super) fn new(own: Credentials, url: String, scopes: Vec<String>) -> Self {
        Self { own, url, scopes }
    }

    pub(super) async fn token(&self) -> Result<Fetched<Signed>, String> {
        let headers = self.own.headers(Extensions::new()).await.map_err(|error| told(&error))?;
        let CacheableResource::New { data, .. } = headers else {
            return Err("the library gave no token".to_owned());
        };
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.map_err(|error| told(&error.without_url()))?;
        let request = client.post(&self.url).headers(data).json(&json!({ "scope": self.scopes }));
        let answer = request.send().await.map_err(|error| told(&error.without_url()))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("acting as the service account was answered with {status}"));
        }
        let answer: Value = answer.json().await.map_err(|error| told(&error.without_url()))?;
        let token = answer["accessToken"].as_str().ok_or("the answer has no accessToken")?;
        let expires = expires(&answer);
        let left = expires.map(|at| at.saturating_duration_since(Instant::now()));
        Ok(Fetched {
            value: Some(Signed {
                headers: vec![("authorization".to_owned(), Secret::new(format!("Bearer {token}")))],
                ..Signed::default()
            }),
            expires,
            again_in: left
                .map_or(AHEAD, |left| left.saturating_sub(AHEAD).max(left / 2))
                .max(SOONEST),
        })
    }
}

fn expires(answer: &Value) -> Option<Instant> {
    let at: Timestamp = answer["expireTime"].as_str()?.parse().ok()?;
    in_time(at.duration_since(Timestamp::now()).as_secs_f64().max(0.0))
}
