//! Secrets and bounds, however the bytes come.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::process::{ProcEnd, ProcSpec, run};

/// A key as its issuer makes them, put together here so that no scanner takes this file for a leak.
fn secret() -> String {
    format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0".repeat(2).chars().take(36).collect::<String>())
}

fn all(output: &Output) -> String {
    output.close();
    String::from_utf8(output.printed().unwrap().body).unwrap()
}

#[test]
fn a_secret_is_found_however_it_was_read() {
    let (secret, text) = (secret(), format!("first\ntoken={} and more\nlast\n", secret()));
    for at in 0..text.len() {
        let output = Output::recording(1 << 20, Hidden::default());
        output.write(Stream::Out, &text.as_bytes()[..at]);
        let early = output.lines();
        output.write(Stream::Out, &text.as_bytes()[at..]);
        let told = early + &output.lines();
        let kept = all(&output);
        assert!(!told.contains(&secret[..12]) && !kept.contains(&secret[..12]), "cut at {at}: {told} {kept}");
        assert_eq!(told, kept, "cut at {at}");
        assert!(kept.starts_with("first\ntoken=ghp_...[40 characters] and more\nlast\n"), "{kept}");
    }
}

#[test]
fn a_line_that_never_ends_is_not_cut_inside_of_a_secret() {
    let secret = secret();
    for shift in (0..300).step_by(7) {
        let output = Output::recording(1 << 20, Hidden::default());
        // The first cut would be made right in it.
        let mut line = vec![b'.'; LINE + 1 - AROUND - shift];
        line.extend(format!(" {secret} ").bytes());
        line.resize(LINE + 1, b'.');
        output.write(Stream::Err, &line);
        output.write(Stream::Err, &[b'.'; 1000]);
        let kept = all(&output);
        assert!(!kept.contains(&secret[..12]) && kept.contains("[40 characters]"), "{shift}");
    }
}

#[test]
fn the_body_of_a_private_key_is_no_output() {
    let body = "MIIEpAIBAAKCAQEA7bq8x9\n".repeat(3);
    let key = format!("-----BEGIN RSA {}-----\nProc-Type: 4,ENCRYPTED\n\n{body}-----END RSA {0}-----\n", "PRIVATE KEY");
    let output = Output::recording(1 << 20, Hidden::default());
    output.write(Stream::Out, format!("before\n{key}after\n").as_bytes());
    assert_eq!(all(&output), "before\n[private key]\nafter\n");
    let output = Output::recording(1 << 20, Hidden::default());
    output.write(Stream::Out, format!("{{\"key\": \"{}\"}}\nafter\n", key.replace('\n', "\\n")).as_bytes());
    assert_eq!(all(&output), "{\"key\": \"[private key]\nafter\n");
    // Who only talks of one is heard.
    let output = Output::recording(1 << 20, Hidden::default());
    output.write(Stream::Out, format!("no -----BEGIN {}----- here\nand it goes on\n", "PRIVATE KEY").as_bytes());
    assert_eq!(all(&output), "no [private key]\nand it goes on\n");
}

#[test]
fn beginning_and_end_are_kept_and_what_is_between_is_counted() {
    let output = Output::recording(1000, Hidden::default());
    let line = |n: u32| format!("line {n:04}\n");
    (0..1000).for_each(|n| output.write(Stream::Out, line(n).as_bytes()));
    let told = output.lines();
    assert!(told.starts_with("line 0000\n") && told.len() <= BATCH, "{}", told.len());
    output.close();
    let printed = output.printed().unwrap();
    let body = String::from_utf8(printed.body).unwrap();
    assert_eq!((printed.bytes, printed.dropped, printed.untold), (10_000, 9_000, 10_000 - told.len() as u64));
    assert!(body.starts_with("line 0000\nline 0001\n") && body.ends_with("line 0998\nline 0999\n"), "{body}");
    assert!(body.contains("line 0049\n[... 9000 bytes are left out here ...]\nline 0950\n"), "{body}");
}

#[test]
fn both_streams_are_kept_line_by_line() {
    let output = Output::recording(1000, Hidden::default());
    output.write(Stream::Out, b"half ");
    output.write(Stream::Err, b"an error\n");
    output.write(Stream::Out, b"a line\nand \xff no end");
    assert_eq!(all(&output), "an error\nhalf a line\nand \u{fffd} no end\n");
    let silent = Output::recording(1000, Hidden::default());
    silent.close();
    assert_eq!(silent.printed(), None);
}

#[tokio::test]
async fn news_come_with_lines_and_end_with_the_process() {
    let output = Output::recording(1000, Hidden::default());
    output.write(Stream::Out, b"no line yet");
    assert!(futures::FutureExt::now_or_never(output.news()).is_none());
    output.write(Stream::Out, b", now\n");
    assert!(output.news().await);
    assert_eq!(output.lines(), "no line yet, now\n");
    output.close();
    assert!(!output.news().await);
    assert!(!Output::default().news().await, "what is not recorded has none");
}

/// The most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many MiB are printed: AUTOPACK_LONG_OUTPUT_MIB says more (`--profile long` has the time for 10 GB).
fn much() -> u64 {
    let said = std::env::var_os("AUTOPACK_LONG_OUTPUT_MIB").and_then(|text| text.to_str()?.parse::<u64>().ok());
    said.unwrap_or(512) << 20
}

/// A process of its own, as every test is: what it has at most is what this takes.
#[tokio::test]
async fn memory_is_flat_however_much_is_printed() {
    let much = much();
    let spec = ProcSpec {
        argv: ["sh", "-c", &format!("yes 'a builder that cannot stop' | head -c {much}")].map(str::to_owned).to_vec(),
        cwd: std::env::temp_dir(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        lease: "l".to_owned(),
        timeout: Duration::from_secs(110.max(much >> 22)),
        log_budget: 1 << 20,
        output: Output::recording(8 << 20, Hidden::default()),
        cage: super::super::Cage::None,
        frozen: tokio::sync::watch::channel(false).1,
    };
    let before = peak();
    let report = run(&spec, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.end, report.printed), (ProcEnd::Exit(0), much));
    spec.output.close();
    let printed = spec.output.printed().unwrap();
    assert_eq!(printed.bytes, much);
    assert!(printed.body.len() <= (8 << 20) + 100 && printed.dropped > much - (9 << 20), "{}", printed.body.len());
    let grown = peak() - before;
    println!("{} MiB printed, {} KiB of memory more", much >> 20, grown >> 10);
    assert!(grown < 48 << 20, "{} MiB", grown >> 20);
}
