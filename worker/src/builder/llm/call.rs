//! One call of a model: what is asked goes out by the client library, and what comes back is an answer or one of five
//! kinds of trouble. Nothing of a request is logged, and no key is ever part of a message.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatOptions, ChatRequest, ChatResponse};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

use autopack_shared::domain::project::ModelConfig;
use autopack_shared::domain::provider::Api;

use super::narrow::Narrow;
use super::patience::Trouble;
use super::prompt::Prompt;
use crate::providers::{Provider, retry_after};

/// Bytes of one answer on the wire that are read at most.
const MOST_BYTES: u64 = 16 << 20;

/// What a model said.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its words.
    pub(super) text: String,
    /// Tokens sent and received, as far as the provider says so.
    pub(super) said: (Option<u64>, Option<u64>),
    /// It had more to say than it was allowed to.
    pub(super) cut: bool,
}

/// What is asked of whom.
pub(super) struct Question<'a> {
    pub(super) provider: &'a Provider,
    pub(super) model: &'a ModelConfig,
    pub(super) prompt: &'a Prompt,
    pub(super) most_tokens: u32,
    pub(super) timeout: Duration,
}

/// Asks.
pub(super) async fn ask(question: &Question<'_>) -> Result<Reply, Trouble> {
    let provider = question.provider;
    let away = |why: String| Trouble::Away { after: None, why: provider.shown(&why) };
    let refused = |why: String| Trouble::Refused { why: provider.shown(&why) };
    let url = Url::parse(&provider.url).map_err(|e| refused(format!("{} is no address: {e}", provider.url)))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(refused(format!("{} names no host", provider.url)));
    };
    let narrow = Narrow::open(host, port, MOST_BYTES).map_err(|e| away(format!("no socket: {e}")))?;
    let client = client(&narrow).map_err(|e| away(format!("no client: {e}")))?;
    let target = target(question);
    let request = ChatRequest::new(vec![ChatMessage::user(question.prompt.user.as_str())])
        .with_system(question.prompt.system.as_str());
    let options = ChatOptions::default().with_max_tokens(question.most_tokens);
    // Who was reached may have begun to work on it.
    let broken = |why: String| if narrow.reached() { Trouble::Cut { why: provider.shown(&why) } } else { away(why) };
    // An answer that the library stumbles over must not take the job with it.
    let call = AssertUnwindSafe(client.exec_chat(target, request, Some(&options))).catch_unwind();
    let done = tokio::select! {
        done = tokio::time::timeout(question.timeout, call) => done,
        error = narrow.carry() => return Err(broken(format!("the socket failed: {error}"))),
    };
    match done {
        Ok(Ok(Ok(response))) => reply(response, provider),
        Ok(Ok(Err(error))) => Err(narrow.fault().map_or_else(|| trouble(&error, provider), broken)),
        Ok(Err(_)) => Err(Trouble::Garbage { why: "its answer cannot be read".to_owned() }),
        Err(_) => Err(broken(format!("no answer within {} s", question.timeout.as_secs()))),
    }
}

fn client(narrow: &Narrow) -> Result<Client, String> {
    // The first one stays; it is always this one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .unix_socket(narrow.socket())
        // One connection a call, so that its bytes are those of the answer; and what is packed could be any size.
        .pool_max_idle_per_host(0)
        .no_gzip()
        // A key goes to the address it was given for.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| e.to_string())?;
    Client::builder().with_reqwest(http).build().map_err(|e| e.to_string())
}

fn target(question: &Question<'_>) -> ServiceTarget {
    let provider = question.provider;
    let kind = match provider.api {
        Api::Openai => AdapterKind::OpenAI,
        Api::Anthropic => AdapterKind::Anthropic,
        Api::Gemini => AdapterKind::Gemini,
        Api::Ollama => AdapterKind::Ollama,
    };
    // Servers without keys take any; the library always sends one.
    let key = provider.key.as_ref().map_or("none", |key| key.reveal());
    ServiceTarget {
        endpoint: Endpoint::from_owned(provider.url.as_str()),
        auth: AuthData::from_single(key),
        model: ModelIden::new(kind, question.model.model.as_str()),
    }
}

fn reply(response: ChatResponse, provider: &Provider) -> Result<Reply, Trouble> {
    let count = |said: Option<i32>| said.and_then(|n| u64::try_from(n).ok());
    let said = (count(response.usage.prompt_tokens), count(response.usage.completion_tokens));
    let cut = response.stop_reason.as_ref().is_some_and(genai::chat::StopReason::is_max_tokens);
    let stopped = response.stop_reason.as_ref().map(|reason| provider.shown(reason.raw()));
    let text = response.into_texts().join("");
    if text.trim().is_empty() && !cut {
        let why = stopped.map_or_else(String::new, |reason| format!(" (it stopped: {reason})"));
        return Err(Trouble::Garbage { why: format!("its answer has no text{why}") });
    }
    Ok(Reply { text, said, cut })
}

fn trouble(error: &genai::Error, provider: &Provider) -> Trouble {
    use genai::Error::{ChatResponseGeneration, HttpError, WebAdapterCall, WebModelCall};
    if let WebModelCall { webc_error, .. } | WebAdapterCall { webc_error, .. } = error {
        return web_trouble(webc_error, provider);
    }
    if let HttpError { status, body, headers, .. } = error {
        return status_trouble(*status, headers, body, provider);
    }
    if let ChatResponseGeneration { cause, .. } = error {
        return Trouble::Garbage { why: provider.shown(&format!("its answer has another shape: {cause}")) };
    }
    // Whole requests stand in the others; their kind is enough.
    let kind = format!("{error:?}");
    let kind = kind.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    Trouble::Refused { why: provider.shown(&format!("the request cannot be made: {kind}")) }
}

fn web_trouble(error: &genai::webc::Error, provider: &Provider) -> Trouble {
    use genai::webc::Error as Web;
    match error {
        Web::ResponseFailedStatus { status, body, headers } => status_trouble(*status, headers, body, provider),
        Web::ResponseFailedNotJson { content_type, body } => {
            let why = format!("its answer is {content_type:?} and no JSON: {}", head(body));
            Trouble::Garbage { why: provider.shown(&why) }
        }
        Web::ResponseFailedInvalidJson { cause, body } => {
            Trouble::Garbage { why: provider.shown(&format!("its answer is no JSON: {cause}: {}", head(body))) }
        }
        Web::JsonValueExt(cause) => {
            Trouble::Garbage { why: provider.shown(&format!("its answer lacks a part: {cause}")) }
        }
        // A connection did not come about; anything later may have been after it was asked.
        Web::Reqwest(cause) if cause.is_connect() => Trouble::Away { after: None, why: provider.shown(&causes(cause)) },
        Web::Reqwest(cause) => Trouble::Cut { why: provider.shown(&causes(cause)) },
    }
}

fn status_trouble(status: StatusCode, headers: &HeaderMap, body: &str, provider: &Provider) -> Trouble {
    let after = retry_after(headers);
    let why = provider.shown(&format!("it answered {}: {}", status.as_u16(), head(body)));
    match status.as_u16() {
        429 => Trouble::Busy { after, why },
        // Anthropic's word for too much to do is 529.
        408 | 409 | 425 | 500..=599 => Trouble::Away { after, why },
        _ => Trouble::Refused { why },
    }
}

/// The beginning of a body: the whole may be long and go through every pattern of the redaction.
fn head(body: &str) -> String {
    body.chars().take(2000).collect()
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
