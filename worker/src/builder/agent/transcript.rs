//! Reads what an agent prints: a few lines for people, and what it says its models were asked for. All of it is the
//! agent's own word.

use std::collections::VecDeque;

use serde_json::Value;

use autopack_shared::domain::project::Preset;
use autopack_shared::domain::secret;
use autopack_shared::domain::secret::key::{KeyLine, KeyLines, MARK};
use autopack_shared::domain::usage::{Unsaid, Usage};

/// Lines that are kept: the last ones.
const MOST_LINES: usize = 60;

/// Characters of one line.
const MOST_CHARS: usize = 300;

/// A transcript as it grows.
#[derive(Debug)]
pub(super) struct Transcript {
    preset: Preset,
    lines: VecDeque<String>,
    usage: Usage,
    failed: Option<String>,
    /// Whether the next line may be one of a private key.
    key: KeyLines,
}

impl Transcript {
    pub(super) const fn of(preset: Preset) -> Self {
        Self { preset, lines: VecDeque::new(), usage: Usage::UNSAID, failed: None, key: KeyLines::OUTSIDE }
    }

    /// What people are shown, and what was used.
    pub(super) fn done(self) -> (Vec<String>, Usage, Option<String>) {
        (self.lines.into(), self.usage, self.failed)
    }

    /// Keeps words, line by line, without secrets.
    pub(super) fn say(&mut self, words: &str) {
        for line in words.lines().filter(|line| !line.trim().is_empty()).take(MOST_LINES) {
            let line = match self.key.next(line.as_bytes()) {
                KeyLine::Inside => continue,
                KeyLine::Begins(at) => format!("{}{MARK}", line.get(..at).unwrap_or_default()),
                KeyLine::Other => line.to_owned(),
            };
            let plain: String = line.chars().filter(|c| !c.is_control()).take(MOST_CHARS).collect();
            if self.lines.len() == MOST_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(secret::redact(&plain));
        }
    }

    /// It was never started: nothing was used.
    pub(super) fn never_began(&mut self) {
        self.usage = Usage::default();
    }

    /// Adds what was used.
    pub(super) const fn used(&mut self, usage: Usage) {
        self.usage = self.usage.and(usage);
    }

    /// What was used so far.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Reads one line that was printed.
    pub(super) fn line(&mut self, line: &str) {
        let event = match self.preset {
            Preset::ClaudeCode | Preset::Codex | Preset::GeminiCli | Preset::Opencode => {
                serde_json::from_str(line).ok()
            }
            Preset::Aider | Preset::MiniSweAgent | Preset::Acp => None,
        };
        let event: Value = match event {
            Some(event) => event,
            None => {
                if self.preset == Preset::Aider {
                    self.aider(line);
                }
                self.say(line);
                return;
            }
        };
        match self.preset {
            Preset::ClaudeCode => self.claude(&event),
            Preset::Codex => self.codex(&event),
            Preset::GeminiCli => self.gemini(&event),
            Preset::Opencode => self.opencode(&event),
            Preset::Aider | Preset::MiniSweAgent | Preset::Acp => {}
        }
    }

    fn claude(&mut self, event: &Value) {
        if event["type"] == "assistant" {
            self.used(Usage { calls: 1, unsaid: Unsaid { calls: false, ..Unsaid::ALL }, ..Usage::default() });
            for block in event["message"]["content"].as_array().into_iter().flatten() {
                match block["type"].as_str() {
                    Some("text") => self.say(block["text"].as_str().unwrap_or_default()),
                    Some("tool_use") => self.say(&format!("uses {}", block["name"].as_str().unwrap_or("a tool"))),
                    Some(_) | None => {}
                }
            }
        } else if event["type"] == "result" {
            let usage = &event["usage"];
            let cached = count(&usage["cache_read_input_tokens"]) + count(&usage["cache_creation_input_tokens"]);
            self.used(Usage {
                input_tokens: count(&usage["input_tokens"]).saturating_add(cached),
                output_tokens: count(&usage["output_tokens"]),
                cost_micros: micros(&event["total_cost_usd"]),
                calls: 0,
                // A result follows what was counted.
                unsaid: unsaid(&[&usage["input_tokens"], &usage["output_tokens"]], &event["total_cost_usd"]),
            });
            if event["is_error"] == true {
                let words = event["result"].as_str().or(event["subtype"].as_str()).unwrap_or("it failed");
                self.failed = Some(short(words));
            }
        }
    }

    fn codex(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("item.completed") => {
                let item = &event["item"];
                let words = item["text"].as_str().or(item["command"].as_str()).unwrap_or_default();
                self.say(&format!("{}: {words}", item["type"].as_str().unwrap_or("item")));
            }
            Some("turn.completed") => self.used(Usage {
                input_tokens: count(&event["usage"]["input_tokens"]),
                output_tokens: count(&event["usage"]["output_tokens"]),
                calls: 1,
                cost_micros: 0,
                unsaid: unsaid(&[&event["usage"]["input_tokens"], &event["usage"]["output_tokens"]], &Value::Null),
            }),
            Some("turn.failed") => self.failed = Some(short(event["error"]["message"].as_str().unwrap_or("it failed"))),
            Some("error") => self.say(event["message"].as_str().unwrap_or_default()),
            Some(_) | None => {}
        }
    }

    fn gemini(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("message") if event["role"] != "user" => self.say(event["content"].as_str().unwrap_or_default()),
            Some("tool_use") => self.say(&format!("uses {}", event["tool_name"].as_str().unwrap_or("a tool"))),
            Some("result") => {
                let stats = &event["stats"];
                self.used(Usage {
                    input_tokens: count(&stats["input_tokens"]),
                    output_tokens: count(&stats["output_tokens"]),
                    calls: 1,
                    cost_micros: 0,
                    unsaid: unsaid(&[&stats["input_tokens"], &stats["output_tokens"]], &Value::Null),
                });
                if event["status"] == "error" {
                    self.failed = Some(short(event["error"]["message"].as_str().unwrap_or("it failed")));
                }
            }
            Some(_) | None => {}
        }
    }

    fn opencode(&mut self, event: &Value) {
        let part = &event["part"];
        match event["type"].as_str() {
            Some("text") => self.say(part["text"].as_str().unwrap_or_default()),
            Some("tool_use") => self.say(&format!("uses {}", part["tool"].as_str().unwrap_or("a tool"))),
            Some("step_finish") => {
                let cache = &part["tokens"]["cache"];
                let cached = count(&cache["read"]).saturating_add(count(&cache["write"]));
                self.used(Usage {
                    input_tokens: count(&part["tokens"]["input"]).saturating_add(cached),
                    output_tokens: count(&part["tokens"]["output"]),
                    cost_micros: micros(&part["cost"]),
                    calls: 1,
                    unsaid: unsaid(&[&part["tokens"]["input"], &part["tokens"]["output"]], &part["cost"]),
                });
            }
            Some("error") => {
                let error = &event["error"];
                let words = error["data"]["message"].as_str().or(error["name"].as_str()).unwrap_or("it failed");
                self.failed = Some(short(words));
            }
            Some(_) | None => {}
        }
    }

    /// `Tokens: 1.2k sent, 300 received. Cost: ...`
    fn aider(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("Tokens: ") else { return };
        let unsaid = Unsaid { tokens: false, cost: true, calls: false };
        let mut usage = Usage { calls: 1, unsaid, ..Usage::default() };
        for part in rest.split(", ") {
            let mut words = part.split(' ');
            match (words.next().and_then(amount), words.next()) {
                (Some(tokens), Some("sent")) => usage.input_tokens = tokens,
                (Some(tokens), Some(word)) if word.starts_with("received") => usage.output_tokens = tokens,
                (_, _) => {}
            }
        }
        self.used(usage);
    }

    /// Reads the file that mini-swe-agent leaves.
    pub(super) fn trajectory(&mut self, bytes: &[u8]) {
        let Ok(all) = serde_json::from_slice::<Value>(bytes) else { return };
        let stats = &all["info"]["model_stats"];
        let mut usage = Usage {
            calls: count(&stats["api_calls"]),
            cost_micros: micros(&stats["instance_cost"]),
            ..Usage::default()
        };
        for message in all["messages"].as_array().into_iter().flatten() {
            let one = &message["extra"]["response"]["usage"];
            usage.input_tokens = usage.input_tokens.saturating_add(count(&one["prompt_tokens"]));
            usage.output_tokens = usage.output_tokens.saturating_add(count(&one["completion_tokens"]));
        }
        let messages = all["messages"].as_array().into_iter().flatten();
        let counted = messages.map(|message| &message["extra"]["response"]["usage"]["prompt_tokens"]);
        usage.unsaid = Unsaid {
            calls: stats["api_calls"].as_u64().is_none(),
            ..unsaid(&counted.collect::<Vec<_>>(), &stats["instance_cost"])
        };
        self.used(usage);
    }
}

/// What is not said, by whether there is a number.
fn unsaid(tokens: &[&Value], cost: &Value) -> Unsaid {
    Unsaid { tokens: tokens.iter().all(|count| count.as_u64().is_none()), cost: cost.as_f64().is_none(), calls: false }
}

fn short(words: &str) -> String {
    secret::redact(&words.chars().filter(|c| !c.is_control()).take(MOST_CHARS).collect::<String>())
}

fn count(value: &Value) -> u64 {
    // Far above what any model does, and far below what a sum could wrap at.
    value.as_u64().unwrap_or(0).min(1 << 40)
}

/// Dollars as millionths, rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was bounded just before")]
fn micros(value: &Value) -> u64 {
    let dollars = value.as_f64().filter(|dollars| dollars.is_finite()).unwrap_or(0.0);
    (dollars.clamp(0.0, 1e9) * 1e6).ceil() as u64
}

/// `1.2k`, `300`.
fn amount(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'M']) {
        Some(digits) => (digits, if text.ends_with('k') { 1e3 } else { 1e6 }),
        None => (text, 1.0),
    };
    let number: f64 = digits.replace(',', "").parse().ok()?;
    Some(micros(&serde_json::json!(number * unit)) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(preset: Preset, lines: &[&str]) -> (Vec<String>, Usage, Option<String>) {
        let mut transcript = Transcript::of(preset);
        lines.iter().for_each(|line| transcript.line(line));
        transcript.done()
    }

    #[test]
    fn each_agent_is_read_in_its_own_words() {
        let claude = [
            r#"{"type":"assistant","message":{"content":[{"type":"text","text":"hi"},{"type":"tool_use","name":"Write"}]}}"#,
            r#"{"type":"result","is_error":false,"total_cost_usd":0.0012,"usage":{"input_tokens":5,"output_tokens":7,"cache_read_input_tokens":3}}"#,
        ];
        let used = |input_tokens, output_tokens, cost_micros, calls| Usage {
            input_tokens,
            output_tokens,
            cost_micros,
            calls,
            unsaid: Unsaid { cost: cost_micros == 0, ..Unsaid::default() },
        };
        let (said, usage, failed) = read(Preset::ClaudeCode, &claude);
        assert_eq!((said, usage, failed), (vec!["hi".to_owned(), "uses Write".to_owned()], used(8, 7, 1200, 1), None));
        let codex =
            [r#"{"type":"turn.completed","usage":{"input_tokens":9,"cached_input_tokens":3,"output_tokens":4}}"#];
        assert_eq!(read(Preset::Codex, &codex).1, used(9, 4, 0, 1));
        let open = [
            r#"{"type":"step_finish","part":{"tokens":{"total":120,"input":100,"output":20,"cache":{"write":1,"read":2}},"cost":0.5}}"#,
        ];
        assert_eq!(read(Preset::Opencode, &open).1, used(103, 20, 500_000, 1));
        let gemini = [r#"{"type":"result","status":"success","stats":{"input_tokens":6,"output_tokens":2}}"#];
        assert_eq!(read(Preset::GeminiCli, &gemini).1, used(6, 2, 0, 1));
        let aider = ["Tokens: 1.2k sent, 300 received. Cost: $0.01 message."];
        assert_eq!(read(Preset::Aider, &aider).1, used(1200, 300, 0, 1));
        let mut mini = Transcript::of(Preset::MiniSweAgent);
        mini.trajectory(br#"{"info":{"model_stats":{"instance_cost":0.1,"api_calls":2}},"messages":[{"extra":{"response":{"usage":{"prompt_tokens":4,"completion_tokens":1}}}}]}"#);
        assert_eq!(mini.done().1, used(4, 1, 100_000, 2));
    }

    #[test]
    fn what_an_agent_does_not_say_is_unsaid() {
        let unsaid = |preset, lines: &[&str]| {
            let unsaid = read(preset, lines).1.unsaid;
            (unsaid.tokens, unsaid.cost, unsaid.calls)
        };
        let working = r#"{"type":"assistant","message":{"content":[]}}"#;
        assert_eq!(unsaid(Preset::ClaudeCode, &[]), (true, true, true));
        assert_eq!(unsaid(Preset::ClaudeCode, &[working]), (true, true, false), "killed before its end");
        let end = r#"{"type":"result","total_cost_usd":0,"usage":{"input_tokens":0}}"#;
        assert_eq!(unsaid(Preset::ClaudeCode, &[working, end]), (false, false, false), "nothing, but said");
        assert_eq!(unsaid(Preset::Codex, &[r#"{"type":"turn.completed"}"#]), (true, true, false));
        assert_eq!(unsaid(Preset::Aider, &["hello"]), (true, true, true));
        let mut never = Transcript::of(Preset::Aider);
        never.never_began();
        assert_eq!(never.done().1, Usage::default());
    }

    #[test]
    fn no_line_of_a_private_key_is_kept() {
        let (name, body) = (["PRIVATE", "KEY"].join(" "), "MIIEpAIBAAKCAQEA7bq8x9".repeat(3));
        let text = format!("one\n-----BEGIN {name}-----\n{body}\n-----END {name}-----\ntwo");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(read(Preset::Aider, &lines).0, ["one", "[private key]", "two"]);
    }

    #[test]
    fn rubbish_is_neither_believed_nor_kept_whole() {
        let hostile = [
            "{\"type\":\"result\",\"usage\":{\"input_tokens\":-5,\"output_tokens\":1e300},\"total_cost_usd\":-1}",
            "not json \u{1b}[31m AKIAQ3EGRIDTZ7VKS2WB",
            "{",
            "[]",
            "null",
        ];
        let (said, usage, _) = read(Preset::ClaudeCode, &hostile);
        assert_eq!((usage.tokens(), usage.cost_micros, usage.calls), (0, 0, 0));
        assert!(said.iter().all(|line| !line.contains('\u{1b}') && !line.contains("AKIAQ3EGRIDTZ7VKS2WB")), "{said:?}");
        let many: Vec<String> = (0..500).map(|n| format!("{n} {}", "x".repeat(1000))).collect();
        let lines: Vec<&str> = many.iter().map(String::as_str).collect();
        let (said, ..) = read(Preset::Aider, &lines);
        assert!(said.len() == MOST_LINES && said[0].starts_with("440 ") && said[0].len() == MOST_CHARS);
    }
}
