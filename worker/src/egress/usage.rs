//! What a model's answer says of the tokens that it took, read as it passes: a few names are looked for, and nothing is kept
//! but the last bytes.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// The names, and what each counts: tokens in, tokens in from a cache or into it, tokens out.
const NAMES: [(&str, usize); 10] = [
    ("\"prompt_tokens\":", 0),
    ("\"input_tokens\":", 0),
    ("\"promptTokenCount\":", 0),
    ("\"prompt_eval_count\":", 0),
    ("\"cache_read_input_tokens\":", 1),
    ("\"cache_creation_input_tokens\":", 2),
    ("\"completion_tokens\":", 3),
    ("\"output_tokens\":", 3),
    ("\"candidatesTokenCount\":", 3),
    ("\"eval_count\":", 3),
];

/// Bytes that are looked at again with the next ones: a name and its number.
const CARRY: usize = 64;

/// No call takes more.
const MOST: u64 = 1 << 40;

static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(NAMES.map(|(name, _)| name)).ok());

/// Looks at one answer.
#[derive(Debug, Default)]
pub(super) struct Tap {
    carry: Vec<u8>,
    counts: [u64; 4],
    said: bool,
    events: u64,
    bytes: u64,
}

impl Tap {
    /// Looks at the next bytes.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let held = self.carry.len();
        let text = [&self.carry[..], bytes].concat();
        self.events += memchr::memmem::find_iter(&text, b"data:").filter(|at| at + 5 > held).count() as u64;
        for found in FINDER.iter().flat_map(|finder| finder.find_iter(&text)) {
            if let Some(number) = number(&text[found.end()..]) {
                let (_, slot) = NAMES[found.pattern().as_usize()];
                self.counts[slot] = self.counts[slot].max(number);
                self.said = true;
            }
        }
        self.carry = text[text.len().saturating_sub(CARRY)..].to_vec();
    }

    /// Tokens in and out; for an answer that does not say, about as many as there were bytes asked, and pieces answered.
    pub(super) fn tokens(&self, asked: u64) -> (u64, u64) {
        let [input, read, written, output] = self.counts;
        if self.said {
            return (input + read + written, output);
        }
        let out = if self.events > 0 { self.events } else { self.bytes.div_ceil(3) };
        (asked.div_ceil(3), out)
    }
}

/// The number at the start of a text.
fn number(text: &[u8]) -> Option<u64> {
    let digits: Vec<u8> =
        text.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit()).copied().collect();
    std::str::from_utf8(&digits).ok()?.parse::<u64>().ok().map(|number| number.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> (u64, u64) {
        let mut tap = Tap::default();
        pieces.iter().for_each(|piece| tap.look(piece.as_bytes()));
        tap.tokens(300)
    }

    #[test]
    fn usage_is_read_in_every_provider_s_words() {
        assert_eq!(read(&[r#"{"usage":{"prompt_tokens":100,"completion_tokens": 20,"total_tokens":120}}"#]), (100, 20));
        let anthropic = [
            "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":7,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n",
            "event: message_delta\ndata: {\"usage\":{\"output_tokens\":42}}\n\n",
        ];
        assert_eq!(read(&anthropic), (10, 42));
        assert_eq!(read(&[r#"{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":6}}"#]), (5, 6));
        assert_eq!(read(&[r#"{"prompt_eval_count":8,"eval_count":9}"#]), (8, 9));
    }

    #[test]
    fn it_does_not_matter_how_an_answer_is_cut() {
        let text = r#"data: {"usage":{"prompt_tokens":12345,"completion_tokens":678}}"#;
        for at in 0..text.len() {
            assert_eq!(read(&[&text[..at], &text[at..]]), (12_345, 678), "{at}");
        }
        let each: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(read(&each.iter().map(String::as_str).collect::<Vec<_>>()), (12_345, 678));
    }

    #[test]
    fn what_a_model_says_about_tokens_is_not_its_usage() {
        assert_eq!(read(&[r#"{"content":"\"output_tokens\": 9"}"#]).0, 100, "it did not say");
        assert_eq!(read(&["data: {}\n\n", "data: {}\n\nda", "ta: [DONE]\n\n"]), (100, 3));
        assert_eq!(read(&[]), (100, 0));
    }
}
