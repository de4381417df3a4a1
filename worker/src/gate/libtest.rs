//! What `cargo test` prints, as people read it: the machine-readable form is not stable. A line for each test and a sum
//! for each binary; where the two differ, the report is refused. Which binary it is, is not said there: a name that
//! several have is numbered in their order, which is always the same, so that none stands for another.

use std::collections::BTreeMap;

use autopack_shared::domain::gate::{MAX_TEXT, TestResult, TestState};

use super::junit::MAX_TESTS;
use super::name_of;

#[derive(Debug, Default)]
struct Reading {
    tests: BTreeMap<String, TestResult>,
    /// How often each name was met.
    met: BTreeMap<String, u64>,
    /// The tests of this binary: what each is called in the report.
    binary: BTreeMap<String, String>,
    /// Results since the last sum: passed, failed, ignored.
    counts: [u64; 3],
    sums: usize,
    /// The test whose output is being read.
    speaking: Option<String>,
    messages: BTreeMap<String, String>,
}

/// Reads the standard output of `cargo test`.
///
/// # Errors
/// Why it cannot be used, as the end of a sentence that begins with "the report".
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, TestResult>, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut reading = Reading::default();
    for line in text.lines() {
        reading.line(line)?;
    }
    reading.finish()
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.speaking = None;
            return self.sum(rest);
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.speaking = Some(self.binary.get(name).cloned().unwrap_or_else(|| name_of(name)));
            return Ok(());
        }
        if line == "failures:" || line == "successes:" {
            self.speaking = None;
            return Ok(());
        }
        if let Some(name) = &self.speaking {
            let message = self.messages.entry(name.clone()).or_default();
            let room = MAX_TEXT.saturating_sub(message.chars().count());
            if room > 0 && !line.trim().is_empty() {
                message.extend(line.chars().chain(std::iter::once('\n')).take(room));
            }
            return Ok(());
        }
        match line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            Some((name, word)) => self.test(name, word),
            None => Ok(()),
        }
    }

    fn test(&mut self, name: &str, word: &str) -> Result<(), String> {
        let word = word.trim();
        let (at, state) = match word.split([' ', ',', '(']).next().unwrap_or_default() {
            "ok" => (0, TestState::Passed),
            "FAILED" => (1, TestState::Failed),
            "ignored" => (2, TestState::Skipped),
            // A benchmark, or something that a test printed.
            _ => return Ok(()),
        };
        if self.tests.len() >= MAX_TESTS {
            return Err(format!("has more than {MAX_TESTS} tests"));
        }
        self.counts[at] += 1;
        let name = name.strip_suffix(" - should panic").unwrap_or(name);
        let met = self.met.entry(name.to_owned()).or_default();
        *met += 1;
        let called = if *met == 1 { name_of(name) } else { name_of(&format!("{name} #{met}")) };
        self.binary.insert(name.to_owned(), called.clone());
        super::merge(&mut self.tests, called, TestResult { state, message: String::new() });
        Ok(())
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`
    fn sum(&mut self, rest: &str) -> Result<(), String> {
        let number = |what: &str| {
            let parts = rest.split(['.', ';']).map(str::trim);
            parts.filter_map(|part| part.strip_suffix(what)).find_map(|n| n.trim().parse::<u64>().ok())
        };
        let declared = [number(" passed"), number(" failed"), number(" ignored")];
        if declared != self.counts.map(Some) {
            let [passed, failed, ignored] = self.counts;
            return Err(format!(
                "shows {passed} passed, {failed} failed, {ignored} ignored, and its sum is {rest:.80}"
            ));
        }
        self.counts = [0; 3];
        self.binary.clear();
        self.sums += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<BTreeMap<String, TestResult>, String> {
        if self.sums == 0 || self.counts != [0; 3] {
            return Err("ends in the middle: it has no sum".to_owned());
        }
        for (name, message) in std::mem::take(&mut self.messages) {
            if let Some(test) = self.tests.get_mut(&name).filter(|test| test.state == TestState::Failed) {
                test.message = message;
            }
        }
        Ok(self.tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 4 tests\ntest a::works ... ok\ntest a::panics - should panic ... ok\n\
        test b ... FAILED\ntest c ... ignored, takes long\n\nfailures:\n\n---- b stdout ----\n\n\
        thread 'b' (7) panicked at src/lib.rs:3:5:\nassertion failed: 1 == 2\n\n\nfailures:\n    b\n\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn what_cargo_test_prints_is_read() {
        let tests = read(OUTPUT.as_bytes()).unwrap();
        let states: Vec<_> = tests.iter().map(|(name, test)| (name.as_str(), test.state)).collect();
        let (passed, failed, skipped) = (TestState::Passed, TestState::Failed, TestState::Skipped);
        assert_eq!(states, [("a::panics", passed), ("a::works", passed), ("b", failed), ("c", skipped)]);
        assert!(tests["b"].message.starts_with("thread 'b' (7) panicked at src/lib.rs:3:5:\nassertion"));
    }

    #[test]
    fn a_name_that_several_binaries_have_is_numbered() {
        let (passed, failed) = (TestState::Passed, TestState::Failed);
        let other = OUTPUT.replace("test b ... FAILED", "test b ... ok").replace("2 passed; 1", "3 passed; 0");
        let one = |text: &str, name: &str| read(text.as_bytes()).unwrap()[name].clone();
        let (first, second) = ([OUTPUT, &other].concat(), [&other, OUTPUT].concat());
        assert_eq!((one(&first, "b").state, one(&first, "b #2").state), (failed, passed));
        assert_eq!((one(&second, "b").state, one(&second, "b #2").state), (passed, failed));
        assert!(one(&second, "b #2").message.contains("1 == 2") && one(&second, "b").message.is_empty());
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused() {
        for (text, why) in [
            ("", "it has no sum"),
            ("test a ... ok\n", "it has no sum"),
            ("test a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored;\n", "its sum is"),
            ("test result: ok. 1 passed; 0 failed; 0 ignored;\n", "its sum is"),
            ("test a ... ok\ntest result: nonsense\n", "its sum is"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
