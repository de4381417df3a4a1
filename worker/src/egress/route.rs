//! What an agent may ask of its model's provider, and what goes on of a request: pure functions over its line and head. The
//! key is added here, and whatever the agent brought in its place is left out.

use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Uri};
use reqwest::Url;

use autopack_shared::domain::project::ModelConfig;
use autopack_shared::domain::provider::Api;

use crate::providers::{Key, Provider};
use crate::sandbox::EGRESS_PORT;

/// What stands before a provider's name.
const PREFIX: &str = "/ap/";

/// Headers that belong to one connection, or are made anew.
const OWN: [HeaderName; 9] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE];

/// Headers with which somebody says who he is, and one that would hide the answer.
const CREDENTIALS: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, ACCEPT_ENCODING];
const OTHER_CREDENTIALS: [&str; 8] = [
    "api-key",
    "keep-alive",
    "proxy-connection",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-amz-security-token",
];

/// Fields of a query with which somebody says who he is.
const QUERY_CREDENTIALS: [&str; 4] = ["key", "api_key", "api-key", "access_token"];

/// The way to one model's provider.
#[derive(Debug, Clone)]
pub struct Route {
    /// What the provider is called.
    pub name: String,
    /// The provider, with its key.
    pub provider: Provider,
    /// The model that the attempt is for: what it costs.
    pub model: Option<ModelConfig>,
}

/// A request that may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Onward {
    pub(super) url: String,
    /// Whether a model works for it.
    pub(super) costs: bool,
}

impl Route {
    /// The provider as it is known inside: somewhere else, with a key that opens nothing.
    pub(super) fn shown(&self) -> Provider {
        let base = base(&self.provider.url);
        Provider {
            url: format!("http://127.0.0.1:{EGRESS_PORT}{PREFIX}{}{base}", self.segment()),
            key: Some(Key::placeholder()),
            ..self.provider.clone()
        }
    }

    /// Its name in a path; one that would have to be written differently there has another one.
    fn segment(&self) -> &str {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !self.name.is_empty() && self.name.bytes().all(plain) { &self.name } else { "model" }
    }

    /// For the ledger.
    pub(super) fn place(&self) -> String {
        format!("model:{}", self.name)
    }

    /// Judges a request by its method and target.
    ///
    /// # Errors
    /// `not_a_route`, `bad_target`, `path_not_allowed`, `method_not_allowed`.
    pub(super) fn judge(&self, method: &Method, target: &Uri) -> Result<Onward, &'static str> {
        let path = target.path();
        let rest = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(self.segment())).ok_or("not_a_route")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(&byte);
        let segment = |one: &str| !one.is_empty() && one != "." && one != ".." && one.bytes().all(plain);
        if !rest.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
            return Err("bad_target");
        }
        let below = rest.strip_prefix(base(&self.provider.url).as_str()).ok_or("path_not_allowed")?;
        let costs = asks(self.provider.api, below)?;
        let wanted = if costs.is_some() { Method::POST } else { Method::GET };
        if *method != wanted {
            return Err("method_not_allowed");
        }
        let origin = Url::parse(&self.provider.url).map_err(|_| "bad_target")?.origin().ascii_serialization();
        let query = target.query().map(query).filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Onward { url: format!("{origin}{rest}{query}"), costs: costs == Some(true) })
    }

    /// The head of what goes on.
    ///
    /// # Errors
    /// When the key is none that a header can carry.
    pub(super) fn head(&self, came: &HeaderMap) -> Result<HeaderMap, &'static str> {
        let named: Vec<String> = came
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(',').map(|name| name.trim().to_ascii_lowercase()))
            .collect();
        let left_out = |name: &HeaderName| {
            OWN.contains(name)
                || CREDENTIALS.contains(name)
                || OTHER_CREDENTIALS.contains(&name.as_str())
                || named.iter().any(|one| one == name.as_str())
        };
        let mut head = HeaderMap::new();
        for (name, value) in came.iter().filter(|(name, _)| !left_out(name)) {
            head.append(name.clone(), value.clone());
        }
        if let Some(key) = &self.provider.key {
            let (name, text) = match self.provider.api {
                Api::Anthropic => (HeaderName::from_static("x-api-key"), key.reveal().to_owned()),
                Api::Gemini => (HeaderName::from_static("x-goog-api-key"), key.reveal().to_owned()),
                Api::Openai | Api::Ollama => (AUTHORIZATION, format!("Bearer {}", key.reveal())),
            };
            let mut value = HeaderValue::from_str(&text).map_err(|_| "key_unusable")?;
            value.set_sensitive(true);
            head.insert(name, value);
        }
        Ok(head)
    }
}

/// The path of an address, with a `/` at its end.
fn base(url: &str) -> String {
    let path = Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    if path.ends_with('/') { path } else { format!("{path}/") }
}

/// What a path below the provider's asks for: whether a model works for it, and none where it is only looked up.
fn asks(api: Api, path: &str) -> Result<Option<bool>, &'static str> {
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let verb = path.rsplit_once(':').map(|(_, verb)| verb);
    match (api, first, rest) {
        (Api::Openai, "chat", Some("completions"))
        | (Api::Openai, "completions" | "responses" | "embeddings", None)
        | (Api::Anthropic, "messages", None)
        | (Api::Ollama, "api", Some("chat" | "generate" | "embed"))
        | (Api::Ollama, "v1", Some("chat/completions" | "completions")) => Ok(Some(true)),
        (Api::Anthropic, "messages", Some("count_tokens")) | (Api::Ollama, "api", Some("show")) => Ok(Some(false)),
        (Api::Gemini, "models", Some(_)) => match verb {
            Some("generateContent" | "streamGenerateContent" | "embedContent") => Ok(Some(true)),
            Some("countTokens") => Ok(Some(false)),
            Some(_) => Err("path_not_allowed"),
            None => Ok(None),
        },
        (Api::Openai | Api::Anthropic | Api::Gemini, "models", _)
        | (Api::Ollama, "api", Some("tags" | "version"))
        | (Api::Ollama, "v1", Some("models")) => Ok(None),
        _ => Err("path_not_allowed"),
    }
}

/// A query without credentials.
fn query(text: &str) -> String {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let keep = |pair: &&str| !name(pair).contains('%') && !QUERY_CREDENTIALS.contains(&name(pair).as_str());
    text.split('&').filter(keep).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
