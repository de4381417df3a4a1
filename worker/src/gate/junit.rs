//! JUnit XML as test tools write it: cargo-nextest, pytest, and whatever else speaks it. The file comes from patched
//! code, so nothing in it is expanded, fetched or followed: a document type is refused, entities beside the five of XML
//! are too, and depth, size and counts are bounded. What is not understood is refused, never skipped.

use std::collections::BTreeMap;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use autopack_shared::domain::gate::{MAX_TEXT, TestResult, TestState};

use super::name_of;

/// How deep elements may stand.
const MAX_DEPTH: usize = 32;

/// Elements of a report.
const MAX_ELEMENTS: usize = 1_000_000;

/// Attributes of one element.
const MAX_ATTRIBUTES: usize = 32;

/// Tests of a report.
pub(super) const MAX_TESTS: usize = 50_000;

/// What an element means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `testsuites`, or a suite.
    Suite,
    /// A test.
    Case,
    /// `failure` or `error`.
    Failure,
    /// `skipped`.
    Skipped,
    /// Anything else: output, properties, reruns of a flaky test.
    Other,
}

/// A test that is being read.
#[derive(Debug)]
struct Case {
    name: String,
    state: TestState,
    message: String,
}

/// An element that is open.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// A suite's name.
    name: String,
}

#[derive(Debug, Default)]
struct Reading {
    open: Vec<Open>,
    case: Option<Case>,
    tests: BTreeMap<String, TestResult>,
    /// What the outermost element says of failures and errors.
    declared: u64,
    rooted: bool,
}

/// Reads a report.
///
/// # Errors
/// Why it cannot be used, as the end of a sentence that begins with "the report".
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, TestResult>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut reading = Reading::default();
    for _ in 0..MAX_ELEMENTS {
        let event = reader.read_event().map_err(|e| format!("is no XML: {e} at byte {}", reader.error_position()))?;
        match event {
            Event::Start(element) => reading.begin(&element)?,
            Event::Empty(element) => {
                reading.begin(&element)?;
                reading.end()?;
            }
            Event::End(_) => reading.end()?,
            Event::Text(text) => reading.text(&text.xml10_content())?,
            Event::CData(text) => reading.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let name = reference.xml10_content();
                let resolved = quick_xml::escape::unescape(&format!("&{name};")).map(std::borrow::Cow::into_owned);
                reading.text(&resolved.map_err(|_| "has an entity that XML does not know".to_owned())?)?;
            }
            Event::DocType(_) => return Err("has a document type, which is refused".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return reading.finish(),
        }
    }
    Err(format!("has more than {MAX_ELEMENTS} elements"))
}

impl Reading {
    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("is nested more than {MAX_DEPTH} deep"));
        }
        let attributes = attributes(element)?;
        let attribute = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
        let parent = self.open.last().map(|open| open.kind);
        let kind = match (element.name().as_ref(), parent) {
            ("testsuites" | "testrun" | "testsuite", None) if !self.rooted => {
                self.rooted = true;
                let number = |name| attribute(name).trim().parse().unwrap_or(0_u64);
                self.declared = number("failures").saturating_add(number("errors"));
                Kind::Suite
            }
            (_, None) => return Err("is not one <testsuites> or <testsuite>".to_owned()),
            ("testsuite", Some(Kind::Suite)) => Kind::Suite,
            ("testcase", Some(Kind::Suite)) => {
                self.case = Some(self.case_of(attribute("name"), attribute("classname"), attribute("status"))?);
                Kind::Case
            }
            ("failure" | "error", Some(Kind::Suite)) => {
                // Some tools put the failure of a suite's set-up beside its tests.
                let suite = self.suite();
                self.add(Case { name: suite, state: TestState::Failed, message: attribute("message").to_owned() })?;
                Kind::Other
            }
            ("failure" | "error", Some(Kind::Case)) => {
                self.mark(TestState::Failed, attribute("message"));
                Kind::Failure
            }
            ("skipped" | "disabled", Some(Kind::Case)) => {
                self.mark(TestState::Skipped, "");
                Kind::Skipped
            }
            ("testsuites" | "testsuite" | "testcase", Some(_)) => {
                return Err("has a test where none can be".to_owned());
            }
            (_, Some(_)) => Kind::Other,
        };
        self.open.push(Open { kind, name: attribute("name").to_owned() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(open) = self.open.pop() else { return Err("ends what it did not begin".to_owned()) };
        match (open.kind, self.case.take_if(|_| open.kind == Kind::Case)) {
            (Kind::Case, Some(case)) => self.add(case),
            (Kind::Suite | Kind::Case | Kind::Failure | Kind::Skipped | Kind::Other, _) => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match (self.open.last().map(|open| open.kind), &mut self.case) {
            (Some(Kind::Failure), Some(case)) => {
                let room = MAX_TEXT.saturating_sub(case.message.chars().count());
                case.message.extend(text.chars().take(room));
            }
            (None, _) if !text.trim().is_empty() => return Err("has text outside of its elements".to_owned()),
            (Some(_) | None, _) => {}
        }
        Ok(())
    }

    fn suite(&self) -> String {
        let names = self.open.iter().rev().find(|open| open.kind == Kind::Suite && !open.name.is_empty());
        names.map_or_else(|| "suite".to_owned(), |open| open.name.clone())
    }

    fn case_of(&self, name: &str, class: &str, status: &str) -> Result<Case, String> {
        if name.is_empty() {
            return Err("has a test without a name".to_owned());
        }
        let class = if class.is_empty() { self.suite() } else { class.to_owned() };
        let state = if status == "notrun" { TestState::Skipped } else { TestState::Passed };
        Ok(Case { name: format!("{class}::{name}"), state, message: String::new() })
    }

    /// A failure counts, whatever else is said of the same test.
    fn mark(&mut self, state: TestState, message: &str) {
        let Some(case) = &mut self.case else { return };
        if case.state != TestState::Failed {
            case.state = state;
        }
        if state == TestState::Failed && case.message.is_empty() && !message.is_empty() {
            case.message = message.chars().take(MAX_TEXT).chain(std::iter::once('\n')).collect();
        }
    }

    fn add(&mut self, case: Case) -> Result<(), String> {
        if self.tests.len() >= MAX_TESTS {
            return Err(format!("has more than {MAX_TESTS} tests"));
        }
        let result = TestResult { state: case.state, message: case.message };
        super::merge(&mut self.tests, name_of(&case.name), result);
        Ok(())
    }

    fn finish(self) -> Result<BTreeMap<String, TestResult>, String> {
        if !self.open.is_empty() || !self.rooted {
            return Err("ends in the middle".to_owned());
        }
        let failed = self.tests.values().any(|test| test.state == TestState::Failed);
        if self.declared > 0 && !failed {
            return Err(format!("counts {} failures and shows none", self.declared));
        }
        Ok(self.tests)
    }
}

fn attributes(element: &BytesStart<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    // Names are compared here: the reader's own check takes long on an element of many.
    for attribute in element.attributes().with_checks(false) {
        let attribute = attribute.map_err(|e| format!("is no XML: {e}"))?;
        if found.len() >= MAX_ATTRIBUTES {
            return Err(format!("has an element of more than {MAX_ATTRIBUTES} attributes"));
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|_| "has an attribute that is no XML".to_owned())?;
        if found.insert(attribute.key.as_ref().to_owned(), value.into_owned()).is_some() {
            return Err("has an attribute twice".to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
