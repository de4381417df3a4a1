//! What a builder entry says of models and agents: which ones, what they cost, and how they answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BuilderConfig, BuilderKind};

/// The most models that one entry may list.
const MOST_MODELS: usize = 20;

/// One model of a builder; `models` lists them for the first attempt, the second, and so on: the last one stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A provider that the worker knows: `openai`, `anthropic`, or one of its operator's.
    pub provider: String,
    /// What the provider calls it.
    pub model: String,
    /// Tokens of one answer at most.
    #[serde(default = "answer_tokens")]
    pub max_output_tokens: u32,
    /// What a million tokens sent cost, in millionths of the currency.
    #[serde(default)]
    pub input_price: u64,
    /// What a million tokens received cost, in millionths of the currency.
    #[serde(default)]
    pub output_price: u64,
}

const fn answer_tokens() -> u32 {
    16_000
}

/// How a model writes down a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// Whole files.
    #[default]
    Edits,
    /// One unified diff, as git writes it.
    Diff,
}

impl AnswerForm {
    /// Whether it is the default, which is not written down.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::Edits
    }
}

/// Which agent, and with it how it is called and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Claude Code, `claude`.
    ClaudeCode,
    /// Codex, `codex`.
    Codex,
    /// Gemini CLI, `gemini`.
    GeminiCli,
    /// aider, `aider`.
    Aider,
    /// OpenCode, `opencode`.
    Opencode,
    /// mini-swe-agent, `mini`.
    MiniSweAgent,
    /// Any agent that speaks the Agent Client Protocol; `argv` starts it.
    Acp,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::ClaudeCode, Self::Codex, Self::GeminiCli, Self::Aider, Self::Opencode, Self::MiniSweAgent, Self::Acp];

    /// As a configuration names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::GeminiCli => "gemini-cli",
            Self::Aider => "aider",
            Self::Opencode => "opencode",
            Self::MiniSweAgent => "mini-swe-agent",
            Self::Acp => "acp",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == name)
    }
}

/// What an agent of the Agent Client Protocol asks leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Reading files of the tree.
    Read,
    /// Changing files of the phase's scope.
    Edit,
    /// Deleting files of the phase's scope.
    Delete,
    /// Moving files within the phase's scope.
    Move,
    /// Searching the tree.
    Search,
    /// Running commands.
    Execute,
    /// Thinking aloud.
    Think,
    /// Fetching from the network.
    Fetch,
}

/// The default of [`BuilderConfig::context_bytes`].
pub(super) const fn context_bytes() -> u32 {
    200_000
}

/// Whether it is the default, which is not written down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_context_bytes(bytes: &u32) -> bool {
    *bytes == context_bytes()
}

impl BuilderConfig {
    /// What of this part cannot work.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.models.len() > MOST_MODELS {
            return Some("it lists too many models: 20 at most");
        }
        if self.models.iter().any(|one| one.provider.is_empty() || one.model.is_empty() || one.max_output_tokens == 0) {
            return Some("a model needs a provider, a name and at least 1 for max_output_tokens");
        }
        let agent = self.kind == BuilderKind::Agent;
        if !agent && (self.preset.is_some() || !self.allow.is_empty()) {
            return Some("only an agent has a preset and permissions");
        }
        match self.kind {
            BuilderKind::Llm if self.models.is_empty() => Some("a builder of this kind needs models"),
            BuilderKind::Llm if !self.argv.is_empty() => Some("a builder of this kind starts no program"),
            BuilderKind::Command if self.argv.is_empty() => {
                Some("a builder of this kind needs argv = [\"program\", ...]")
            }
            BuilderKind::Agent if self.argv.is_empty() && matches!(self.preset, None | Some(Preset::Acp)) => {
                Some("an agent needs preset = \"claude-code\" or another one, or the argv of an ACP agent")
            }
            BuilderKind::Command | BuilderKind::Agent | BuilderKind::Llm => None,
            BuilderKind::Patch | BuilderKind::Remediation => {
                (!self.models.is_empty()).then_some("a builder of this kind asks no model")
            }
        }
    }

    /// The model of an attempt, counted from 1.
    #[must_use]
    pub fn model_of(&self, attempt: u32) -> Option<&ModelConfig> {
        let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.models.get(at.min(self.models.len().saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ProjectConfig;
    use super::*;

    const TWO: &str = "[builders.w]\nkind = \"llm\"\n[[builders.w.models]]\nprovider = \"openai\"\nmodel = \"small\"\n\
                       [[builders.w.models]]\nprovider = \"anthropic\"\nmodel = \"large\"\n";

    #[test]
    fn attempts_climb_the_list_and_stay_on_its_last() {
        let config = ProjectConfig::parse(TWO, "f").unwrap();
        let asked = |attempt| config.builders["w"].model_of(attempt).map(|one| one.model.clone()).unwrap();
        assert_eq!([1, 2, 3, 99].map(asked), ["small", "large", "large", "large"]);
        assert_eq!(config.builders["w"].models[0].max_output_tokens, 16_000);
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        for (text, why) in [
            ("[builders.w]\nkind = \"llm\"\n", "needs models"),
            ("[builders.w]\nkind = \"agent\"\npreset = \"acp\"\n", "an agent needs"),
            ("[builders.w]\nkind = \"agent\"\n", "an agent needs"),
            ("[builders.w]\nkind = \"command\"\nargv = [\"x\"]\npreset = \"codex\"\n", "only an agent"),
            ("[builders.w]\nkind = \"agent\"\npreset = \"cursor\"\n", "cursor"),
            ("[builders.w]\nkind = \"patch\"\nmodels = [{ provider = \"a\", model = \"b\" }]\n", "asks no model"),
            (
                "[builders.w]\nkind = \"llm\"\nmodels = [{ provider = \"a\", model = \"b\", base_url = \"http://x\" }]\n",
                "base_url",
            ),
        ] {
            let error = ProjectConfig::parse(text, "f").unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_of_presets_are_those_of_the_configuration() {
        for preset in Preset::ALL {
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.as_str());
            assert_eq!(Preset::named(preset.as_str()), Some(preset));
        }
    }

    #[test]
    fn what_an_older_file_does_not_say_changes_no_digest() {
        let old = ProjectConfig::parse("[builders.t]\nkind = \"command\"\nargv = [\"t\"]\n", "f").unwrap();
        let written = serde_json::to_string(&old.builders["t"]).unwrap();
        assert_eq!(written, r#"{"kind":"command","argv":["t"],"gaps":[],"timeout_seconds":3600}"#);
    }
}
