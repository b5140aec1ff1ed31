//! The reference configuration says all that there is to say, and says it truly.
//!
//! Which keys there are is asked of the configuration itself: an unknown key is refused with the
//! list of those that are known. So a new key without a line in the reference fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate_proxy::Config;

/// A key that nothing has.
const UNKNOWN: &str = "__unknown";

/// What may stand at some place of a configuration.
enum Place {
    /// A value.
    Value,
    /// Known keys.
    Keys(BTreeMap<String, Place>),
    /// Any number of the same, by name or in a list.
    Each(Box<Place>),
}

#[test]
fn what_the_reference_says_is_the_default() {
    let reference = Config::parse(&reference()).expect("the reference is a good configuration");
    assert_eq!(format!("{reference:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn every_key_stands_in_the_reference() {
    let text = uncommented(&reference());
    Config::parse(&text).expect("the examples of the reference are a good configuration");
    let value: Value = serde_saphyr::from_str(&text).expect("what is a configuration is YAML");

    let (mut known, mut present) = (BTreeSet::new(), BTreeSet::new());
    let whole = Place::ask(&|text| text.to_owned());
    whole.all("", &mut known);
    whole.present("", &value, &mut present);
    assert!(known.contains("routes.*.match.model") && known.contains("otlp.interval"), "{known:?}");
    // Of two keys that exclude each other, the comment of the one names the other.
    for excluded in ["admin_token.env", "store.password.env"] {
        assert!(known.remove(excluded) && text.contains("or `env`"), "{excluded}");
    }
    let missing: Vec<_> = known.difference(&present).collect();
    assert!(missing.is_empty(), "config/tidegate.yaml has no line for: {missing:?}");
}

#[test]
fn every_key_of_the_reference_has_its_comment() {
    for line in uncommented(&reference()).lines().filter(|line| !line.starts_with("# ")) {
        let line = line.trim();
        let explains_itself = line.is_empty() || line.ends_with(':') || line.starts_with("- {");
        assert!(explains_itself || line.contains(" # "), "no comment: {line}");
    }
}

#[test]
fn every_example_is_a_good_configuration() {
    let files = std::fs::read_dir(folder().join("examples")).expect("there are examples");
    let paths = files.map(|file| file.expect("it can be listed").path());
    // Objectives are another kind of file, and have their own test.
    let read = paths.filter(|path| path.is_file() && !path.ends_with("slo.yaml")).map(|path| {
        // Not what it names of its environment, which is not there.
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.routes.is_empty(), "{} sends nothing anywhere", path.display());
    });
    assert!(read.count() >= 6);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn reference() -> String {
    std::fs::read_to_string(folder().join("tidegate.yaml")).expect("the reference is there")
}

/// The reference with its examples: a comment of prose has one blank behind its mark, an example
/// none or several.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

impl Place {
    /// Asks what may stand here; `within` puts a text at this place of a configuration.
    fn ask(within: &dyn Fn(&str) -> String) -> Self {
        if let Some(keys) = known_keys(&within(&format!("{{ {UNKNOWN}: 1 }}"))) {
            let below = |key: String| {
                let place = Self::ask(&|text| within(&format!("{{ {key}: {text} }}")));
                (key, place)
            };
            return Self::Keys(keys.into_iter().map(below).collect());
        }
        for (open, close) in [("[", "]"), ("{ any: ", "}")] {
            let each = |text: &str| within(&format!("{open}{text}{close}"));
            if known_keys(&each(&format!("{{ {UNKNOWN}: 1 }}"))).is_some() {
                return Self::Each(Box::new(Self::ask(&each)));
            }
        }
        Self::Value
    }

    /// All keys, with the way to them.
    fn all(&self, way: &str, keys: &mut BTreeSet<String>) {
        match self {
            Self::Value => {}
            Self::Each(place) => place.all(&format!("{way}*."), keys),
            Self::Keys(places) => {
                for (key, place) in places {
                    keys.insert(format!("{way}{key}"));
                    place.all(&format!("{way}{key}."), keys);
                }
            }
        }
    }

    /// Those that a configuration has.
    fn present(&self, way: &str, value: &Value, keys: &mut BTreeSet<String>) {
        match (self, value) {
            (Self::Each(place), Value::Array(values)) => {
                values.iter().for_each(|value| place.present(&format!("{way}*."), value, keys));
            }
            (Self::Each(place), Value::Object(values)) => {
                values.values().for_each(|value| place.present(&format!("{way}*."), value, keys));
            }
            (Self::Keys(places), Value::Object(values)) => {
                for (key, place) in places {
                    if let Some(value) = values.get(key) {
                        keys.insert(format!("{way}{key}"));
                        place.present(&format!("{way}{key}."), value, keys);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The keys that are known where this text has an unknown one: … unknown field `__unknown`,
/// expected one of a, b
fn known_keys(text: &str) -> Option<Vec<String>> {
    let error = Config::parse(text).err()?.to_string();
    let (_, known) =
        error.lines().next()?.split_once(&format!("unknown field `{UNKNOWN}`, expected "))?;
    let known = known.split(';').next()?;
    let known = known.strip_prefix("one of ").unwrap_or(known);
    let separators: &[_] = &[',', ' ', '`'];
    let keys = known.split(separators).filter(|key| !key.is_empty() && *key != "or");
    Some(keys.map(str::to_owned).collect())
}
