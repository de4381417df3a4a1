//! Mends `windows_encoding_issue`: the same text, line ends included, as UTF-8 without a mark.

use super::tree::Tree;
use super::{Draft, RemediationError, RemediationTask};
use crate::scan::charset;

pub(super) fn draft(tree: &Tree, task: &RemediationTask) -> Result<Draft, RemediationError> {
    let mut draft = Draft::default();
    for file in &task.subjects {
        if !tree.has(file) {
            draft.note(file, "not a file of the tree");
            continue;
        }
        let bytes = tree.read(file)?;
        if std::str::from_utf8(&bytes).is_ok() {
            draft.note(file, "already UTF-8");
            continue;
        }
        match charset::decode(&bytes) {
            Ok((text, from)) => {
                draft.write(file, text.into_bytes());
                draft.note(file, &format!("was {from}"));
            }
            Err(why) => draft.note(file, why),
        }
    }
    Ok(draft)
}
