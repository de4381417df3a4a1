//! The examples of `docs/BUILDERS.md`: each is what a person would copy, so each is read as the engine reads it.

use std::collections::BTreeMap;

use autopack_shared::domain::project::{BuilderKind, Preset, ProjectConfig};
use autopack_shared::domain::provider;
use autopack_shared::domain::run_file::{BuilderSpec, RunFile};

use crate::house_rules::source::root;

/// The code blocks of the page: the words after the language, the heading they stand under, the text.
fn blocks() -> (String, Vec<(String, String, String)>) {
    let page = std::fs::read_to_string(root().join("docs/BUILDERS.md")).unwrap();
    let (mut found, mut heading, mut open) = (Vec::new(), String::new(), None::<(String, String)>);
    for line in page.lines() {
        match open.take() {
            Some((mark, text)) if line == "```" => found.push((mark, heading.clone(), text)),
            Some((mark, text)) => open = Some((mark, format!("{text}{line}\n"))),
            None => {
                if let Some(mark) = line.strip_prefix("```") {
                    open = Some((mark.to_owned(), String::new()));
                } else if let Some(title) = line.strip_prefix("## ") {
                    title.clone_into(&mut heading);
                }
            }
        }
    }
    (page, found)
}

#[test]
fn every_example_is_read() {
    let (_, blocks) = blocks();
    let mut builders = BTreeMap::new();
    let mut kinds = Vec::new();
    for (mark, heading, text) in &blocks {
        match mark.as_str() {
            "toml providers" => assert_eq!(provider::parse(text, "example").unwrap().len(), 3),
            "toml autopack.toml" => {
                let config = ProjectConfig::parse(text, heading).unwrap();
                builders.extend(config.builders);
            }
            "yaml run" => {
                let file: RunFile = serde_norway::from_str(text).unwrap_or_else(|e| panic!("{heading}: {e}"));
                file.validate().unwrap_or_else(|e| panic!("{heading}: {e}"));
                for phase in file.phases {
                    let named = match &phase.builder {
                        BuilderSpec::Command { name, .. } => name.clone().map(|name| (name, BuilderKind::Command)),
                        BuilderSpec::Agent { preset } => Some((preset.clone(), BuilderKind::Agent)),
                        BuilderSpec::Llm { model } => Some((model.clone(), BuilderKind::Llm)),
                        BuilderSpec::Patch { .. } | BuilderSpec::Remediation { .. } | BuilderSpec::Landing { .. } => {
                            None
                        }
                    };
                    if let Some((name, kind)) = named {
                        assert_eq!(builders[&name].kind, kind, "{heading}: {name} is an example of this page");
                    }
                    kinds.push(heading.clone());
                }
            }
            other => panic!("{heading}: nobody reads ```{other}"),
        }
    }
    assert_eq!(kinds, ["command", "agent", "llm", "patch", "remediation"]);
}

#[test]
fn every_preset_is_listed_with_the_version_it_was_checked_against() {
    let (page, _) = blocks();
    for preset in Preset::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", preset.as_str()))).unwrap();
        if preset == Preset::Acp {
            continue;
        }
        let help = root().join(format!("worker/src/builder/agent/preset/help/{}.txt", preset.as_str()));
        let text = std::fs::read_to_string(help).unwrap();
        let version = text.split(':').next().unwrap();
        assert!(row.contains(&format!("| {version} |")), "{row}: {version}");
    }
}
