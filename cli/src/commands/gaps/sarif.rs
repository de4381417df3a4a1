//! A gap report as a SARIF 2.1.0 log, the form that code hosts and editors read.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use autopack_shared::domain::gap::{Gap, GapReportV1, RiskClass};

/// The log of a report.
pub(crate) fn log(report: &GapReportV1) -> Value {
    let kinds: BTreeSet<_> = report.gaps.iter().map(|gap| gap.gap_type).collect();
    let rules: Vec<Value> = kinds.iter().map(|kind| json!({ "id": kind.as_str(), "name": kind.as_str() })).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "autopack", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": report.gaps.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn result(gap: &Gap) -> Value {
    let text = gap.description.as_deref().or(gap.title.as_deref()).unwrap_or(gap.gap_type.as_str());
    let location = |path: &String| json!({ "physicalLocation": { "artifactLocation": { "uri": uri(path) } } });
    json!({
        "ruleId": gap.gap_type.as_str(),
        "level": level(gap.risk_classification),
        "message": { "text": text },
        "locations": gap.evidence.file_paths.iter().map(location).collect::<Vec<_>>(),
        "partialFingerprints": { "gapId/v1": gap.gap_id },
        "properties": { "blocksAutopilot": gap.blocks_autopilot, "signals": gap.detection_signals },
    })
}

const fn level(class: RiskClass) -> &'static str {
    match class {
        RiskClass::Critical | RiskClass::High => "error",
        RiskClass::Medium => "warning",
        RiskClass::Low | RiskClass::Info => "note",
    }
}

/// A path as a relative URI: everything that is not plainly allowed is percent-encoded.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~');
    path.bytes().fold(String::with_capacity(path.len()), |mut uri, byte| {
        if plain(byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
        uri
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri() {
        assert_eq!(uri("docs/a b#c.md"), "docs/a%20b%23c.md");
        assert_eq!(uri("ä"), "%C3%A4");
    }
}
