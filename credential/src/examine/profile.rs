//! How a profile of the AWS configuration gets its keys, by the names of its settings.

use std::path::PathBuf;

/// As much of a file as is looked at.
const MAX_BYTES: u64 = 1 << 20;

/// A profile, as its files describe it.
#[derive(Debug, PartialEq)]
pub(super) struct Profile {
    pub(super) name: String,
    /// How it gets its keys; absent where the files do not have it.
    pub(super) way: Option<Way>,
}

/// How a profile gets its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Keys,
    Sso,
    Role,
    WebIdentity,
    Process,
    Login,
    /// It has none of these settings.
    None,
}

/// Settings that say so, the strongest first.
const SETTINGS: [(&str, Way); 8] = [
    ("role_arn", Way::Role),
    ("web_identity_token_file", Way::WebIdentity),
    ("sso_session", Way::Sso),
    ("sso_start_url", Way::Sso),
    ("sso_account_id", Way::Sso),
    ("login_session", Way::Login),
    ("credential_process", Way::Process),
    ("aws_access_key_id", Way::Keys),
];

impl Profile {
    /// The profile that the SDK takes: the named one, else that of the environment.
    pub(super) fn of(name: Option<&str>) -> Self {
        let named = || name.map(str::to_owned);
        let name = named().or_else(|| std::env::var("AWS_PROFILE").ok());
        let name = name.unwrap_or_else(|| "default".to_owned());
        let texts = [
            ("AWS_CONFIG_FILE", ".aws/config"),
            ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        ]
        .map(|(variable, standard)| read(variable, standard).unwrap_or_default());
        let settings = texts.iter().flat_map(|text| settings(text, &name)).collect::<Vec<_>>();
        Self { way: way(&texts, &settings, &name), name }
    }
}

impl Way {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Keys => "with keys in a file",
            Self::Sso => "by SSO",
            Self::Role => "by a role that it assumes",
            Self::WebIdentity => "by a web identity",
            Self::Process => "by a program (credential_process)",
            Self::Login => "by `aws login`",
            Self::None => "which names no source of keys",
        }
    }
}

fn read(variable: &str, standard: &str) -> Option<String> {
    use std::io::Read;
    let named = std::env::var_os(variable).map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(standard));
    let mut text = Vec::new();
    let file = std::fs::File::open(named.or_else(home)?).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn way(texts: &[String], settings: &[&str], name: &str) -> Option<Way> {
    let found = SETTINGS.iter().find(|(setting, _)| settings.contains(setting));
    let is_there = || texts.iter().any(|text| text.lines().any(|line| is_head_of(line, name)));
    found.map(|(_, way)| *way).or_else(|| is_there().then_some(Way::None))
}

/// The names of a profile's settings.
fn settings<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut is_inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = is_head_of(line, name);
        } else if let Some((setting, _)) = line.split_once('=').filter(|_| is_inside) {
            found.push(setting.trim());
        }
    }
    found
}

/// `[name]` or `[profile name]`.
fn is_head_of(line: &str, name: &str) -> bool {
    let head = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next());
    let Some(head) = head.map(str::trim) else { return false };
    let of_config = head.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t']));
    head == name || of_config.is_some_and(|rest| rest.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[default]\nregion = x\n[profile work]\nsso_session = s\n; a = b\n[profile a b]\nrole_arn = r\naws_access_key_id = k\n";

    #[test]
    fn the_settings_of_a_profile_say_how_it_gets_its_keys() {
        for (name, expected) in [
            ("default", Some(Way::None)),
            ("work", Some(Way::Sso)),
            ("a b", Some(Way::Role)),
            ("nobody", None),
        ] {
            let found = settings(TEXT, name);
            assert_eq!(way(&[TEXT.to_owned()], &found, name), expected, "{name}");
        }
    }
}
