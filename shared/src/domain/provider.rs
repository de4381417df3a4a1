//! Who serves models: a name, how it is spoken to, where it is, and what its key is called on the worker's machine. This
//! is the operator's, and no repository says any of it: a repository that could name an address could send a key there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::project::{ConfigError, Source};

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Chat completions of OpenAI, and whoever offers the same.
    Openai,
    /// Messages of Anthropic, and whoever offers the same.
    Anthropic,
    /// Gemini of Google.
    Gemini,
    /// Ollama.
    Ollama,
}

/// One provider: a table of the providers file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// How it is spoken to.
    pub api: Api,
    /// Where: what comes before `chat/completions` or `messages`.
    pub url: String,
    /// The variable of the worker's environment that holds its key.
    #[serde(default)]
    pub key_env: Option<String>,
    /// The file that holds its key.
    #[serde(default)]
    pub key_file: Option<String>,
}

/// Those that are known without a file: name, API, place, variables for the key and for another place.
const KNOWN: [(&str, Api, &str, &str, &str); 5] = [
    ("openai", Api::Openai, "https://api.openai.com/v1/", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    ("anthropic", Api::Anthropic, "https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    ("gemini", Api::Gemini, "https://generativelanguage.googleapis.com/v1beta/", "GEMINI_API_KEY", "GEMINI_BASE_URL"),
    ("openrouter", Api::Openai, "https://openrouter.ai/api/v1/", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
    ("ollama", Api::Ollama, "http://127.0.0.1:11434/", "", "OLLAMA_BASE_URL"),
];

/// Those that are known without a file, with a variable each that moves it elsewhere.
#[must_use]
pub fn known() -> Vec<(String, ProviderConfig, &'static str)> {
    let one = |(name, api, url, key, moved): (&str, Api, &str, &str, &'static str)| {
        let key_env = (!key.is_empty()).then(|| key.to_owned());
        (name.to_owned(), ProviderConfig { api, url: url.to_owned(), key_env, key_file: None }, moved)
    };
    KNOWN.map(one).into()
}

/// Reads a providers file: TOML with one table for each.
///
/// # Errors
/// [`ConfigError`] names the place.
pub fn parse(text: &str, origin: &str) -> Result<BTreeMap<String, ProviderConfig>, ConfigError> {
    let source = Source { text, origin };
    let found: BTreeMap<String, ProviderConfig> = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    for (name, one) in &found {
        if !is_http(&one.url) {
            return Err(source.invalid(name, "its url must start with https:// or http:// and name a host"));
        }
        if one.key_env.is_some() && one.key_file.is_some() {
            return Err(source.invalid(name, "it has one key: name key_env or key_file"));
        }
    }
    Ok(found)
}

/// Whether a text is an address that can be asked, without a name and password in it.
#[must_use]
pub fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty() && !host.contains(['@', ' ', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_providers() {
        let text = "[local]\napi = \"openai\"\nurl = \"http://127.0.0.1:8000/v1\"\nkey_env = \"LOCAL_KEY\"\n";
        let found = parse(text, "providers.toml").unwrap();
        assert_eq!((found["local"].api, found["local"].key_env.as_deref()), (Api::Openai, Some("LOCAL_KEY")));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for url in ["", "ftp://x", "https://", "https:///v1", "https://user:word@host/", "file:///etc/passwd"] {
            let text = format!("[x]\napi = \"openai\"\nurl = \"{url}\"\n");
            assert!(parse(&text, "f").is_err(), "{url}");
        }
        let both = "[x]\napi = \"openai\"\nurl = \"http://h\"\nkey_env = \"A\"\nkey_file = \"b\"\n";
        assert!(parse(both, "f").unwrap_err().to_string().contains("one key"));
        let typo = "[x]\napi = \"openai\"\nurl = \"http://h\"\nkey = \"sk-1\"\n";
        assert!(parse(typo, "f").unwrap_err().to_string().starts_with("f:4: unknown key `key`"));
        assert!(known().iter().all(|(_, one, _)| is_http(&one.url)));
    }
}
