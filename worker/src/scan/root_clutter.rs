//! `root_clutter`: notes and leftovers in the root folder. Documents that belong there by custom, files that tools
//! read, and files that code or configuration mentions stay.

use std::collections::BTreeSet;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::{DetectorError, list, sorted};
use super::facts::Facts;
use super::listing::{Found, Listing};
use super::{names, sot_duplicate};

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let listing = facts.listing()?;
    let used: BTreeSet<&str> =
        facts.contents.values().flat_map(|c| &c.mentions).map(|number| facts.mentions.name(*number)).collect();
    let surplus = sot_duplicate::surplus(facts, listing);
    let clutter: Vec<String> = listing
        .entries()
        .iter()
        .filter(|e| e.regular && e.raw.is_none() && names::is_clutter(&e.name))
        // A copy that is to be removed need not be moved first.
        .filter(|e| !surplus.contains(e.name.as_str()))
        .filter(|e| !used.contains(e.name.as_str()) && facts.concerns(&e.name))
        .map(|e| e.name.clone())
        .collect();
    if clutter.is_empty() {
        return Ok(Vec::new());
    }
    let mut gap = Gap::new(GapType::RootClutter, RiskClass::Medium, &clutter);
    gap.title = Some(format!("{} note(s) or leftover(s) lie in the root folder", clutter.len()));
    gap.detection_signals = vec![format!("root_files: {}", clutter.len())];
    list(&mut gap, clutter, facts.options.limits.targets);
    let moved = &gap.evidence.file_paths;
    let folder = notes_folder(facts.options.anchor.as_ref());
    let mut targets = moved.clone();
    targets.extend(moved.iter().map(|name| free_name(listing, &folder, name)));
    targets.extend(linking(facts, listing, moved));
    gap.safe_remediation.approach =
        Some(format!("Move them to {folder}/ and follow with every link from and to them."));
    gap.safe_remediation.estimated_actions = Some(moved.len() as u64);
    gap.safe_remediation.target_paths = Some(sorted(targets));
    Ok(vec![gap])
}

/// Documents with links to one of these files.
pub(super) fn linking(facts: &Facts<'_>, listing: &Listing, files: &[String]) -> Vec<String> {
    let hits = |target: &str| match listing.find(target) {
        Some(Found::File(name)) => files.iter().any(|f| f == name),
        Some(Found::Other) | None => false,
    };
    let linking = facts.contents.iter().filter(|(_, c)| c.links.iter().any(|l| hits(&l.target)));
    linking.map(|(name, _)| name.clone()).collect()
}

/// Where notes go: an allowed write root of the anchor that is meant for documents, else `docs/notes`.
fn notes_folder(anchor: Option<&IntentionAnchorV2>) -> String {
    let roots = anchor.map_or(&[][..], IntentionAnchorV2::allowed_write_roots);
    let plain = roots.iter().filter_map(|root| {
        let root = root.strip_suffix("/**").unwrap_or(root).trim_end_matches('/');
        let odd = root.starts_with('/') || root.contains(['*', '?', '[', '{', '\\']);
        let odd = odd || root.split('/').any(|part| part.is_empty() || part.starts_with('.'));
        (!odd).then_some(root)
    });
    for root in plain {
        match names::base_name(root).to_ascii_lowercase().as_str() {
            "notes" => return root.to_owned(),
            "doc" | "docs" | "documentation" => return format!("{root}/notes"),
            _ => {}
        }
    }
    "docs/notes".to_owned()
}

/// A name in the folder that nothing has yet, also where case does not count.
fn free_name(listing: &Listing, folder: &str, name: &str) -> String {
    let taken = |path: &str| {
        let path = path.to_lowercase();
        listing.entries().iter().any(|e| e.name.to_lowercase() == path)
    };
    let (stem, end) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
    let numbered = (2_u32..).map(|n| format!("{folder}/{stem}-{n}{end}"));
    let mut all = std::iter::once(format!("{folder}/{name}")).chain(numbered);
    all.find(|path| !taken(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use autopack_shared::repo::status::{Change, ChangeKind};

    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let change = |p: &str| Change { path: p.as_bytes().to_owned(), kind: ChangeKind::Untracked, regular: true };
        let listing = Listing::new(&[], &[change("docs/notes/PLAN.md"), change("docs/notes/plan-2.md")]);
        assert_eq!(free_name(&listing, "docs/notes", "plan.md"), "docs/notes/plan-3.md");
        assert_eq!(free_name(&listing, "docs/notes", "other"), "docs/notes/other");
    }

    #[test]
    fn notes_go_where_documents_may_be_written() {
        let anchor = |roots: &str| {
            let text = format!(
                r#"{{"format_version":"v2","project_id":"p","created_at":"2026-01-01T00:00:00Z","raw_input_digest":"0123456789abcdef",
                "pivot_intentions":{{"scope_boundaries":{{"allowed_write_roots":{roots}}}}}}}"#
            );
            IntentionAnchorV2::parse(&text).unwrap()
        };
        let folder = |roots: &str| notes_folder(Some(&anchor(roots)));
        assert_eq!(folder(r#"["src/","website/docs/**"]"#), "website/docs/notes");
        assert_eq!(folder(r#"["notes"]"#), "notes");
        assert_eq!(folder(r#"["src","*/docs"]"#), "docs/notes");
        assert_eq!(notes_folder(None), "docs/notes");
    }
}
