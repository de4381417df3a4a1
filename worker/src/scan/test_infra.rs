//! `test_infra_drift`: failures that a test run left behind: pytest's list of what failed last, and JUnit reports at
//! the places where runners write them.

use std::io;
use std::sync::LazyLock;

use regex::bytes::Regex;

use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::{DetectorError, sorted};
use super::facts::Facts;

const PYTEST: &str = ".pytest_cache/v/cache/lastfailed";
const JUNIT: [&str; 6] = [
    "junit.xml",
    "test-results.xml",
    "test-results/junit.xml",
    "reports/junit.xml",
    "target/nextest/default/junit.xml",
    "target/nextest/ci/junit.xml",
];
/// A report above this size is not one of those.
const MOST: u64 = 16 << 20;

static CASE: LazyLock<Regex> = LazyLock::new(|| {
    // A case that has a body, and what comes first in it; cases without a body passed.
    Regex::new(r#"(?s-u)<testcase\b([^>]*[^/>])>\s*<(failure|error)\b"#).expect("the expression is well formed")
});
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\bname\s*=\s*"([^"]*)""#).expect("the expression is well formed"));

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let mut tests = Vec::new();
    let mut files = Vec::new();
    if let Some(bytes) = read(facts, PYTEST)? {
        let failed: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|e| DetectorError(format!("{PYTEST}: {e}")))?;
        if !failed.is_empty() {
            files.push(PYTEST.to_owned());
        }
        tests.extend(failed.keys().cloned());
    }
    for place in JUNIT {
        let Some(bytes) = read(facts, place)? else {
            continue;
        };
        let before = tests.len();
        tests.extend(CASE.captures_iter(&bytes).map(|case| {
            let attributes = case.get(1).map_or(&b""[..], |m| m.as_bytes());
            let name = NAME.captures(attributes).and_then(|n| n.get(1));
            name.map_or_else(|| "?".to_owned(), |n| String::from_utf8_lossy(n.as_bytes()).into_owned())
        }));
        if tests.len() > before {
            files.push(place.to_owned());
        }
    }
    let tests = sorted(tests);
    Ok(if tests.is_empty() { Vec::new() } else { vec![gap(tests, files)] })
}

fn gap(mut tests: Vec<String>, files: Vec<String>) -> Gap {
    let mut gap = Gap::new(GapType::TestInfraDrift, RiskClass::High, &tests);
    gap.title = Some(format!("{} test(s) failed in the last run", tests.len()));
    gap.detection_signals = vec![format!("last_failed: {}", tests.len())];
    gap.safe_remediation.approach = Some("Run the tests again and mend what fails.".to_owned());
    gap.safe_remediation.estimated_actions = Some(tests.len() as u64);
    tests.truncate(10);
    gap.evidence.test_names = tests;
    gap.evidence.file_paths = files;
    gap
}

fn read(facts: &Facts<'_>, path: &str) -> Result<Option<Vec<u8>>, DetectorError> {
    match facts.tree.read(path, MOST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(DetectorError(format!("{path}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_cases_are_told_from_passing_ones() {
        let xml = br#"<testsuite><testcase name="a" time="1"/><testcase name="b"><system-out>x</system-out></testcase>
            <testcase classname="m" name="c"><failure message="no">..</failure></testcase><testcase name="d"></testcase>
            <testcase name="e">
              <error/></testcase></testsuite>"#;
        let names: Vec<_> = CASE
            .captures_iter(xml)
            .filter_map(|c| NAME.captures(c.get(1)?.as_bytes()).map(|n| String::from_utf8_lossy(&n[1]).into_owned()))
            .collect();
        assert_eq!(names, ["c", "e"]);
    }
}
