//! Mends `doc_drift`: a relative link to nothing is pointed to the only file of that name.

use super::tree::Tree;
use super::{Draft, RemediationError, RemediationTask};
use crate::scan::links::{self, Meaning};
use crate::scan::names;

pub(super) fn draft(tree: &Tree, task: &RemediationTask) -> Result<Draft, RemediationError> {
    let mut draft = Draft::default();
    for file in &task.subjects {
        if !tree.has(file) || !names::is_markdown(file) {
            draft.note(file, "not a Markdown file of the tree");
            continue;
        }
        let bytes = tree.read(file)?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            draft.note(file, "not UTF-8");
            continue;
        };
        let listing = tree.listing();
        let meant = |link: &Meaning| {
            let broken = !link.folder && listing.find(&link.path).is_none();
            broken.then(|| listing.only_namesake(file, &link.path)).flatten().map(str::to_owned)
        };
        match links::relink(text, file, file, &meant) {
            Some(new) => draft.write(file, new.into_bytes()),
            None => draft.note(file, "no broken link with a certain target"),
        }
    }
    Ok(draft)
}
