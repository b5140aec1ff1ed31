use super::*;

const OPENAI: Package = Package::Pypi("openai");
const TO_US: [(&str, &str); 2] =
    [("https_proxy", "http://127.0.0.1:4104"), ("HTTPS_PROXY", "http://127.0.0.1:4104")];

/// What is told of one SDK with these variables: status and finding of each hop.
fn told(
    package: Package,
    node: Option<Version>,
    variables: &[(&str, &str)],
) -> Vec<(Status, String)> {
    told_by("", package, node, variables)
}

fn told_by(
    config: &str,
    package: Package,
    node: Option<Version>,
    variables: &[(&str, &str)],
) -> Vec<(Status, String)> {
    let config = Config::parse(config).expect("a good configuration");
    let variable = |name: &str| {
        let mut all = variables.iter();
        all.find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let found = Found { package, version: "1.2.3".to_owned(), folder: "/venv".into() };
    let metrics = Err("not asked".to_owned());
    let around = Surroundings { variable: &variable, found: vec![found], node, metrics };
    let examinations = examine(&config, &around);
    let hops = examinations.into_iter().filter(|found| found.section == Section::Clients);
    hops.flat_map(|found| found.hops).map(|hop| (hop.status, hop.finding)).collect()
}

#[track_caller]
fn first_is(told: &[(Status, String)], status: Status, part: &str) {
    assert!(told[0].0 == status && told[0].1.contains(part), "{part}: {told:?}");
}

#[test]
fn a_base_url_leads_to_the_sidecar_or_past_it() {
    for (url, status, part) in [
        ("http://127.0.0.1:4100/v1", Status::Ok, "OPENAI_BASE_URL points at the sidecar"),
        ("http://localhost:4100/v1", Status::Ok, "by its base URL"),
        ("http://[::1]:4100/v1", Status::Ok, "by its base URL"),
        ("https://api.openai.com/v1", Status::Failed, "points at api.openai.com:443"),
        ("http://127.0.0.1:8000/v1", Status::Failed, "points at 127.0.0.1:8000"),
        ("http://127.0.0.1:4100@evil.example/v1", Status::Failed, "points at evil.example:80"),
    ] {
        first_is(&told(OPENAI, None, &[("OPENAI_BASE_URL", url)]), status, part);
    }
    first_is(&told(OPENAI, None, &[]), Status::Warning, "no variable leads it there");
}

#[test]
fn no_password_of_a_url_is_told() {
    for name in ["OPENAI_BASE_URL", "https_proxy"] {
        let told = told(OPENAI, None, &[(name, "http://me:secret@proxy.example:3128/")]);
        first_is(&told, Status::Failed, "proxy.example:3128");
        assert!(!told[0].1.contains("secret"), "{told:?}");
    }
}

#[test]
fn what_covers_a_provider_in_no_proxy_is_told() {
    for (list, is_past) in [
        ("localhost,127.0.0.1", false),
        ("localhost, .openai.com", true),
        ("openai.com", true),
        ("*.openai.com:443", true),
        ("*", true),
        ("notopenai.com,api.openai.com.example", false),
    ] {
        let mut variables = TO_US.to_vec();
        variables.push(("NO_PROXY", list));
        let told = told(OPENAI, None, &variables);
        match is_past {
            true => first_is(&told, Status::Failed, "in NO_PROXY covers api.openai.com"),
            false => first_is(&told, Status::Ok, "by its proxy"),
        }
    }
}

#[test]
fn a_proxy_that_is_taken_needs_trust() {
    let told_ = told(OPENAI, None, &TO_US);
    assert_eq!(told_[1].0, Status::Failed);
    assert!(told_[1].1.contains("SSL_CERT_FILE is not set"), "{told_:?}");
    let boto3 = told(Package::Pypi("boto3"), None, &TO_US);
    assert!(boto3[1].1.contains("AWS_CA_BUNDLE is not set"), "{boto3:?}");
    let folder =
        std::env::temp_dir().join(format!("tidegate-doctor-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&folder).expect("a folder to write to");
    std::fs::write(folder.join("ca.pem"), "OURS\n").expect("a folder to write to");
    std::fs::write(folder.join("bundle.pem"), "THEIRS\nOURS\n").expect("a folder to write to");
    std::fs::write(folder.join("other.pem"), "THEIRS\n").expect("a folder to write to");
    let config = format!("intercept: {{}}\nca: {{ folder: '{}' }}", folder.display());
    for (file, status) in
        [("bundle.pem", Status::Ok), ("other.pem", Status::Failed), ("none.pem", Status::Failed)]
    {
        let file = folder.join(file).display().to_string();
        let mut variables = TO_US.to_vec();
        variables.push(("SSL_CERT_FILE", &file));
        assert_eq!(told_by(&config, OPENAI, None, &variables)[1].0, status, "{file}");
    }
    std::fs::remove_dir_all(folder).expect("it is ours");
}

#[test]
fn what_is_not_listed_is_not_taken_in() {
    let config = "intercept: { hosts: [gemma-service] }";
    first_is(
        &told_by(config, OPENAI, None, &TO_US),
        Status::Failed,
        "does not list api.openai.com",
    );
}

#[test]
fn grpc_reads_its_proxy_in_lower_case_alone() {
    let package = Package::Pypi("google-cloud-aiplatform");
    first_is(&told(package, None, &TO_US[1..]), Status::Failed, "lower case alone");
    first_is(&told(package, None, &TO_US), Status::Ok, "by its proxy");
}

#[test]
fn node_takes_a_proxy_only_where_it_is_told_to() {
    let openai = Package::Npm("openai");
    let with = |name, value| [&TO_US[..], &[(name, value)]].concat();
    let (old, new) = (Version::read("v20.20.2"), Version::read("v24.19.0"));
    first_is(
        &told(openai, old, &with("NODE_USE_ENV_PROXY", "1")),
        Status::Failed,
        "Node.js 20.20.2",
    );
    first_is(&told(openai, Version::read("23.9.0"), &TO_US), Status::Failed, "Node.js 23.9.0");
    first_is(&told(openai, new, &TO_US), Status::Failed, "NODE_USE_ENV_PROXY=1 alone");
    first_is(&told(openai, new, &with("NODE_USE_ENV_PROXY", "1")), Status::Ok, "by its proxy");
    first_is(
        &told(openai, old, &with("NODE_OPTIONS", "--import /x.mjs")),
        Status::Ok,
        "by its proxy",
    );
    let bedrock = Package::Npm("@aws-sdk/client-bedrock-runtime");
    first_is(
        &told(bedrock, new, &with("NODE_USE_ENV_PROXY", "1")),
        Status::Warning,
        "requestHandler",
    );
}

#[test]
fn what_an_sdk_will_not_do_by_its_base_url_is_told() {
    let to_us = ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:4100");
    let boto3 =
        told(Package::Pypi("boto3"), None, &[to_us, ("AWS_BEARER_TOKEN_BEDROCK", "secret")]);
    assert!(boto3[1].0 == Status::Failed && boto3[1].1.contains("by TLS alone"), "{boto3:?}");
    assert!(!format!("{boto3:?}").contains("secret"));
    let vertex = [
        ("GOOGLE_VERTEX_BASE_URL", "http://127.0.0.1:4100"),
        ("GOOGLE_CLOUD_PROJECT", "p"),
        ("GOOGLE_CLOUD_LOCATION", "l"),
    ];
    let told = told(Package::Pypi("google-genai"), None, &vertex);
    assert!(told[1].0 == Status::Warning && told[1].1.contains("lose the path"), "{told:?}");
}

#[test]
fn metrics_tell_what_went_past() {
    let text = "tidegate_intercept_connections_total{end=\"measured\"} 7\n\
                tidegate_intercept_connections_total{end=\"untrusted\"} 2\n\
                tidegate_intercept_passed_by_total{host=\"sts.amazonaws.com\"} 3\n\
                tidegate_intercept_passed_by_total{host=\"api.mistral.ai\"} 4\n";
    let told: Vec<_> = past(&Ok(text.to_owned()))
        .hops
        .into_iter()
        .map(|hop| (hop.status, hop.of.unwrap_or_default(), hop.finding))
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!((told[0].0, told[1].0), (Status::Ok, Status::Failed));
    assert_eq!((told[2].0, told[2].1.as_str()), (Status::Ok, "sts.amazonaws.com"));
    assert_eq!((told[3].0, told[3].1.as_str()), (Status::Warning, "api.mistral.ai"));
    assert!(told[3].2.starts_with("4 connections"), "{told:?}");
    let silent = past(&Ok(String::new())).hops;
    assert_eq!(silent[0].status, Status::Absent);
}
