//! Mends `sot_duplicate`: copies that are still equal to the document that stays are removed, and links to them lead
//! to it from then on. The first subject stays.

use super::tree::Tree;
use super::{Draft, Edit, RemediationError, RemediationTask};

pub(super) fn draft(tree: &Tree, task: &RemediationTask) -> Result<Draft, RemediationError> {
    let mut draft = Draft::default();
    let Some((kept, copies)) = task.subjects.split_first().filter(|(kept, _)| tree.has(kept)) else {
        draft.notes.push("the document that was to stay is gone".to_owned());
        return Ok(draft);
    };
    let original = tree.read(kept)?;
    let mut gone: Vec<&str> = Vec::new();
    for copy in copies.iter().filter(|copy| *copy != kept) {
        if !tree.has(copy) {
            draft.note(copy, "already gone");
        } else if tree.read(copy)? != original {
            draft.note(copy, "no longer equal to the document that stays");
        } else {
            gone.push(copy);
        }
    }
    if gone.is_empty() {
        return Ok(draft);
    }
    let place = |name: &str| (!gone.contains(&name)).then(|| name.to_owned());
    let moved = |link: &_| tree.reached(link).filter(|name| gone.contains(name)).map(|_| kept.clone());
    tree.relink_all(&mut draft, &place, &moved)?;
    draft.edits.extend(gone.iter().map(|path| Edit::Remove { path: (*path).to_owned() }));
    Ok(draft)
}
