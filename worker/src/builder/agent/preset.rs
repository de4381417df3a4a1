//! How each known agent is called: a pure function from preset, model and task to a command line, variables and files.
//! The flags are those of the versions named in `docs/BUILDERS.md`; a test compares them with the help of those.

use std::path::Path;

use serde_json::json;

use autopack_shared::domain::project::{ModelConfig, Preset};
use autopack_shared::domain::provider::Api;
use autopack_shared::domain::usage::Allowance;

use crate::providers::Provider;

/// What an agent is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// Variables besides those that every process gets.
    pub(super) env: Vec<(String, String)>,
    /// What it reads; none: nothing.
    pub(super) stdin: Option<String>,
    /// Files in the scratch folder: name and text.
    pub(super) files: Vec<(String, String)>,
}

/// What a plan is made for.
pub(super) struct Ask<'a> {
    /// The task in words.
    pub(super) prompt: &'a str,
    /// Files that the scope names one by one.
    pub(super) files: &'a [String],
    /// A folder beside the tree.
    pub(super) scratch: &'a Path,
    /// The model with its provider, where the entry names one.
    pub(super) model: Option<(&'a ModelConfig, &'a Provider)>,
    /// The program, and arguments before ours, where the entry names them.
    pub(super) program: &'a [String],
    /// What may be spent.
    pub(super) allowance: Allowance,
}

impl Ask<'_> {
    fn place(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn model(&self) -> Option<&str> {
        self.model.map(|(model, _)| model.model.as_str())
    }

    fn key(&self) -> Option<String> {
        let (_, provider) = self.model?;
        Some(provider.key.as_ref().map_or("none", |key| key.reveal()).to_owned())
    }

    /// Dollars that may be spent, where money binds.
    fn dollars(&self) -> Option<String> {
        let micros = self.allowance.cost_micros?;
        Some(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000))
    }
}

/// The plan of a preset.
pub(super) fn plan(preset: Preset, ask: &Ask<'_>) -> Plan {
    let mut plan = match preset {
        Preset::ClaudeCode => claude(ask),
        Preset::Codex => codex(ask),
        Preset::GeminiCli => gemini(ask),
        Preset::Aider => aider(ask),
        Preset::Opencode => opencode(ask),
        Preset::MiniSweAgent => mini(ask),
        Preset::Acp => Plan::default(),
    };
    let program = match preset {
        Preset::ClaudeCode => "claude",
        Preset::Codex => "codex",
        Preset::GeminiCli => "gemini",
        Preset::Aider => "aider",
        Preset::Opencode => "opencode",
        Preset::MiniSweAgent => "mini",
        Preset::Acp => "",
    };
    let own =
        if ask.program.is_empty() && !program.is_empty() { vec![program.to_owned()] } else { ask.program.to_vec() };
    plan.argv.splice(0..0, own);
    plan.env.extend(keys(ask));
    plan
}

/// The key and the address of the provider, under the names that tools know them by.
fn keys(ask: &Ask<'_>) -> Vec<(String, String)> {
    let (Some((_, provider)), Some(key)) = (ask.model, ask.key()) else { return Vec::new() };
    let url = provider.url.trim_end_matches('/');
    let pairs: &[(&str, &str)] = match provider.api {
        Api::Openai => &[("OPENAI_API_KEY", &key), ("OPENAI_BASE_URL", url), ("OPENAI_API_BASE", url)],
        // Anthropic's own tools add the version themselves.
        Api::Anthropic => &[("ANTHROPIC_API_KEY", &key), ("ANTHROPIC_BASE_URL", url.trim_end_matches("/v1"))],
        Api::Gemini => &[("GEMINI_API_KEY", &key), ("GOOGLE_GEMINI_BASE_URL", url.trim_end_matches("/v1beta"))],
        Api::Ollama => &[("OLLAMA_HOST", url), ("OLLAMA_API_BASE", url)],
    };
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn vars(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn claude(ask: &Ask<'_>) -> Plan {
    // `--bare`: no hook, plugin or memory of the repository's runs. Edits are accepted, everything else is refused.
    let mut argv = words(&["--print", "--output-format", "stream-json", "--verbose", "--bare", "--strict-mcp-config"]);
    argv.extend(words(&["--no-session-persistence", "--permission-mode", "acceptEdits"]));
    if let Some(model) = ask.model() {
        argv.extend(words(&["--model", model]));
    }
    if let Some(dollars) = ask.dollars() {
        argv.extend(words(&["--max-budget-usd", &dollars]));
    }
    let env = vars(&[("DISABLE_AUTOUPDATER", "1"), ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")]);
    Plan { argv, env, stdin: Some(ask.prompt.to_owned()), files: Vec::new() }
}

fn codex(ask: &Ask<'_>) -> Plan {
    let mut argv = words(&["exec", "--json", "--color", "never", "--sandbox", "workspace-write"]);
    argv.extend(words(&["--skip-git-repo-check", "--ephemeral", "--ignore-user-config", "--ignore-rules"]));
    if let Some((model, provider)) = ask.model {
        let url = provider.url.trim_end_matches('/');
        argv.extend(words(&["--model", &model.model, "--config", "model_provider=\"autopack\""]));
        for (key, value) in
            [("name", "autopack"), ("base_url", url), ("env_key", "OPENAI_API_KEY"), ("wire_api", "responses")]
        {
            argv.extend(words(&["--config", &format!("model_providers.autopack.{key}={}", json!(value))]));
        }
    }
    argv.push("-".to_owned());
    let env = vec![("CODEX_HOME".to_owned(), ask.place("home"))];
    Plan { argv, env, stdin: Some(ask.prompt.to_owned()), files: Vec::new() }
}

fn gemini(ask: &Ask<'_>) -> Plan {
    let mut argv = words(&["--output-format", "stream-json", "--approval-mode", "auto_edit", "--skip-trust"]);
    if let Some(model) = ask.model() {
        argv.extend(words(&["--model", model]));
    }
    argv.extend(words(&["--prompt", "Do what the text above says."]));
    Plan { argv, stdin: Some(ask.prompt.to_owned()), ..Plan::default() }
}

fn aider(ask: &Ask<'_>) -> Plan {
    // It is asked to say yes to itself, and so has to have nothing to ask but for edits.
    let mut argv = words(&["--message-file", &ask.place("prompt.md"), "--yes-always", "--no-git", "--no-gitignore"]);
    argv.extend(words(&["--no-auto-commits", "--no-suggest-shell-commands", "--no-detect-urls", "--no-check-update"]));
    argv.extend(words(&["--no-show-model-warnings", "--no-pretty", "--no-stream", "--analytics-disable"]));
    for (flag, name) in
        [("--input-history-file", "input"), ("--chat-history-file", "chat"), ("--llm-history-file", "llm")]
    {
        argv.extend(words(&[flag, &ask.place(&format!("aider.{name}"))]));
    }
    if let Some((model, provider)) = ask.model {
        argv.extend(words(&["--model", &format!("{}/{}", family(provider.api), model.model)]));
    }
    argv.extend(ask.files.iter().cloned());
    let env = vars(&[PRICES]);
    Plan { argv, env, files: vec![("prompt.md".to_owned(), ask.prompt.to_owned())], ..Plan::default() }
}

fn mini(ask: &Ask<'_>) -> Plan {
    let mut argv =
        words(&["--yolo", "--exit-immediately", "--task", ask.prompt, "--output", &ask.place("trajectory.json")]);
    argv.extend(words(&["--cost-limit", ask.dollars().as_deref().unwrap_or("0")]));
    if let Some((model, provider)) = ask.model {
        argv.extend(words(&["--model", &format!("{}/{}", family(provider.api), model.model)]));
    }
    let mut env = vars(&[
        ("MSWEA_CONFIGURED", "true"),
        ("MSWEA_SILENT_STARTUP", "1"),
        // A model that its price list does not know is no error: ours is the one that counts.
        ("MSWEA_COST_TRACKING", "ignore_errors"),
        PRICES,
    ]);
    env.push(("MSWEA_GLOBAL_CONFIG_DIR".to_owned(), ask.place("home")));
    Plan { argv, env, ..Plan::default() }
}

/// LiteLLM takes the price list that it brings along, instead of one from a network that a builder need not reach.
const PRICES: (&str, &str) = ("LITELLM_LOCAL_MODEL_COST_MAP", "True");

/// The prefix of a model's name for tools that go by LiteLLM.
const fn family(api: Api) -> &'static str {
    match api {
        Api::Openai => "openai",
        Api::Anthropic => "anthropic",
        Api::Gemini => "gemini",
        Api::Ollama => "ollama_chat",
    }
}

fn opencode(ask: &Ask<'_>) -> Plan {
    let mut argv = words(&["run", "--format", "json", "--pure"]);
    if let Some(model) = ask.model() {
        argv.extend(words(&["--model", &format!("autopack/{model}")]));
    }
    argv.push(ask.prompt.to_owned());
    Plan { argv, env: vec![opencode_config(ask)], ..Plan::default() }
}

/// The configuration of OpenCode: our provider, edits allowed, everything else that asks refused.
pub(super) fn opencode_config(ask: &Ask<'_>) -> (String, String) {
    let permission = json!({ "edit": "allow", "bash": "deny", "webfetch": "deny", "external_directory": "deny" });
    let mut config = json!({ "autoupdate": false, "share": "disabled", "permission": permission });
    if let Some((model, provider)) = ask.model {
        let (package, key) = match provider.api {
            Api::Openai | Api::Ollama => ("@ai-sdk/openai-compatible", "{env:OPENAI_API_KEY}"),
            Api::Anthropic => ("@ai-sdk/anthropic", "{env:ANTHROPIC_API_KEY}"),
            Api::Gemini => ("@ai-sdk/google", "{env:GEMINI_API_KEY}"),
        };
        let options = json!({ "baseURL": provider.url.trim_end_matches('/'), "apiKey": key });
        let limit = json!({ "context": 200_000, "output": model.max_output_tokens });
        let models = json!({ &model.model: { "limit": limit } });
        config["provider"] = json!({ "autopack": { "npm": package, "options": options, "models": models } });
        config["model"] = json!(format!("autopack/{}", model.model));
        config["small_model"] = config["model"].clone();
    }
    ("OPENCODE_CONFIG_CONTENT".to_owned(), config.to_string())
}

#[cfg(test)]
mod tests;
