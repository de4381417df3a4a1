//! A model server that stands in for a real one: it speaks the wire formats of OpenAI and Anthropic, streamed or whole,
//! and says what its script says: answers, tool calls, refusals, rubbish, or nothing at all.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// One thing to say.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// A message, with usage of 100 tokens in and 20 out.
    Words(Words),
    /// A status with headers and a body.
    Status(u16, &'static str, String),
    /// Bytes as they are, head and all; then the connection ends.
    Raw(Vec<u8>),
    /// Nothing, while the other side waits.
    Never,
    /// A body without an end.
    Endless,
}

/// A message of a model.
#[derive(Debug, Clone)]
pub(crate) enum Words {
    /// An answer.
    Text(String),
    /// A call of a tool: its name and arguments.
    Tool(&'static str, Value),
}

impl Say {
    /// An answer.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Words(Words::Text(text.into()))
    }

    /// A call of a tool.
    pub(crate) fn tool(name: &'static str, arguments: Value) -> Self {
        Self::Words(Words::Tool(name, arguments))
    }
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: Value,
}

impl Asked {
    /// Everything in one text.
    pub(crate) fn text(&self) -> String {
        self.body.to_string()
    }
}

type Script = Box<dyn FnMut(&Asked) -> Say + Send>;

struct State {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
}

/// A running server; it ends with the test's process.
pub(crate) struct Standin {
    port: u16,
    state: Arc<State>,
}

impl Standin {
    /// Says these things in order; what comes after them is refused.
    pub(crate) fn of(says: impl IntoIterator<Item = Say>) -> Self {
        let mut says: std::collections::VecDeque<Say> = says.into_iter().collect();
        let empty = || Say::Status(400, "", "the script has ended".to_owned());
        Self::by(move |_| says.pop_front().unwrap_or_else(empty))
    }

    /// Says what the script makes of each question.
    pub(crate) fn by(script: impl FnMut(&Asked) -> Say + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { script: Mutex::new(Box::new(script)), asked: Mutex::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { port, state }
    }

    /// Where it is, as `OPENAI_BASE_URL` has it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// All questions for a model's words so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(asked) = read(&mut reader) {
        if !["/chat/completions", "/messages", "/responses"].iter().any(|end| asked.path.ends_with(end)) {
            // Lists of models, counts of tokens, and whatever else a tool likes to know.
            let known =
                json!({ "object": "list", "data": [{ "id": "stand-in", "object": "model" }], "input_tokens": 10 });
            if whole(stream, 200, "", &known.to_string()).is_err() {
                return;
            }
            continue;
        }
        let say = (state.script.lock().unwrap())(&asked);
        state.asked.lock().unwrap().push(asked.clone());
        if answer(stream, &asked, say).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
    let path = first.split(' ').nth(1)?.split('?').next()?.to_owned();
    let (mut headers, mut length, mut chunked) = (String::new(), 0usize, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= lower.starts_with("transfer-encoding:") && lower.contains("chunked");
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line);
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some(Asked { path, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn answer(stream: &TcpStream, asked: &Asked, say: Say) -> std::io::Result<()> {
    let mut out = stream;
    match say {
        Say::Status(status, headers, body) => whole(stream, status, headers, &body),
        Say::Raw(bytes) => {
            out.write_all(&bytes)?;
            stream.shutdown(std::net::Shutdown::Both)?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Say::Never => loop {
            std::thread::park();
        },
        Say::Endless => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n[\"")?;
            loop {
                out.write_all(&[b'x'; 64 * 1024])?;
            }
        }
        Say::Words(say) => {
            let streamed = asked.body["stream"] == true;
            let anthropic = asked.path.ends_with("/messages");
            match (anthropic, streamed) {
                (false, false) => whole(stream, 200, "", &openai(&say).to_string()),
                (false, true) => events(stream, &openai_events(&say)),
                (true, false) => whole(stream, 200, "", &anthropic_message(&say).to_string()),
                (true, true) => events(stream, &anthropic_events(&say)),
            }
        }
    }
}

fn whole(mut stream: &TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let kind = if body.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
    let more = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{more}content-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn events(mut stream: &TcpStream, events: &[(&str, Value)]) -> std::io::Result<()> {
    let mut body = String::new();
    for (name, data) in events {
        if !name.is_empty() {
            body.push_str(&format!("event: {name}\n"));
        }
        body.push_str(&format!("data: {}\n\n", data.as_str().map_or_else(|| data.to_string(), str::to_owned)));
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn tool_call(name: &str, arguments: &Value) -> Value {
    json!([{ "index": 0, "id": format!("call_{name}"), "type": "function",
        "function": { "name": name, "arguments": arguments.to_string() } }])
}

/// The message of chat completions, and why it ends.
fn openai_message(say: &Words) -> (Value, &'static str) {
    match say {
        Words::Tool(name, arguments) => {
            (json!({ "role": "assistant", "content": null, "tool_calls": tool_call(name, arguments) }), "tool_calls")
        }
        Words::Text(text) => (json!({ "role": "assistant", "content": text }), "stop"),
    }
}

const OPENAI_USAGE: [(&str, u64); 3] = [("prompt_tokens", 100), ("completion_tokens", 20), ("total_tokens", 120)];

fn openai(say: &Words) -> Value {
    let (message, reason) = openai_message(say);
    let usage: serde_json::Map<String, Value> =
        OPENAI_USAGE.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    json!({ "id": "chat-1", "object": "chat.completion", "created": 1, "model": "stand-in", "usage": usage,
        "choices": [{ "index": 0, "message": message, "finish_reason": reason }] })
}

fn openai_events(say: &Words) -> Vec<(&'static str, Value)> {
    let (message, reason) = openai_message(say);
    let chunk = |choices: Value, usage: Value| {
        json!({ "id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "stand-in",
            "choices": choices, "usage": usage })
    };
    vec![
        ("", chunk(json!([{ "index": 0, "delta": message, "finish_reason": null }]), Value::Null)),
        ("", chunk(json!([{ "index": 0, "delta": {}, "finish_reason": reason }]), Value::Null)),
        ("", chunk(json!([]), openai(say)["usage"].clone())),
        ("", json!("[DONE]")),
    ]
}

fn anthropic_block(say: &Words) -> (Value, &'static str) {
    match say {
        Words::Tool(name, input) => {
            (json!({ "type": "tool_use", "id": format!("toolu_{name}"), "name": name, "input": input }), "tool_use")
        }
        Words::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
    }
}

fn anthropic_message(say: &Words) -> Value {
    let (block, reason) = anthropic_block(say);
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "content": [block],
        "stop_reason": reason, "stop_sequence": null, "usage": { "input_tokens": 100, "output_tokens": 20 } })
}

fn anthropic_events(say: &Words) -> Vec<(&'static str, Value)> {
    let (block, reason) = anthropic_block(say);
    let (start, delta) = match say {
        Words::Tool(_, input) => {
            let mut start = block;
            start["input"] = json!({});
            (start, json!({ "type": "input_json_delta", "partial_json": input.to_string() }))
        }
        Words::Text(_) => {
            (json!({ "type": "text", "text": "" }), json!({ "type": "text_delta", "text": block["text"] }))
        }
    };
    let mut message = anthropic_message(say);
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = json!(1);
    vec![
        ("message_start", json!({ "type": "message_start", "message": message })),
        ("content_block_start", json!({ "type": "content_block_start", "index": 0, "content_block": start })),
        ("content_block_delta", json!({ "type": "content_block_delta", "index": 0, "delta": delta })),
        ("content_block_stop", json!({ "type": "content_block_stop", "index": 0 })),
        (
            "message_delta",
            json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null },
                "usage": { "output_tokens": 20 } }),
        ),
        ("message_stop", json!({ "type": "message_stop" })),
    ]
}
