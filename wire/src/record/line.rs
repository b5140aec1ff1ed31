//! Writes a record as a line of JSON, as serde would, at a quarter of its cost.
//!
//! Every call is written once, so its keys are not searched for characters to escape, and its
//! texts are searched all at once.

use std::fmt::Display;
use std::io::Write;

use crate::{ErrorOrigin, Outcome, Record, UsageSource};

impl Record {
    /// Appends the record as one JSON object, without a line end.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut line = Line { out, next: b'{' };
        line.quoted("time", Some(format_args!("{:.6}", self.time)));
        line.quoted("trace_id", Some(self.trace_id));
        line.quoted("span_id", Some(self.span_id));
        line.quoted("parent_span_id", self.parent_span_id);
        line.text("gen_ai.operation.name", self.operation.as_deref());
        line.text("gen_ai.provider.name", self.provider.as_deref());
        line.text("gen_ai.request.model", self.request_model.as_deref());
        line.plain("gen_ai.request.stream", self.stream);
        if let Some(asked) = &self.asked {
            asked.write(&mut line);
        }
        if let Some(media) = &self.media {
            media.write(&mut line);
        }
        line.text("gen_ai.response.model", self.response_model.as_deref());
        line.text("gen_ai.response.id", self.response_id.as_deref());
        line.list("gen_ai.response.finish_reasons", &self.finish_reasons);
        line.text("openai.response.service_tier", self.service_tier.as_deref());
        line.text("openai.response.system_fingerprint", self.system_fingerprint.as_deref());
        line.plain("gen_ai.usage.input_tokens", self.input_tokens);
        line.plain("gen_ai.usage.output_tokens", self.output_tokens);
        line.plain("gen_ai.usage.cache_read.input_tokens", self.cache_read_tokens);
        line.plain("gen_ai.usage.cache_creation.input_tokens", self.cache_creation_tokens);
        line.plain("gen_ai.usage.reasoning.output_tokens", self.reasoning_tokens);
        line.text("tidegate.usage.source", self.usage_source.map(UsageSource::as_str));
        line.text("tidegate.input.size_class", self.size_class.as_deref());
        line.seconds("tidegate.cost_usd", self.cost_usd);
        line.text("tidegate.cost.prices", self.price_version.as_deref());
        line.plain("tidegate.cost.unpriced", self.unpriced);
        line.text("cloud.region", self.region.as_deref());
        line.text("gcp.project_id", self.project.as_deref());
        line.text("server.address", self.server_address.as_deref());
        line.plain("server.port", self.server_port);
        line.text("http.request.method", self.method.as_deref());
        line.text("url.path", self.path.as_deref());
        line.plain("http.response.status_code", self.status);
        line.plain("rpc.grpc.status_code", self.grpc_status);
        line.text("tidegate.upgrade", self.upgrade.as_deref());
        line.text("tidegate.outcome", self.outcome.map(Outcome::as_str));
        line.text("tidegate.route", self.route.as_deref());
        line.text("tidegate.split", self.split.as_deref());
        line.plain("tidegate.shadow", self.shadow);
        line.plain("tidegate.warm_up", self.warm_up);
        line.plain("tidegate.embedding", self.embedding);
        line.plain("tidegate.load_test", self.load_test);
        line.text("tidegate.upstream", self.upstream.as_deref());
        line.text("tidegate.caller", self.caller.as_deref());
        line.plain("tidegate.fallback", self.fallback);
        line.text("tidegate.called_model", self.called_model.as_deref());
        if let Some(cached) = &self.cached {
            cached.write(&mut line);
        }
        line.plain("tidegate.attempts", self.attempts);
        line.plain("tidegate.client_retries", self.client_retries);
        line.text("error.type", self.error_type.as_deref());
        line.text("tidegate.error.code", self.error_code.as_deref());
        line.text("tidegate.error.origin", self.error_origin.map(ErrorOrigin::as_str));
        line.text("tidegate.block_reason", self.block_reason.as_deref());
        line.list("tidegate.warnings", &self.warnings);
        line.seconds("tidegate.duration_s", self.duration_s);
        line.seconds("tidegate.time_to_first_byte_s", self.time_to_first_byte_s);
        line.seconds("tidegate.time_to_first_body_byte_s", self.time_to_first_body_byte_s);
        line.seconds("tidegate.time_to_first_event_s", self.time_to_first_event_s);
        line.seconds("tidegate.time_to_first_token_s", self.time_to_first_token_s);
        line.seconds("tidegate.time_to_first_visible_token_s", self.time_to_first_visible_token_s);
        line.seconds("tidegate.time_to_last_token_s", self.time_to_last_token_s);
        line.seconds("tidegate.time_per_output_token_s", self.time_per_output_token_s);
        line.plain("tidegate.token_chunks", self.token_chunks);
        line.seconds("tidegate.gap.p50_s", self.gap_p50_s);
        line.seconds("tidegate.gap.p99_s", self.gap_p99_s);
        line.seconds("tidegate.gap.max_s", self.gap_max_s);
        line.plain("tidegate.stalls", self.stalls);
        line.seconds("tidegate.overhead_s", self.overhead_s);
        line.seconds("tidegate.wait.retry_s", self.wait_retry_s);
        line.seconds("tidegate.wait.pool_s", self.wait_pool_s);
        line.seconds("tidegate.wait.dns_s", self.wait_dns_s);
        line.seconds("tidegate.wait.connect_s", self.wait_connect_s);
        line.seconds("tidegate.wait.tls_s", self.wait_tls_s);
        line.seconds("tidegate.wait.queue_s", self.wait_queue_s);
        line.plain("tidegate.request.bytes", self.request_bytes);
        line.plain("tidegate.response.bytes", self.response_bytes);
        line.seconds("tidegate.retry_after_s", self.retry_after_s);
        line.plain("tidegate.counted_tokens", self.counted_tokens);
        self.limits.write(&mut line);
        if let Some(job) = &self.job {
            job.write(&mut line);
        }
        if let Some(drain) = &self.drain {
            drain.write(&mut line);
        }
        if let Some(quota) = &self.quota {
            quota.write(&mut line);
        }
        line.text("tidegate.not_understood", self.not_understood.as_deref());
        line.end();
    }
}

/// A JSON object in the making.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    /// What stands in front of the next key.
    next: u8,
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        self.key_below(key, "");
    }

    /// A key in two parts.
    fn key_below(&mut self, key: &str, name: &str) {
        self.out.push(std::mem::replace(&mut self.next, b','));
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A number that JSON lacks is absent.
    pub(super) fn seconds(&mut self, key: &str, value: Option<f64>) {
        self.seconds_below(key, "", value);
    }

    pub(super) fn seconds_below(&mut self, key: &str, name: &str, value: Option<f64>) {
        if let Some(seconds) = value.filter(|seconds| seconds.is_finite()) {
            self.key_below(key, name);
            // `Debug` tells whole seconds from whole numbers.
            write!(self.out, "{seconds:?}").expect("a vector takes everything");
        }
    }

    /// A number or truth value, which JSON writes as Rust does.
    pub(super) fn plain(&mut self, key: &str, value: Option<impl Display>) {
        self.plain_below(key, "", value);
    }

    /// The same under a key in two parts, of which neither has a character to escape.
    pub(super) fn plain_below(&mut self, key: &str, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.key_below(key, name);
            write!(self.out, "{value}").expect("a vector takes everything");
        }
    }

    /// What is written without a character to escape.
    pub(super) fn quoted(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.key(key);
            write!(self.out, "\"{value}\"").expect("a vector takes everything");
        }
    }

    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key);
            string(self.out, value);
        }
    }

    pub(super) fn list(&mut self, key: &str, values: &[impl AsRef<str>]) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        for (at, value) in values.iter().enumerate() {
            self.out.push(if at == 0 { b'[' } else { b',' });
            string(self.out, value.as_ref());
        }
        self.out.push(b']');
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without a way out of the loop the compiler looks at many bytes at a time.
    let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\' || byte == 0x7f;
    if text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        text.chars().for_each(|character| escaped(out, character));
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => out.extend([b'\\', character as u8]),
        '\n' => out.extend_from_slice(b"\\n"),
        // A terminal that shows a record must not obey it.
        character if character.is_control() => {
            write!(out, "\\u{:04x}", u32::from(character)).expect("a vector takes everything");
        }
        character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Asked, CacheSource, Cached, Drain, DrainEnd, Job, JobOutcome, Media, Quota, RateLimit,
        RateLimits,
    };

    /// Every field is named: a new one does not compile until it stands here, and fails until it
    /// is written above.
    fn full() -> Record {
        Record {
            time: "2026-11-21T10:00:00.123456Z".parse().expect("a time"),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id"),
            span_id: "00f067aa0ba902b7".parse().expect("an id"),
            parent_span_id: "00f067aa0ba902b8".parse().ok(),
            operation: Some("a".into()),
            provider: Some("a".into()),
            request_model: Some("request_model \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            stream: Some(true),
            asked: Some(Box::new(asked())),
            media: Some(Box::new(media())),
            response_model: Some("response_model \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            response_id: Some("response_id \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            finish_reasons: vec!["stop".into(), "le\u{7}\"ngth".into()],
            service_tier: Some("priority \" ü".into()),
            system_fingerprint: Some("fp \" ü".into()),
            input_tokens: Some(12),
            output_tokens: Some(12),
            cache_read_tokens: Some(12),
            cache_creation_tokens: Some(12),
            reasoning_tokens: Some(12),
            usage_source: Some(UsageSource::Reported),
            size_class: Some("a".into()),
            cost_usd: Some(0.0125),
            price_version: Some("a".into()),
            unpriced: Some(true),
            region: Some("a".into()),
            project: Some("project \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            server_address: Some("a".into()),
            server_port: Some(443),
            method: Some("a".into()),
            path: Some("path \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            status: Some(443),
            grpc_status: Some(8),
            upgrade: Some("a".into()),
            outcome: Some(Outcome::Completed),
            route: Some("a".into()),
            upstream: Some("a".into()),
            caller: Some("a".into()),
            split: Some("b".into()),
            shadow: Some(true),
            warm_up: Some(true),
            embedding: Some(true),
            load_test: Some(true),
            fallback: Some(12),
            called_model: Some("a".into()),
            cached: Some(Box::new(Cached {
                source: Some(CacheSource::Stale),
                reason: Some("a".into()),
                age_s: Some(12.5),
                similarity: Some(0.975),
                threshold: Some(0.95),
                saved_input_tokens: Some(12),
                saved_output_tokens: Some(12),
                saved_cost_usd: Some(0.0125),
            })),
            attempts: Some(3),
            client_retries: Some(1),
            error_type: Some("error_type \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            error_code: Some("error_code \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            error_origin: Some(ErrorOrigin::Quota),
            block_reason: Some("block_reason \"\\ \n \u{1b} \u{9b} ü 😀".into()),
            warnings: vec!["a".into(), "b".into()],
            duration_s: Some(34.1e-6),
            time_to_first_byte_s: Some(35.1e-6),
            time_to_first_body_byte_s: Some(34.5e-6),
            time_to_first_event_s: Some(35.6e-6),
            time_to_first_token_s: Some(36.1e-6),
            time_to_first_visible_token_s: Some(37.1e-6),
            time_to_last_token_s: Some(38.1e-6),
            time_per_output_token_s: Some(39.1e-6),
            token_chunks: Some(12),
            gap_p50_s: Some(39.2e-6),
            gap_p99_s: Some(39.3e-6),
            gap_max_s: Some(39.4e-6),
            stalls: Some(1),
            overhead_s: Some(40.1e-6),
            wait_retry_s: Some(40.6e-6),
            wait_pool_s: Some(41.1e-6),
            wait_dns_s: Some(42.1e-6),
            wait_connect_s: Some(43.1e-6),
            wait_tls_s: Some(44.1e-6),
            wait_queue_s: Some(45.1e-6),
            request_bytes: Some(12),
            response_bytes: Some(12),
            retry_after_s: Some(47.1e-6),
            counted_tokens: Some(12),
            limits: RateLimits(vec![RateLimit {
                dimension: "input-tokens".to_owned(),
                limit: Some(12),
                remaining: Some(11),
                reset_s: Some(10.5),
            }]),
            job: Some(Box::new(Job {
                name: "job \"\\ \n ü 😀".into(),
                done: Some(true),
                outcome: Some(JobOutcome::Filtered),
                created: "2026-11-21T10:00:00.123456Z".parse().ok(),
                ended: "2026-11-21T10:01:00.123456Z".parse().ok(),
                duration_s: Some(60.0),
                ends_here: false,
                polls: Some(3),
                video_length_s: Some(8.0),
                video_count: Some(2),
            })),
            drain: Some(Box::new(Drain {
                end: Some(DrainEnd::Whole),
                duration_s: Some(1.5),
                wasted_tokens: Some(12),
                estimated_wasted_tokens: Some(13),
            })),
            quota: Some(Box::new(Quota {
                spent: Some("a".into()),
                estimated_input_tokens: Some(12),
                estimated_output_tokens: Some(12),
            })),
            not_understood: Some("a".into()),
            // These have no keys.
            is_provider_assumed: false,
            has_long_cache_write: false,
            calls_tool: false,
            is_sampled: None,
            sent_s: None,
            moments: Vec::new(),
            attempts_made: Vec::new(),
            content: None,
            captured: None,
        }
    }

    fn asked() -> Asked {
        Asked {
            max_tokens: Some(12),
            temperature: Some(1.0),
            top_p: Some(0.5),
            top_k: Some(40.0),
            frequency_penalty: Some(-2.0),
            presence_penalty: Some(2.0),
            seed: Some(-1),
            choice_count: Some(2),
            stop_sequences: vec!["stop \" ü".into()],
            output_type: Some("json".into()),
            encoding_formats: vec!["base64".into()],
            dimensions: Some(256),
            conversation_id: Some("conversation \" ü".into()),
            service_tier: Some("auto \" ü".into()),
            guardrail_id: Some("guardrail \" ü".into()),
            messages: Some(12),
            tools: Some(12),
        }
    }

    fn media() -> Media {
        Media {
            images: Some(1),
            image_bytes: Some(2),
            audios: Some(3),
            audio_bytes: Some(4),
            videos: Some(5),
            video_bytes: Some(6),
            documents: Some(7),
            document_bytes: Some(8),
            images_made: Some(9),
            videos_made: Some(10),
            video_seconds: Some(11.5),
        }
    }

    #[test]
    fn a_record_with_every_key_reads_back_as_it_was_written() {
        let mut line = Vec::new();
        full().write_json(&mut line);
        assert_eq!(serde_json::from_slice::<Record>(&line).expect("a record"), full());
    }

    #[test]
    fn a_line_says_what_serde_would_say() {
        for record in [Record::default(), full()] {
            let mut line = Vec::new();
            record.write_json(&mut line);
            let written: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
            assert_eq!(written, serde_json::to_value(&record).expect("a record serialises"));
        }
    }

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        let mut line = Vec::new();
        full().write_json(&mut line);
        let text = String::from_utf8(line).expect("UTF-8");
        assert!(!text.contains(char::is_control), "{text}");
    }
}
