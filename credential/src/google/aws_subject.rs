//! Who we are at AWS, told to Google: a signed GetCallerIdentity that Google's token service calls.
//!
//! The keys come from the AWS SDK's own chain, so that IRSA, Pod Identity and ECS work, which the
//! Google library does not know (<https://cloud.google.com/iam/docs/workload-identity-federation-with-other-clouds>).

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use google_cloud_auth::credentials::subject_token::{
    Builder as SubjectTokenBuilder, SubjectToken, SubjectTokenProvider,
};
use google_cloud_auth::errors::SubjectTokenProviderError;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::aws::{sdk_config, told};

/// Where AWS is asked who we are, unless the file says otherwise.
const VERIFICATION_URL: &str =
    "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
/// The field that keeps the signature from being used for another audience.
const TARGET: &str = "x-goog-cloud-target-resource";

/// Whether an external account's subject is an identity at AWS.
pub(crate) fn is_aws(source: &Value) -> bool {
    let environment = source["credential_source"]["environment_id"].as_str();
    environment.is_some_and(|id| id.starts_with("aws"))
}

/// The subject tokens of an external account.
pub(super) async fn provider(source: &Value) -> Result<Arc<AwsSubject>, String> {
    let sdk = sdk_config(None, None).await;
    let region = sdk.region().ok_or("no AWS region: set AWS_REGION")?.to_string();
    let template = source["credential_source"]["regional_cred_verification_url"].as_str();
    Ok(Arc::new(AwsSubject {
        keys: sdk.credentials_provider().ok_or("the AWS SDK knows no source of keys")?,
        url: template.unwrap_or(VERIFICATION_URL).replace("{region}", &region),
        region,
        audience: source["audience"].as_str().ok_or("the file has no `audience`")?.to_owned(),
    }))
}

/// Signs GetCallerIdentity.
#[derive(Debug)]
pub(super) struct AwsSubject {
    keys: SharedCredentialsProvider,
    region: String,
    url: String,
    audience: String,
}

/// Why there is no subject token.
#[derive(Debug, thiserror::Error)]
#[error("no identity at AWS: {0}")]
pub(super) struct NoSubject(String);

impl SubjectTokenProviderError for NoSubject {
    fn is_transient(&self) -> bool {
        true
    }
}

impl SubjectTokenProvider for AwsSubject {
    type Error = NoSubject;

    async fn subject_token(&self) -> Result<SubjectToken, NoSubject> {
        let keys =
            self.keys.provide_credentials().await.map_err(|error| NoSubject(told(&error)))?;
        let token = self.token(&keys.into(), SystemTime::now()).map_err(NoSubject)?;
        Ok(SubjectTokenBuilder::new(token).build())
    }
}

impl AwsSubject {
    /// The signed request as Google wants it: JSON, percent-encoded.
    fn token(&self, keys: &Identity, now: SystemTime) -> Result<String, String> {
        let (host, path) = host_and_path(&self.url).ok_or("the verification URL is none")?;
        let params = v4::SigningParams::builder()
            .identity(keys)
            .region(&self.region)
            .name("sts")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| told(&error))?;
        let url = format!("https://{host}{path}");
        let fields = [("host", host), (TARGET, self.audience.as_str())];
        let request = SignableRequest::new(
            "POST",
            url.as_str(),
            fields.into_iter(),
            SignableBody::Bytes(b""),
        );
        let request = request.map_err(|error| told(&error))?;
        let signed = sign(request, &params.into()).map_err(|error| told(&error))?;
        let (instructions, _) = signed.into_parts();
        let field = |key: &str, value: &str| json!({ "key": key, "value": value });
        let mut headers = fields.map(|(key, value)| field(key, value)).to_vec();
        headers.extend(instructions.headers().map(|(key, value)| field(key, value)));
        let request = json!({ "url": self.url, "method": "POST", "headers": headers, "body": "" });
        Ok(utf8_percent_encode(&request.to_string(), NON_ALPHANUMERIC).to_string())
    }
}

/// `sts.eu-west-1.amazonaws.com`, `/?Action=...`.
fn host_and_path(url: &str) -> Option<(&str, String)> {
    let (_, rest) = url.split_once("://")?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let slash = if path.starts_with('/') { "" } else { "/" };
    (!host.is_empty()).then(|| (host, format!("{slash}{path}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use percent_encoding::percent_decode_str;

    use super::*;

    fn subject() -> AwsSubject {
        AwsSubject {
            keys: SharedCredentialsProvider::new(Credentials::for_tests()),
            region: "eu-west-1".to_owned(),
            url: VERIFICATION_URL.replace("{region}", "eu-west-1"),
            audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/a".to_owned(),
        }
    }

    #[test]
    fn the_token_is_a_signed_request_that_names_its_audience() {
        let keys =
            Credentials::new("AKIDEXAMPLE", "secret", Some("session".to_owned()), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let token = subject().token(&keys.into(), now).expect("a token");
        let text = percent_decode_str(&token).decode_utf8().expect("text");
        let request: Value = serde_json::from_str(&text).expect("JSON");
        let value = |name: &str| {
            let headers = request["headers"].as_array().expect("headers");
            let found = headers.iter().find(|header| {
                header["key"].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name))
            });
            found.and_then(|header| header["value"].as_str()).map(str::to_owned)
        };
        assert_eq!(value("host").as_deref(), Some("sts.eu-west-1.amazonaws.com"));
        assert_eq!(value(TARGET), Some(subject().audience));
        assert_eq!(value("x-amz-security-token").as_deref(), Some("session"));
        let authorization = value("authorization").expect("a signature");
        assert!(authorization.contains("/eu-west-1/sts/aws4_request"), "{authorization}");
        assert!(
            authorization
                .contains("host;x-amz-date;x-amz-security-token;x-goog-cloud-target-resource"),
            "{authorization}"
        );
        assert!(!text.contains("\"secret\""));
    }

    #[test]
    fn a_verification_url_may_lack_its_slash() {
        assert_eq!(host_and_path("https://sts.a?x=1"), Some(("sts.a", "/?x=1".to_owned())));
        assert_eq!(
            host_and_path("http://127.0.0.1:1/p?x"),
            Some(("127.0.0.1:1", "/p?x".to_owned()))
        );
        assert_eq!(host_and_path("nonsense"), None);
    }
}
