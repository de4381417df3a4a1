//! The Agent Client Protocol, version 1, from the client's side: JSON-RPC over a process's streams, one message a line.
//! One session, one prompt, and whatever the agent asks on the way. Every message is untrusted and of bounded size.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::usage::{Unsaid, Usage};

use super::transcript::Transcript;
use crate::builder::BuildError;
use crate::process::piped::{Heard, Lines, Writer};

mod host;
mod permission;

pub(super) use host::Host;

/// The version of the protocol that is spoken here.
const VERSION: u64 = 1;

/// How long an agent may take to get ready.
const READY: Duration = Duration::from_secs(60);

/// How long it has to stop when it is told to.
const STOP: Duration = Duration::from_secs(1);

/// What is kept of the attempt's time, so that the agent can be told to stop.
const MARGIN: Duration = Duration::from_secs(3);

/// Lines that are no message, before the rest is not read any more.
const MOST_NOISE: u32 = 200;

/// What a session is for.
pub(super) struct Order<'a> {
    pub(super) prompt: &'a str,
    pub(super) time: Duration,
    pub(super) cancel: &'a CancellationToken,
}

struct Session<'a> {
    host: Host,
    writer: Writer,
    lines: Lines,
    transcript: &'a mut Transcript,
    words: String,
    next: u64,
    noise: u32,
}

/// Has an agent do the work.
///
/// # Errors
/// `agent_protocol` when it does not keep to the protocol, `builder_failed` when it gives up, `timeout`, `cancelled`.
pub(super) async fn talk(
    host: Host,
    (writer, lines): (Writer, Lines),
    order: Order<'_>,
    transcript: &mut Transcript,
) -> Result<(), BuildError> {
    let mut session = Session { host, writer, lines, transcript, words: String::new(), next: 0, noise: 0 };
    let end = Instant::now() + order.time.saturating_sub(MARGIN.min(order.time / 4));
    let mut id = None;
    let done = tokio::select! {
        done = timeout_at(end, session.work(order.prompt, end, &mut id)) => done.ok(),
        () = order.cancel.cancelled() => Some(Err(BuildError::new("cancelled", "the lease ended"))),
    };
    let cut = !matches!(done, Some(Ok(())));
    if let (Some(id), true) = (id, cut) {
        let stop = json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": id } });
        let goodbye = async {
            let _gone = session.send(&stop).await;
            while matches!(session.lines.next().await, Heard::Line(_) | Heard::TooLong) {}
        };
        let _stays = tokio::time::timeout(STOP, goodbye).await;
    }
    session.flush();
    done.unwrap_or_else(|| {
        let text = format!("it was still working after {} s and was told to stop", order.time.as_secs());
        Err(BuildError::new("timeout", text))
    })
}

fn broken(why: impl Into<String>) -> BuildError {
    BuildError::new("agent_protocol", why)
}

impl Session<'_> {
    async fn work(&mut self, prompt: &str, end: Instant, id: &mut Option<String>) -> Result<(), BuildError> {
        let ready = end.min(Instant::now() + READY);
        let files = json!({ "readTextFile": true, "writeTextFile": true });
        let able = json!({ "fs": files, "terminal": false });
        let hello =
            self.ask("initialize", json!({ "protocolVersion": VERSION, "clientCapabilities": able }), ready).await?;
        if hello["protocolVersion"].as_u64() != Some(VERSION) {
            return Err(broken(format!("it speaks version {} and not {VERSION}", hello["protocolVersion"])));
        }
        let cwd = self.host.root().to_owned();
        let opened = self.ask("session/new", json!({ "cwd": cwd, "mcpServers": [] }), ready).await?;
        let session =
            opened["sessionId"].as_str().ok_or_else(|| broken("it opened a session without a name"))?.to_owned();
        *id = Some(session.clone());
        let text = json!([{ "type": "text", "text": prompt }]);
        let said = self.ask("session/prompt", json!({ "sessionId": session, "prompt": text }), end + STOP).await?;
        self.transcript.used(used(&said["usage"]));
        match said["stopReason"].as_str() {
            Some("end_turn") => Ok(()),
            Some(other) => {
                let other: String = other.chars().filter(|c| !c.is_control()).take(60).collect();
                Err(BuildError::new("builder_failed", format!("it stopped before it was done: {other}")))
            }
            None => Err(broken("it ended its turn without a reason")),
        }
    }

    /// Sends a request and serves the agent until the answer is there.
    async fn ask(&mut self, method: &str, params: Value, until: Instant) -> Result<Value, BuildError> {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await?;
        loop {
            let heard = timeout_at(until, self.lines.next());
            let line = match heard.await.map_err(|_| broken(format!("no answer to {method} in time")))? {
                Heard::Line(line) => line,
                Heard::TooLong => return Err(broken("a message that was too long")),
                Heard::TooMuch => return Err(BuildError::new("log_budget", "it printed more than it may")),
                Heard::End => return Err(broken(format!("it ended before it answered {method}"))),
            };
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                self.noise += 1;
                if self.noise > MOST_NOISE {
                    return Err(broken("it prints something else than messages"));
                }
                self.transcript.say(&line);
                continue;
            };
            if let Some(called) = message["method"].as_str() {
                self.serve(called, &message).await?;
            } else if message["id"].as_u64() == Some(id) {
                return answer_of(method, &message);
            }
        }
    }

    async fn serve(&mut self, method: &str, message: &Value) -> Result<(), BuildError> {
        let (id, params) = (&message["id"], &message["params"]);
        if id.is_null() {
            if method == "session/update" {
                self.update(&params["update"]);
            }
            return Ok(());
        }
        let answer = match self.host.answer(method, params) {
            Ok(result) => {
                if method == "session/request_permission" {
                    self.note(&format!("asks leave: {} -> {}", title(&params["toolCall"]), result["outcome"]));
                }
                json!({ "jsonrpc": "2.0", "id": id, "result": result })
            }
            Err((code, why)) => {
                self.note(&format!("{method} was refused: {why}"));
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": why } })
            }
        };
        self.send(&answer).await
    }

    fn update(&mut self, update: &Value) {
        match update["sessionUpdate"].as_str() {
            Some("agent_message_chunk") => {
                let words = update["content"]["text"].as_str().unwrap_or_default();
                // Words come in pieces; a line is kept when it is whole.
                self.words.extend(words.chars().take(4000));
                if self.words.len() > 8000 || self.words.contains('\n') {
                    self.flush();
                }
            }
            Some("tool_call") => {
                self.host.heard(update);
                self.note(&format!("uses {}", title(update)));
            }
            Some("tool_call_update") => self.host.heard(update),
            Some(_) | None => {}
        }
    }

    fn note(&mut self, line: &str) {
        self.flush();
        self.transcript.say(line);
    }

    fn flush(&mut self) {
        let words = std::mem::take(&mut self.words);
        self.transcript.say(&words);
    }

    async fn send(&mut self, message: &Value) -> Result<(), BuildError> {
        self.writer.write(&format!("{message}\n")).await.map_err(|e| broken(format!("it does not listen: {e}")))
    }
}

/// What a turn was said to cost; an agent need not say it.
fn used(usage: &Value) -> Usage {
    let count = |name: &str| usage[name].as_u64().map(|count| count.min(1 << 40));
    let (sent, received) = (count("inputTokens"), count("outputTokens"));
    let silent = sent.is_none() && received.is_none();
    Usage {
        input_tokens: sent.unwrap_or(0),
        output_tokens: received.unwrap_or(0),
        calls: u64::from(!silent),
        cost_micros: 0,
        unsaid: Unsaid { tokens: silent, cost: true, calls: silent },
    }
}

fn title(call: &Value) -> String {
    let word = |name: &str| call[name].as_str().unwrap_or_default().chars().take(120).collect::<String>();
    format!("{} ({})", word("title"), word("kind"))
}

fn answer_of(method: &str, message: &Value) -> Result<Value, BuildError> {
    if message["error"].is_null() {
        return Ok(message["result"].clone());
    }
    let words = message["error"]["message"].as_str().unwrap_or("no reason given");
    let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
    Err(BuildError::new("builder_failed", format!("{method}: {words}")))
}

#[cfg(test)]
mod tests;
