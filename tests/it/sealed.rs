//! Captures that are encrypted: nobody reads them but who has an identity, and he reads all of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use age::secrecy::ExposeSecret;
use memchr::memmem;
use tidegate_wire::capture::{Entry, LineError, read_sealed, write_sealed};

use crate::replay::{CALLS, assert_made, replay, told};
use crate::support::*;

/// Who can read a capture, and the file of the identity.
struct Key {
    identity: age::x25519::Identity,
    recipient: String,
    file: PathBuf,
}

impl Key {
    fn new(folder: &Folder, name: &str) -> Self {
        let identity = age::x25519::Identity::generate();
        let file = folder.file(name);
        let text = format!("# for tests\n{}\n", identity.to_string().expose_secret());
        std::fs::write(&file, text).expect("it writes");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("it is ours");
        let recipient = identity.to_public().to_string();
        Self { identity, recipient, file }
    }

    fn file(&self) -> &str {
        self.file.to_str().expect("UTF-8")
    }

    /// The lines of a capture as they would be in the clear, for as far as it is whole.
    fn lines(&self, file: &Path) -> Vec<u8> {
        let bytes = std::fs::read(file).unwrap_or_default();
        let sealed = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
            let message = read_sealed(line).ok()?.expect("every line is sealed");
            Some(age::decrypt(&self.identity, &message).expect("it is ours"))
        });
        sealed.flatten().collect()
    }

    fn entries(&self, file: &Path) -> Vec<Entry> {
        let lines = self.lines(file);
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| Entry::read(line).expect("a whole line")).collect()
    }
}

/// A sidecar that captures in full to this file, for these recipients.
fn capturing(upstream: &Upstream, file: &Path, keys: &[&Key], rest: &str) -> Sidecar {
    let recipients: Vec<_> = keys.iter().map(|key| &*key.recipient).collect();
    let config = format!(
        "capture: {{ file: '{}', mode: full, encrypt: {{ recipients: [{}] }}{rest} }}",
        file.display(),
        recipients.join(", "),
    );
    Sidecar::with(upstream, &config)
}

/// The three calls of the replays, captured for these recipients.
fn capture(file: &Path, keys: &[&Key]) {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = capturing(&upstream, file, keys, "");
    for (target, body) in CALLS {
        assert_eq!(sidecar.call(post(target, body)).status(), 200);
    }
    sidecar.finish();
}

/// What was captured, in any order: calls end on several threads.
fn captured(entries: &[Entry]) -> Vec<(String, Vec<u8>)> {
    let call = |entry: &Entry| {
        let body = entry.request.bytes().expect("it is captured in full");
        (entry.request.target.to_string(), body.to_vec())
    };
    let mut calls: Vec<_> = entries.iter().map(call).collect();
    calls.sort();
    calls
}

fn asked_for() -> Vec<(String, Vec<u8>)> {
    let mut calls = CALLS.map(|(target, body)| (target.to_owned(), body.as_bytes().to_vec()));
    calls.sort();
    calls.into()
}

/// What arrived at a target, in any order.
fn asked(target: &Upstream) -> Vec<(String, String)> {
    let request = |request: &Message| (request.line.clone(), request.text());
    let mut asked: Vec<_> = target.requests().iter().map(request).collect();
    asked.sort();
    asked
}

#[test]
fn nothing_of_a_call_stands_in_an_encrypted_capture_and_its_recipients_read_all_of_it() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let keys = ["one", "other"].map(|name| Key::new(&folder, name));
    capture(&file, &[&keys[0], &keys[1]]);

    let bytes = std::fs::read(&file).expect("a capture");
    let messages = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        assert!(matches!(Entry::read(line), Err(LineError::Sealed)));
        read_sealed(line).expect("a whole line").expect("it is sealed")
    });
    let searched = [bytes.clone(), messages.flatten().collect()].concat();
    // What was asked, of which model, by which path and of which dialect; and how it went. Less than
    // this much would stand in base64 by chance.
    for planted in ["gpt-4o", "claude", "gemini", "completions", "messages", "tidegate."] {
        assert!(memmem::find(&searched, planted.as_bytes()).is_none(), "{planted}");
    }
    for key in &keys {
        let entries = key.entries(&file);
        assert_eq!(captured(&entries), asked_for());
    }
}

#[test]
fn calls_of_one_round_share_a_line_and_none_waits_longer_than_that() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let key = Key::new(&folder, "key");
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = capturing(&upstream, &file, &[&key], ", sync: 1h");
    for (target, body) in CALLS {
        assert_eq!(sidecar.call(post(target, body)).status(), 200);
    }
    sidecar.finish();
    let lines = std::fs::read(&file).expect("a capture");
    assert_eq!(memchr::memchr_iter(b'\n', &lines).count(), 1, "the end is a round, too");
    assert_eq!(key.entries(&file).len(), 3);

    let sidecar = capturing(&upstream, &file, &[&key], ", sync: 10ms");
    assert_eq!(sidecar.call(post(CALLS[0].0, CALLS[0].1)).status(), 200);
    wait_until("the call is captured", || key.entries(&file).len() == 4);
}

#[test]
fn calls_that_no_disk_takes_are_counted_though_no_other_is_made() {
    let folder = Folder::new();
    let upstream = Upstream::answering(answer(COMPLETION));
    let key = Key::new(&folder, "key");
    let sidecar = capturing(&upstream, Path::new("/dev/full"), &[&key], ", sync: 10ms");
    for (target, body) in CALLS {
        assert_eq!(sidecar.call(post(target, body)).status(), 200);
    }
    let dropped = || sidecar.metric("tidegate_records_dropped_total");
    wait_until("they are counted", || dropped() == CALLS.len() as f64);
}

#[test]
fn what_was_sealed_before_a_kill_is_there_after_it() {
    let kills =
        std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let key = Key::new(&folder, "key");
    let upstream = Upstream::answering(answer(COMPLETION));
    let (mut torn, mut known) = (0, 0);
    for kill in 0..kills {
        let sidecar = capturing(&upstream, &file, &[&key], ", sync: 1ms");
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "a torn end is cut off");
        let opened = key.entries(&file).len();
        assert!(opened >= known, "{known} calls were captured, {opened} are left");
        let mut wire = sidecar.connect();
        // Killed at another point each time, while more is on its way.
        let calls = 20 + 7 * kill % 40;
        (0..calls).for_each(|_| assert_eq!(wire.call(post(CALLS[0].0, CALLS[0].1)).status(), 200));
        wait_until("something is captured", || key.entries(&file).len() > opened);
        known = key.entries(&file).len();
        sidecar.kill();
        let bytes = std::fs::read(&file).expect("it is there");
        torn += usize::from(bytes.last() != Some(&b'\n'));
    }
    println!("{kills} kills, {torn} torn ends, {known} calls kept, 0 lost");
}

#[test]
fn an_encrypted_capture_is_the_same_load_as_the_plain_one() {
    let folder = Folder::new();
    let (sealed, plain) = (folder.file("sealed.jsonl"), folder.file("plain.jsonl"));
    let key = Key::new(&folder, "key");
    capture(&sealed, &[&key]);
    std::fs::write(&plain, key.lines(&sealed)).expect("it writes");

    let target = Upstream::answering(answer(COMPLETION));
    let (output, _) = replay(&folder, &target.url(), &plain, &[]);
    assert_made(&output);
    let expected = asked(&target);
    assert_eq!(expected.len(), CALLS.len());

    let target = Upstream::answering(answer(COMPLETION));
    let (output, report) = replay(&folder, &target.url(), &sealed, &["--identity", key.file()]);
    assert_made(&output);
    assert_eq!(asked(&target), expected);
    assert!(!told(&output).contains("warning"), "{}", told(&output));
    assert_eq!(report["run"]["from"]["calls"], 3, "{report:#}");
}

#[test]
fn a_capture_that_was_encrypted_later_on_reads_as_one() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let key = Key::new(&folder, "key");
    capture(&file, &[&key]);
    let lines = [key.lines(&file), std::fs::read(&file).expect("a capture")].concat();
    // The torn end of one more message.
    std::fs::write(&file, [&lines[..], &lines[lines.len() - 700..lines.len() - 20]].concat())
        .expect("it writes");
    let target = Upstream::answering(answer(COMPLETION));
    let (output, _) = replay(&folder, &target.url(), &file, &["--identity", key.file()]);
    assert_made(&output);
    assert_eq!(asked(&target).len(), 6);
    assert!(told(&output).contains("its end was torn"), "{}", told(&output));
}

#[test]
fn what_does_not_open_is_told_with_its_line_and_what_to_do() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let [key, stranger] = ["key", "stranger"].map(|name| Key::new(&folder, name));
    capture(&file, &[&key]);
    let whole = std::fs::read(&file).expect("a capture");
    let target = Upstream::answering(answer(COMPLETION));
    let refused = |more: &[&str]| {
        let (output, _) = replay(&folder, &target.url(), &file, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", told(&output));
        told(&output)
    };
    let message = refused(&[]);
    assert!(message.contains("capture.jsonl:1: its calls are encrypted"), "{message}");
    assert!(message.contains("--identity FILE"), "{message}");
    let message = refused(&["--identity", stranger.file()]);
    assert!(message.contains("capture.jsonl:1: it is encrypted for others"), "{message}");
    let message = refused(&["--identity", "/nowhere"]);
    assert!(message.contains("--identity: cannot read /nowhere"), "{message}");
    let secret = key.identity.to_string();
    let message = refused(&["--identity", secret.expose_secret()]);
    assert!(message.contains("the name of a file") && !message.contains("AGE-SECRET"), "{message}");

    // Sealed again as it is not: the checksum is good, and the message is not.
    let message = read_sealed(&whole).expect("a whole line").expect("it is sealed");
    let mut damaged = Vec::new();
    write_sealed(&[&message[..message.len() - 1], b"?"].concat(), &mut damaged);
    std::fs::write(&file, &damaged).expect("it writes");
    let message = refused(&["--identity", key.file()]);
    assert!(message.contains("capture.jsonl:1: it does not decrypt"), "{message}");
    // Damaged where more follows.
    let mut damaged = [&whole[..], &whole[..]].concat();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).expect("it writes");
    let message = refused(&["--identity", key.file()]);
    assert!(message.contains("capture.jsonl:1: the checksum does not match"), "{message}");
    assert_eq!(target.connections(), 0);
}

#[test]
fn an_identity_that_everybody_may_read_is_warned_of_and_may_come_by_the_environment() {
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let key = Key::new(&folder, "key");
    capture(&file, &[&key]);
    std::fs::set_permissions(&key.file, PermissionsExt::from_mode(0o644)).expect("it is ours");
    let file = file.to_str().expect("UTF-8");
    let mut simulator = tidegate(["sim", "--listen", "127.0.0.1:0", "--from", file])
        .env("TIDEGATE_IDENTITY", &key.file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is built");
    let lines = BufReader::new(simulator.stderr.take().expect("it is piped")).lines();
    let mut lines = lines.map(|line| line.expect("it says where"));
    let warned = lines.by_ref().find(|line| line.contains("everybody on this machine may read"));
    assert!(warned.is_some_and(|line| line.contains(key.file())), "it is warned of first");
    assert!(lines.any(|line| line.starts_with("listening on ")), "it reads the capture");
    simulator.kill().expect("it is ours");
    simulator.wait().expect("it was ours");
}

#[test]
fn an_identity_is_refused_where_nothing_is_read_that_it_could_open() {
    let folder = Folder::new();
    let key = Key::new(&folder, "key");
    for command in [
        &["load", "--target", "http://127.0.0.1:1", "--users", "1"][..],
        &["sim", "--listen", "127.0.0.1:0"],
    ] {
        let mut command = tidegate(command.iter().copied());
        let output = command.args(["--identity", key.file()]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(told(&output).contains("--identity goes with --from"), "{}", told(&output));
    }
}

#[test]
fn recipients_that_are_none_are_told_with_file_line_and_key() {
    let folder = Folder::new();
    let path = folder.file("tidegate.yaml");
    let key = Key::new(&folder, "key");
    let check = |encrypt: &str| {
        let text = format!("capture:\n  file: a\n  encrypt:\n    {encrypt}\n");
        std::fs::write(&path, text).expect("it writes");
        let output = tidegate(["check"]).arg(&path).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let secret = key.identity.to_string();
    let secret = secret.expose_secret();
    std::fs::write(folder.file("good"), format!("# us\n{}\n", key.recipient)).expect("it writes");
    std::fs::write(folder.file("bad"), "# us\nage1nobody\n").expect("it writes");
    std::fs::write(folder.file("of_shell"), format!("KEY={secret}\n")).expect("it writes");
    assert_eq!(check(&format!("recipients: [{}]", key.recipient)).0, Some(0));
    assert_eq!(check("recipients_file: good").0, Some(0), "beside the configuration");
    for (encrypt, told) in [
        (
            "recipients: [age1nobody]",
            "line 4 column 18: capture.encrypt.recipients[0]: `age1nobody` is no public key",
        ),
        (
            &*format!("recipients: [{secret}]"),
            "capture.encrypt.recipients[0]: this is an identity, which is secret",
        ),
        ("recipients_file: bad", "line 4 column 5: capture.encrypt.recipients_file: "),
        ("recipients_file: nowhere", "capture.encrypt.recipients_file: cannot read "),
        (
            &*format!("recipients_file: {secret}"),
            "capture.encrypt.recipients_file: this is an identity, which is secret",
        ),
        ("recipients_file: of_shell", "of_shell:1: this is an identity, which is secret"),
        ("# nobody yet", "capture.encrypt: names nobody who could read it"),
        ("recipients: []", "capture.encrypt: names nobody who could read it"),
        ("recipient: []", "did you mean `recipients`"),
    ] {
        let (code, message) = check(encrypt);
        assert_eq!(code, Some(2), "{encrypt}: {message}");
        assert!(message.contains("tidegate.yaml: ") && message.contains(told), "{message}");
        assert!(!message.contains(&secret[16..]), "{message}");
    }
    let (_, message) = check("recipients_file: bad");
    assert!(message.contains("bad:2: this is no public key"), "{message}");
}

#[test]
fn recipients_that_change_in_their_file_are_told_to_need_a_restart() {
    let folder = Folder::new();
    let [one, other] = ["one", "other"].map(|name| Key::new(&folder, name));
    let (file, recipients) = (folder.file("capture.jsonl"), folder.file("recipients"));
    std::fs::write(&recipients, &one.recipient).expect("it writes");
    let upstream = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "capture: {{ file: '{}', mode: full, encrypt: {{ recipients_file: '{}' }} }}",
        file.display(),
        recipients.display()
    );
    let sidecar = Sidecar::with(&upstream, &config);
    let is_told = || {
        let log = sidecar.log();
        log.lines().any(|line| line.contains("a restart is needed") && line.contains("capture"))
    };
    assert!(!is_told());
    // Nobody sends a signal: the file is watched, as the configuration is.
    std::fs::write(&recipients, &other.recipient).expect("it writes");
    wait_until("the change is told", is_told);
    assert_eq!(sidecar.call(post(CALLS[0].0, CALLS[0].1)).status(), 200);
    sidecar.finish();
    assert_eq!(one.entries(&file).len(), 1, "they are as they were at the start");
}

#[test]
fn the_age_of_debian_reads_what_a_sidecar_seals_and_seals_what_a_load_test_reads() {
    if Command::new("age").arg("--version").output().is_err() {
        return skip("age is not installed");
    }
    let folder = Folder::new();
    let file = folder.file("capture.jsonl");
    let (identity, recipient) = (folder.file("key"), folder.file("recipients"));
    let made = Command::new("age-keygen").arg("-o").arg(&identity).output().expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let made = Command::new("age-keygen").arg("-y").arg(&identity).output().expect("it runs");
    std::fs::write(&recipient, &made.stdout).expect("it writes");

    let upstream = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "capture: {{ file: '{}', mode: full, encrypt: {{ recipients_file: '{}' }} }}",
        file.display(),
        recipient.display()
    );
    let sidecar = Sidecar::with(&upstream, &config);
    for (target, body) in CALLS {
        assert_eq!(sidecar.call(post(target, body)).status(), 200);
    }
    sidecar.finish();
    let sealed = std::fs::read(&file).expect("a capture");
    let message = read_sealed(&sealed).expect("one whole line").expect("it is sealed");
    let plain = piped(Command::new("age").arg("-d").arg("-i").arg(&identity), &message);
    let lines = plain.split_inclusive(|byte| *byte == b'\n');
    let entries: Vec<_> = lines.map(|line| Entry::read(line).expect("a whole line")).collect();
    assert_eq!(captured(&entries), asked_for());

    let message = piped(Command::new("age").arg("-R").arg(&recipient), &plain);
    let mut line = Vec::new();
    write_sealed(&message, &mut line);
    std::fs::write(&file, &line).expect("it writes");
    let identity = identity.to_str().expect("UTF-8");
    let (output, _) = replay(&folder, &upstream.url(), &file, &["--identity", identity]);
    assert_made(&output);
    assert_eq!(upstream.requests().len(), 2 * CALLS.len());
}

/// What a command makes of this.
fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is installed");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
