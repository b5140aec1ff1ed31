//! What a host says about who serves a call, and where.

/// What a host says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host<'a> {
    /// The `gen_ai.provider.name` of calls that go there.
    pub provider: Option<&'static str>,
    /// The provider's region or location.
    pub region: Option<&'a str>,
}

/// By the end of the host's name: `gen_ai.provider.name`, or a word of our own where it has none.
const PROVIDERS: &[(&str, &str)] = &[
    ("api.openai.com", "openai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("rep.googleapis.com", "gcp.vertex_ai"),
    (".prediction.vertexai.goog", "gcp.vertex_ai"),
    ("api.anthropic.com", "anthropic"),
    (".openai.azure.com", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    ("models.inference.ai.azure.com", "azure.ai.inference"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
    ("openrouter.ai", "openrouter"),
    ("api.together.ai", "together_ai"),
    ("api.together.xyz", "together_ai"),
    ("api.cerebras.ai", "cerebras"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.siliconflow.cn", "siliconcloud"),
    ("api.siliconflow.com", "siliconcloud"),
    ("router.huggingface.co", "huggingface"),
    ("api.cloudflare.com", "cloudflare"),
    (".snowflakecomputing.com", "snowflake"),
    (".azuredatabricks.net", "databricks"),
    (".cloud.databricks.com", "databricks"),
    ("ollama.com", "ollama"),
    ("api.z.ai", "z_ai"),
];

/// Names of Bedrock's endpoints, in front of the region.
const BEDROCK: [&str; 3] = ["bedrock-runtime", "bedrock-runtime-fips", "bedrock-mantle"];

impl<'a> Host<'a> {
    /// Reads the name of a host, in lower case as clients send it.
    pub fn read(host: &'a str) -> Self {
        if host.ends_with(".amazonaws.com")
            || host.ends_with(".api.aws")
            || host.contains(".amazonaws.")
        {
            return aws(host);
        }
        let known = PROVIDERS.iter().find(|(name, _)| is_or_ends_with(host, name));
        let provider = known.map(|(_, provider)| *provider);
        let region = if provider == Some("gcp.vertex_ai") { google_region(host) } else { None };
        Self { provider, region }
    }
}

/// `bedrock-runtime.{region}.amazonaws.com` and the like, VPC endpoints among them.
fn aws(host: &str) -> Host<'_> {
    let mut labels = host.split('.');
    if !labels.any(|label| BEDROCK.contains(&label)) {
        return Host::default();
    }
    Host { provider: Some("aws.bedrock"), region: labels.next() }
}

/// `{location}-aiplatform.googleapis.com`, or `aiplatform.{location}.rep.googleapis.com`.
fn google_region(host: &str) -> Option<&str> {
    match host.strip_prefix("aiplatform.") {
        Some(rest) => rest.strip_suffix(".rep.googleapis.com"),
        None => host.strip_suffix("-aiplatform.googleapis.com"),
    }
}

/// Whether this is the named host or, for a name that begins with a dot or is a suffix of
/// Google's regional ones, one below it.
fn is_or_ends_with(host: &str, name: &str) -> bool {
    let Some(front) = host.strip_suffix(name) else { return false };
    front.is_empty() || name.starts_with('.') || front.ends_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, provider: Option<&str>, region: Option<&str>) {
        let read = Host::read(host);
        assert_eq!((read.provider, read.region), (provider, region), "{host}");
    }

    #[test]
    fn a_providers_host_says_who_and_where() {
        check("us-central1-aiplatform.googleapis.com", Some("gcp.vertex_ai"), Some("us-central1"));
        check("aiplatform.eu.rep.googleapis.com", Some("gcp.vertex_ai"), Some("eu"));
        check("aiplatform.googleapis.com", Some("gcp.vertex_ai"), None);
        check("generativelanguage.googleapis.com", Some("gcp.gemini"), None);
        check("bedrock-runtime.us-east-1.amazonaws.com", Some("aws.bedrock"), Some("us-east-1"));
        check(
            "bedrock-runtime-fips.us-west-2.amazonaws.com",
            Some("aws.bedrock"),
            Some("us-west-2"),
        );
        check("bedrock-runtime.eu-west-1.api.aws", Some("aws.bedrock"), Some("eu-west-1"));
        check("bedrock-mantle.us-east-1.api.aws", Some("aws.bedrock"), Some("us-east-1"));
        check(
            "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            Some("aws.bedrock"),
            Some("us-east-1"),
        );
        check("example.openai.azure.com", Some("azure.ai.openai"), None);
    }

    #[test]
    fn any_other_host_says_nothing() {
        check("localhost", None, None);
        check("s3.us-east-1.amazonaws.com", None, None);
        check("myapi.openai.com.example.org", None, None);
        check("notapi.x.ai", None, None);
        check("", None, None);
    }
}
