//! What Google's models do besides talking: embeddings by list, pictures (Imagen), films (Veo).
//!
//! A film is a job: `predictLongRunning` names an operation, which is asked for until it is done, at
//! Vertex AI by `fetchPredictOperation` and at the Gemini API by `GET`.

use http::Method;
use serde_json::Value;

use super::gemini::{json, refuse};
use super::{Answer, Call, Dialect, PICTURE, Refusal, Reply, Target, Unreadable, vector_as_json};
use crate::sim::generation::{Ask, fill, input_tokens, quoted, uuid};

pub(super) struct Predict;

const EMBEDDING: &str = r#"{"embeddings": {"statistics": {"token_count": $count,"truncated": false},"values": $vector}}"#;
const EMBEDDINGS: &str =
    r#"{"predictions": [$items],"metadata": {"billableCharacterCount": $characters}}"#;
const IMAGE: &str = r#"{"mimeType": "image/png","bytesBase64Encoded": "$picture"}"#;
const VERTEX_DONE: &str = r#"{"name": $name,"done": true,"response": {"@type": "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse","raiMediaFilteredCount": 0,"videos": [$items]}}"#;
const VERTEX_VIDEO: &str =
    r#"{"gcsUri": "gs://simulated/sample_$index.mp4","mimeType": "video/mp4"}"#;
const GEMINI_DONE: &str = r#"{"name": $name,"done": true,"response": {"@type": "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse","generateVideoResponse": {"generatedSamples": [$items]}}}"#;
const GEMINI_VIDEO: &str = r#"{"video": {"uri": "https://generativelanguage.googleapis.com/v1beta/files/sample$index:download?alt=media"}}"#;

/// The most things of one call.
const MOST: usize = 250;

impl Dialect for Predict {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn claims(&self, target: &Target) -> bool {
        let verb = target.model_and_verb().map(|(_, verb)| verb);
        is_operation(target)
            || matches!(
                verb,
                Some(
                    "predict"
                        | "batchEmbedContents"
                        | "predictLongRunning"
                        | "fetchPredictOperation"
                )
            )
    }

    fn method(&self, target: &Target) -> Method {
        if is_operation(target) { Method::GET } else { Method::POST }
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        if is_operation(call.target) {
            return operation(call, resource(call.target));
        }
        let body = call.json()?;
        let (model, verb) = call.target.model_and_verb().unwrap_or_default();
        match verb {
            "batchEmbedContents" => embed_contents(model, &body),
            "predictLongRunning" => {
                let parent = resource(call.target).rsplit_once(':').map_or("", |(name, _)| name);
                let name = format!("{parent}/operations/{}", uuid(call.id));
                call.jobs.begin(name.clone(), call.polls, samples(&body));
                Ok(Answer::Ready(json(format!(r#"{{"name": {}}}"#, quoted(&name)))))
            }
            "fetchPredictOperation" => {
                operation(call, body["operationName"].as_str().unwrap_or_default())
            }
            _ if model.contains("embed") => embed_instances(model, &body),
            _ => Ok(images(model, &body)),
        }
    }

    fn refuse(&self, target: &Target, refusal: &Refusal) -> Reply {
        refuse(target, refusal)
    }

    fn failures(&self) -> &'static [u16] {
        &[429, 500, 503]
    }
}

/// Whether the path is `.../models/{model}/operations/{id}`.
fn is_operation(target: &Target) -> bool {
    let mut segments = target.path().rsplit('/');
    segments.nth(1) == Some("operations") && segments.nth(1) == Some("models")
}

/// The path behind the version: the name of what it stands for.
fn resource(target: &Target) -> &str {
    let path = target.path();
    ["/projects/", "/publishers/", "/models/"]
        .iter()
        .find_map(|start| path.find(start))
        .map_or("", |at| &path[at + 1..])
}

// === films ===

fn operation(call: &Call<'_>, name: &str) -> Result<Answer, Unreadable> {
    let samples = call.jobs.ask(name);
    let samples = samples.ok_or_else(|| Unreadable(format!("no operation is called {name:?}")))?;
    let (done, item) = if call.target.is_vertex() {
        (VERTEX_DONE, VERTEX_VIDEO)
    } else {
        (GEMINI_DONE, GEMINI_VIDEO)
    };
    let name = quoted(name);
    let reply = match samples {
        None => format!(r#"{{"name": {name}}}"#),
        Some(count) => {
            let items = (0..count).map(|index| fill(item, &[("index", &index)]));
            let items: Vec<_> = items.collect();
            fill(done, &[("name", &name), ("items", &items.join(","))])
        }
    };
    Ok(Answer::Ready(json(reply)))
}

fn samples(body: &Value) -> usize {
    body["parameters"]["sampleCount"].as_u64().unwrap_or(1).clamp(1, 8) as usize
}

// === pictures ===

fn images(model: &str, body: &Value) -> Answer {
    let prompts = instances(body).iter().map(|instance| &instance["prompt"]);
    let ask = Ask {
        model: model.to_owned(),
        input_tokens: input_tokens(&prompts.collect::<Vec<_>>()),
        ..Ask::default()
    };
    let items = vec![fill(IMAGE, &[("picture", &PICTURE)]); samples(body)].join(",");
    Answer::Pass { ask, reply: json(format!(r#"{{"predictions": [{items}]}}"#)) }
}

// === embeddings ===

/// Vertex AI: each text with its own count.
fn embed_instances(model: &str, body: &Value) -> Result<Answer, Unreadable> {
    let texts: Vec<_> = instances(body).iter().map(|instance| &instance["content"]).collect();
    let length = body["parameters"]["outputDimensionality"].as_u64();
    let vector = vector_as_json(length.unwrap_or(768).clamp(1, 4096) as usize);
    let counts: Vec<_> = bounded(&texts)?.iter().map(|text| input_tokens(&[text])).collect();
    let item = |count: &u64| fill(EMBEDDING, &[("count", count), ("vector", &vector)]);
    let items: Vec<_> = counts.iter().map(item).collect();
    let characters: usize =
        texts.iter().filter_map(|text| text.as_str()).map(|text| text.chars().count()).sum();
    let reply = fill(EMBEDDINGS, &[("items", &items.join(",")), ("characters", &characters)]);
    let ask = Ask { model: model.to_owned(), input_tokens: counts.iter().sum(), ..Ask::default() };
    Ok(Answer::Pass { ask, reply: json(reply) })
}

/// The Gemini API: nothing is counted.
fn embed_contents(model: &str, body: &Value) -> Result<Answer, Unreadable> {
    let requests = body["requests"].as_array().map_or(&[][..], |requests| requests);
    let contents: Vec<_> = requests.iter().map(|request| &request["content"]).collect();
    let length = requests.first().and_then(|first| first["outputDimensionality"].as_u64());
    let vector = vector_as_json(length.unwrap_or(768).clamp(1, 4096) as usize);
    let items = vec![format!(r#"{{"values": {vector}}}"#); bounded(&contents)?.len()].join(",");
    let input_tokens = input_tokens(&contents);
    let ask = Ask { model: model.to_owned(), input_tokens, ..Ask::default() };
    Ok(Answer::Pass { ask, reply: json(format!(r#"{{"embeddings": [{items}]}}"#)) })
}

fn instances(body: &Value) -> &[Value] {
    body["instances"].as_array().map_or(&[], |instances| instances)
}

fn bounded<T>(items: &[T]) -> Result<&[T], Unreadable> {
    if items.len() > MOST {
        return Err(Unreadable(format!("{} texts are more than {MOST}", items.len())));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_without_version_and_prefix() {
        for (path, name) in [
            ("/v1beta/models/veo-3:predictLongRunning", "models/veo-3:predictLongRunning"),
            (
                "/vertex/v1/projects/p/locations/l/publishers/google/models/veo-3/operations/x",
                "projects/p/locations/l/publishers/google/models/veo-3/operations/x",
            ),
        ] {
            let target = Target::new(path.parse().expect("a path"));
            assert_eq!(resource(&target), name);
            assert_eq!(is_operation(&target), path.contains("/operations/"));
        }
    }
}
