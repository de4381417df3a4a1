//! Every flag of every preset, compared with the help of the version that was looked at (`help/`).

use std::sync::Arc;

use autopack_shared::runtime::config::Environment;

use super::*;
use crate::providers::Providers;

const HELP: [(Preset, &str); 6] = [
    (Preset::ClaudeCode, include_str!("help/claude-code.txt")),
    (Preset::Codex, include_str!("help/codex.txt")),
    (Preset::GeminiCli, include_str!("help/gemini-cli.txt")),
    (Preset::Aider, include_str!("help/aider.txt")),
    (Preset::Opencode, include_str!("help/opencode.txt")),
    (Preset::MiniSweAgent, include_str!("help/mini-swe-agent.txt")),
];

fn providers() -> Arc<Providers> {
    let env = Environment::from([
        ("OPENAI_API_KEY", "sk-a"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
        ("ANTHROPIC_API_KEY", "sk-b"),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:2"),
    ]);
    Arc::new(Providers::open(&env, None).unwrap())
}

fn made(preset: Preset, provider: &str, program: &[String]) -> Plan {
    let providers = providers();
    let model = ModelConfig {
        provider: provider.to_owned(),
        model: "large".to_owned(),
        max_output_tokens: 1000,
        input_price: 0,
        output_price: 0,
    };
    let ask = Ask {
        prompt: "--do it",
        files: &["src/a.rs".to_owned()],
        scratch: Path::new("/scratch"),
        model: Some((&model, providers.get(provider).unwrap())),
        program,
        allowance: Allowance { cost_micros: Some(1_250_000), ..Allowance::default() },
    };
    plan(preset, &ask)
}

#[test]
fn every_flag_stands_in_the_help() {
    for (preset, help) in HELP {
        let plan = made(preset, "openai", &[]);
        let known = |flag: &str| help.split([' ', ',', '\n', '=']).any(|word| word == flag);
        let flags: Vec<&String> =
            plan.argv.iter().filter(|word| word.starts_with("--") && !word.contains(' ')).collect();
        assert!(flags.len() >= 3, "{plan:?}");
        for flag in flags {
            assert!(known(flag), "{}: {flag} is not in its help", preset.as_str());
        }
    }
}

#[test]
fn keys_go_into_the_environment_and_nowhere_else() {
    for (preset, _) in HELP {
        let plan = made(preset, "openai", &[]);
        assert!(plan.env.contains(&("OPENAI_API_KEY".to_owned(), "sk-a".to_owned())), "{plan:?}");
        let elsewhere = format!("{:?}{:?}{:?}", plan.argv, plan.stdin, plan.files);
        assert!(!elsewhere.contains("sk-a"), "{elsewhere}");
        assert!(plan.env.iter().filter(|(_, value)| value.contains("sk-a")).count() == 1, "{plan:?}");
    }
    let claude = made(Preset::ClaudeCode, "anthropic", &[]);
    assert!(claude.env.contains(&("ANTHROPIC_BASE_URL".to_owned(), "http://127.0.0.1:2".to_owned())), "{claude:?}");
}

#[test]
fn an_entry_may_name_the_program_and_its_first_arguments() {
    let own = ["/opt/claude".to_owned(), "--add-dir".to_owned(), "/data".to_owned()];
    let plan = made(Preset::ClaudeCode, "anthropic", &own);
    assert_eq!(plan.argv[..4], ["/opt/claude", "--add-dir", "/data", "--print"]);
    assert!(plan.argv.windows(2).any(|two| two == ["--max-budget-usd", "1.250000"]), "{plan:?}");
    let acp = made(Preset::Acp, "openai", &["agent".to_owned(), "acp".to_owned()]);
    assert_eq!(acp.argv, ["agent", "acp"]);
}

#[test]
fn nothing_says_yes_to_everything_where_there_is_another_way() {
    for (preset, _) in HELP {
        let words = format!("{:?}", made(preset, "openai", &[]).argv);
        for word in ["dangerously", "bypassPermissions", "danger-full-access", "\"yolo\"", "--auto\""] {
            assert!(!words.contains(word), "{}: {word}", preset.as_str());
        }
    }
}
