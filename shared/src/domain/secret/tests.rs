//! Samples are put together here so that no text of this repository looks like a secret.

use super::*;

fn found(text: &str) -> Vec<String> {
    scan(text.as_bytes(), 1).into_iter().map(|hit| hit.rule).collect()
}

#[test]
fn each_kind_is_found_and_never_shown() {
    let a = |n: usize| "aB3dE6gH9".chars().cycle().take(n).collect::<String>();
    let hex = |n: usize| "0a1b2c3d".chars().cycle().take(n).collect::<String>();
    let samples = [
        ("aws-access-key-id", format!("id = \"{}{}\"", "AK".to_owned() + "IA", "454ML6LG4TJFCZ4K")),
        ("aws-secret-access-key", format!("aws_secret_access_key = \"{}\"", a(40))),
        ("private-key", format!("-----BEGIN RSA {}-----", "PRIVATE KEY")),
        ("private-key", format!("\"-----BEGIN {}-----\\nMII", "PRIVATE KEY")),
        ("sk-api-key", format!("key=sk-{}", a(48))),
        ("anthropic-api-key", format!("sk-ant-api03-{}", a(40))),
        ("openai-api-key", format!("sk-proj-{}", a(40))),
        ("github-token", format!("ghp_{}", a(36))),
        ("github-fine-grained-token", format!("github_pat_{}", a(60))),
        ("gitlab-token", format!("glpat-{}", a(20))),
        ("slack-token", format!("xoxb-{}-{}", "1234567890", a(24))),
        ("google-api-key", format!("AIza{}", a(35))),
        ("stripe-key", format!("sk_live_{}", a(24))),
        ("npm-token", format!("npm_{}", a(36))),
        ("pypi-token", format!("pypi-AgE{}", a(60))),
        ("telegram-bot-token", format!("12345678:AA{}", a(33))),
        ("twilio-api-key", format!("SK{}", hex(32))),
        ("autopack-run-database", format!("postgres://ap_0_e1:aprd_{}@db:5432/runs", hex(64))),
        ("autopack-run-database", format!("a line that was cut: aprd_{}", hex(20))),
        ("azure-storage-key", format!("AccountKey={}==", a(86))),
    ];
    for (rule, text) in samples {
        assert_eq!(found(&text), [rule], "{rule}");
        let shown = redact(&text);
        assert!(!shown.contains(&a(20)) && !shown.contains(&hex(20)), "{shown}");
        assert!(found(&shown).is_empty(), "{shown}");
    }
}

#[test]
fn ordinary_text_is_not_a_secret() {
    for text in [
        "sk-folding-cube is a class",
        "task-12345678901234567890123456789012345",
        "AKIAIOSFODNN7EXAMPLE",
        "e3b0c44298fc1c149afbf4c8996fb924",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "npm_config_registry",
        "the sk- style of keys",
        "ghp_short",
    ] {
        assert!(found(text).is_empty(), "{text}");
    }
}

#[test]
fn lines_are_counted_from_the_first() {
    let text = format!("a\nb\nnpm_{}\n", "x".repeat(36));
    let hits = scan(text.as_bytes(), 10);
    assert_eq!((hits[0].line, hits[0].redacted.as_str()), (12, "npm_...[40 characters]"));
}
