//! The providers of models that this worker may ask, with their keys. Keys come from the worker's own environment and
//! files, are shown to nobody, and go nowhere but to the address that the operator gave their provider.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use autopack_shared::domain::project::ConfigError;
use autopack_shared::domain::provider::{self, Api, ProviderConfig};
use autopack_shared::domain::secret;
use autopack_shared::runtime::config::Environment;

mod retry;

pub(crate) use retry::retry_after;

/// A key that is longer is no key.
const MOST_KEY: u64 = 16 * 1024;

/// A key; what shows it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// One that opens nothing, for who has to hold something.
    pub(crate) fn placeholder() -> Self {
        Self("autopack-holds-the-key".to_owned())
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The key itself, for a request.
    #[must_use]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A provider, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// How it is spoken to.
    pub api: Api,
    /// Where, with a `/` at its end.
    pub url: String,
    /// Its key, where it has one and the key is there.
    pub key: Option<Key>,
    /// What the key is called, for messages.
    pub key_name: Option<String>,
}

impl Provider {
    /// A text of the provider's that can be shown: without keys, on one line, cut short.
    #[must_use]
    pub(crate) fn shown(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.reveal(), "[key]"),
            None => text.to_owned(),
        };
        let line = secret::redact(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().filter(|c| !c.is_control()).take(300).collect()
    }
}

/// Why the providers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A key that cannot be read.
    #[error("the key of provider {provider} cannot be read from {path}: {why}")]
    Key {
        /// Whose.
        provider: String,
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

/// Every provider by name.
#[derive(Debug, Clone, Default)]
pub struct Providers(BTreeMap<String, Provider>);

impl Providers {
    /// The known ones, as the environment has them, and those of the providers file: its text, and how it is called.
    ///
    /// # Errors
    /// [`ProviderError`] for a file or a key that cannot be read.
    pub fn open(env: &Environment, file: Option<(&str, &str)>) -> Result<Self, ProviderError> {
        let mut configs: BTreeMap<String, ProviderConfig> = BTreeMap::new();
        for (name, mut config, moved) in provider::known() {
            if let Some(url) = env.get(moved).filter(|url| provider::is_http(url)) {
                config.url = with_version(config.api, url);
            }
            configs.insert(name, config);
        }
        if let Some((text, origin)) = file {
            configs.extend(provider::parse(text, origin)?);
        }
        let opened = configs.into_iter().map(|(name, config)| {
            let key = key_of(&name, &config, env)?;
            let url = if config.url.ends_with('/') { config.url } else { format!("{}/", config.url) };
            let key_name = config.key_env.or(config.key_file);
            Ok((name, Provider { api: config.api, url, key, key_name }))
        });
        Ok(Self(opened.collect::<Result<_, ProviderError>>()?))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.0.get(name)
    }

    /// What they are called.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Anthropic's own tools leave the version out of the variable.
fn with_version(api: Api, url: &str) -> String {
    let url = url.trim_end_matches('/');
    match api {
        Api::Anthropic if !url.ends_with("/v1") => format!("{url}/v1"),
        Api::Anthropic | Api::Openai | Api::Gemini | Api::Ollama => url.to_owned(),
    }
}

fn key_of(provider: &str, config: &ProviderConfig, env: &Environment) -> Result<Option<Key>, ProviderError> {
    if let Some(path) = &config.key_file {
        let refuse = |why: String| ProviderError::Key { provider: provider.to_owned(), path: path.clone(), why };
        return read_key(Path::new(path)).map(Some).map_err(refuse);
    }
    let value = config.key_env.as_deref().and_then(|name| env.get(name));
    Ok(value.map(|value| Key(value.trim().to_owned())))
}

fn read_key(path: &Path) -> Result<Key, String> {
    let facts = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !facts.is_file() || facts.len() > MOST_KEY {
        return Err("it is no file that could hold a key".to_owned());
    }
    if facts.permissions().mode() & 0o077 != 0 {
        return Err("others can read it: chmod 600".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        key => Ok(Key(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let env =
            Environment::from([("OPENAI_API_KEY", "sk-secret-123"), ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")]);
        let providers = Providers::open(&env, None).unwrap();
        let openai = providers.get("openai").unwrap();
        assert_eq!(
            (openai.url.as_str(), openai.key.as_ref().unwrap().reveal()),
            ("http://127.0.0.1:9/v1/", "sk-secret-123")
        );
        assert!(!format!("{providers:?}").contains("secret"));
        assert_eq!(openai.shown("wrong key\n sk-secret-123 \u{1b}[0m"), "wrong key [key] [0m");
        assert_eq!(providers.get("anthropic").unwrap().key, None);
    }

    #[test]
    fn a_key_file_that_others_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, " sk-1\n").unwrap();
        let text = format!("[mine]\napi = \"anthropic\"\nurl = \"http://h/v1\"\nkey_file = {path:?}\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Providers::open(&Environment::default(), Some((&text, "f"))).unwrap_err().to_string();
        assert!(error.contains("others can read it"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let providers = Providers::open(&Environment::default(), Some((&text, "f"))).unwrap();
        assert_eq!(providers.get("mine").unwrap().key.as_ref().unwrap().reveal(), "sk-1");
    }

    #[test]
    fn the_file_wins_over_what_is_known() {
        let env = Environment::from([("ANTHROPIC_BASE_URL", "http://h")]);
        assert_eq!(Providers::open(&env, None).unwrap().get("anthropic").unwrap().url, "http://h/v1/");
        let text = "[anthropic]\napi = \"openai\"\nurl = \"http://other\"\n";
        let providers = Providers::open(&env, Some((text, "f"))).unwrap();
        assert_eq!(providers.get("anthropic").unwrap().url, "http://other/");
    }
}
