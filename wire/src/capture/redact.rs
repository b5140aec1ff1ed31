//! Takes what was said out of a request, and leaves its form: every key, every number, every size.
//!
//! The body is as long as before and reads as the same kind of JSON. What a text may be is decided
//! by what is known not to be one: the value of any key that is not listed here is a text.

use serde::de::IgnoredAny;

use super::filler::Filler;

/// Keys whose short values say how to answer, not what.
const FORM: [&str; 34] = [
    "model",
    "role",
    "type",
    "object",
    "format",
    "mode",
    "detail",
    "effort",
    "encoding_format",
    "service_tier",
    "anthropic_version",
    "mime_type",
    "mimeType",
    "media_type",
    "mediaType",
    "tool_choice",
    "truncation",
    "quality",
    "size",
    "voice",
    "threshold",
    "category",
    "required",
    "responseMimeType",
    "response_mime_type",
    "reasoning_effort",
    "latency",
    "aspectRatio",
    "resolution",
    "personGeneration",
    "modality",
    "modalities",
    "responseModalities",
    "$ref",
];
/// Keys whose numbers may be tokens of a text.
const TOKENS: [&str; 3] = ["input", "prompt", "prompt_token_ids"];
/// Keys whose text is JSON, which a server may read.
const NESTED: [&str; 2] = ["arguments", "partial_json"];
/// Longest value that says how to answer.
const MAX_FORM: usize = 64;

/// Where in a document a value stands.
struct Level<'a> {
    is_object: bool,
    /// Whether the next string is a key.
    expects_key: bool,
    /// The last key; in an array, that of the array.
    key: &'a str,
    /// Whether numbers are tokens.
    holds_tokens: bool,
}

/// The body with filler for every text; all of it where it is no JSON.
pub(super) fn redact(body: &[u8], filler: &Filler) -> Vec<u8> {
    let json = std::str::from_utf8(body).ok();
    match json.filter(|json| serde_json::from_str::<IgnoredAny>(json).is_ok()) {
        Some(json) => document(json, filler),
        None => {
            let mut out = Vec::with_capacity(body.len());
            filler.text(body, &mut out);
            out
        }
    }
}

/// `json` is a whole, valid document.
fn document(json: &str, filler: &Filler) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut levels =
        vec![Level { is_object: false, expects_key: false, key: "", holds_tokens: false }];
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let level = levels.last_mut().expect("a valid document closes what it opened");
        let start = at;
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at + 1);
                let text = &json[start + 1..at];
                at += 1;
                out.push(b'"');
                match level.expects_key {
                    true => {
                        level.key = text;
                        level.expects_key = false;
                        out.extend_from_slice(text.as_bytes());
                    }
                    false => value(level.key, text, filler, &mut out),
                }
                out.push(b'"');
            }
            b'0'..=b'9' if level.holds_tokens => {
                let is_digit = |byte: &&u8| byte.is_ascii_digit();
                at += bytes[at..].iter().take_while(is_digit).count();
                filler.digits(&bytes[start..at], &mut out);
            }
            byte => {
                at += 1;
                out.push(byte);
                match byte {
                    b'{' | b'[' => {
                        let is_object = byte == b'{';
                        let key = level.key;
                        let holds_tokens = !is_object && TOKENS.contains(&key);
                        levels.push(Level { is_object, expects_key: is_object, key, holds_tokens });
                    }
                    b'}' | b']' => _ = levels.pop(),
                    b',' => level.expects_key = level.is_object,
                    _ => {}
                }
            }
        }
    }
    out
}

/// Where a string ends that begins here.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// What stands for a text, as it is written between its quotes.
fn value(key: &str, text: &str, filler: &Filler, out: &mut Vec<u8>) {
    if FORM.contains(&key) && is_form(text) {
        out.extend_from_slice(text.as_bytes());
    } else if NESTED.contains(&key) && text.len() >= 2 {
        out.push(b'{');
        out.resize(out.len() + text.len() - 2, b' ');
        out.push(b'}');
    } else {
        let scheme = scheme(text);
        out.extend_from_slice(&text.as_bytes()[..scheme]);
        filler.text(&text.as_bytes()[scheme..], out);
    }
}

fn is_form(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@#$".contains(&byte);
    text.len() <= MAX_FORM && text.bytes().all(is_plain)
}

/// How much of a text only says what kind of data follows.
fn scheme(text: &str) -> usize {
    const SCHEMES: [&str; 3] = ["https://", "http://", "gs://"];
    const BASE64: &str = ";base64,";
    match text.strip_prefix("data:").and_then(|rest| rest.get(..rest.len().min(100))) {
        Some(rest) => rest.find(BASE64).map_or(0, |at| "data:".len() + at + BASE64.len()),
        None => SCHEMES.iter().find(|scheme| text.starts_with(**scheme)).map_or(0, |it| it.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(body: &str) -> String {
        let body = redact(body.as_bytes(), &Filler::new(&[7; 32]));
        String::from_utf8(body).expect("text stays text")
    }

    #[test]
    fn what_is_said_goes_and_what_it_is_said_in_stays() {
        let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":12,"messages":[{"role":"user","content":"My name is Ada, and \"this\" is \u00fc secret"}]}"#;
        let kept = redacted(body);
        assert_eq!(kept.len(), body.len());
        let value: serde_json::Value = serde_json::from_str(&kept).expect("JSON stays JSON");
        assert_eq!(value["model"], "gpt-4o");
        assert_eq!(value["stream"], true);
        assert_eq!(value["max_tokens"], 12);
        assert_eq!(value["messages"][0]["role"], "user");
        assert!(!kept.contains("Ada") && !kept.contains("secret"), "{kept}");
    }

    #[test]
    fn a_key_of_form_does_not_shield_a_text() {
        let kept = redacted(r#"{"role":"a whole sentence that somebody hid here","model":"x y"}"#);
        assert!(!kept.contains("sentence") && !kept.contains("x y"), "{kept}");
    }

    #[test]
    fn names_agree_with_each_other_still() {
        let kept = redacted(
            r#"{"tools":[{"type":"function","function":{"name":"look_up","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}],"tool_choice":{"type":"function","function":{"name":"look_up"}}}"#,
        );
        let value: serde_json::Value = serde_json::from_str(&kept).expect("JSON stays JSON");
        let function = &value["tools"][0]["function"];
        assert_eq!(function["name"], value["tool_choice"]["function"]["name"]);
        assert_ne!(function["name"], "look_up");
        assert_eq!(function["parameters"]["required"][0], "city");
    }

    #[test]
    fn tokens_are_texts_too_and_other_numbers_are_not() {
        let kept = redacted(r#"{"input":[[1024,77],[5]],"dimensions":256,"seed":-1.5e3}"#);
        assert!(
            !kept.contains("1024") && kept.contains(r#""dimensions":256,"seed":-1.5e3"#),
            "{kept}"
        );
        assert_eq!(kept.len(), r#"{"input":[[1024,77],[5]],"dimensions":256,"seed":-1.5e3}"#.len());
    }

    #[test]
    fn an_image_stays_one_by_its_name_and_a_link_leads_nowhere() {
        let image = format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(20));
        let kept = redacted(&format!(r#"{{"url":"{image}","other":"https://example.com/ada"}}"#));
        assert!(kept.starts_with(r#"{"url":"data:image/png;base64,"#), "{kept}");
        assert!(!kept.contains("iVBOR") && !kept.contains("example"), "{kept}");
    }

    #[test]
    fn the_arguments_of_a_tool_stay_readable() {
        let kept = redacted(r#"{"arguments":"{\"city\":\"Bonn\"}"}"#);
        let value: serde_json::Value = serde_json::from_str(&kept).expect("JSON stays JSON");
        let arguments = value["arguments"].as_str().expect("a text");
        assert!(serde_json::from_str::<serde_json::Value>(arguments).is_ok(), "{kept}");
        assert!(!kept.contains("Bonn"));
    }

    #[test]
    fn what_is_no_json_is_filler_all_through() {
        for body in ["{\"a\":", "plain words here", "", "{} {}"] {
            assert_eq!(redacted(body).len(), body.len());
        }
        assert!(!redacted("plain words here").contains("plain"));
    }
}
