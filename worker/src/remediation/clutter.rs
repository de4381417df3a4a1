//! Mends `root_clutter`: each file is moved to the place the plan gives it, and every link from and to it follows.

use std::collections::BTreeMap;

use super::tree::Tree;
use super::{Draft, Edit, RemediationError, RemediationTask};
use crate::scan::names;

pub(super) fn draft(tree: &Tree, task: &RemediationTask) -> Result<Draft, RemediationError> {
    let mut draft = Draft::default();
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for file in &task.subjects {
        if !tree.has(file) || !names::is_clutter(file) {
            draft.note(file, "not a note or leftover in the root folder");
            continue;
        }
        match planned_place(tree, file, &task.scope) {
            Some(to) => {
                places.insert(file, to);
            }
            None => draft.note(file, "the place it was to go to is taken"),
        }
    }
    if places.is_empty() {
        return Ok(draft);
    }
    let moves = places.iter().map(|(from, to)| Edit::Move { from: (*from).to_owned(), to: (*to).to_owned() });
    draft.edits.extend(moves);
    let place = |name: &str| Some(places.get(name).copied().unwrap_or(name).to_owned());
    let moved = |link: &_| places.get(tree.reached(link)?).map(|to| (*to).to_owned());
    tree.relink_all(&mut draft, &place, &moved)?;
    Ok(draft)
}

/// The path of the scope that has this file's name, or the name with a number, and that nothing has yet.
fn planned_place<'a>(tree: &Tree, file: &str, scope: &'a [String]) -> Option<&'a str> {
    let (stem, end) = split(file);
    scope.iter().map(String::as_str).find(|path| {
        let (other, other_end) = split(names::base_name(path));
        let number = other.strip_prefix(stem).filter(|_| end == other_end);
        let fits = number.is_some_and(|rest| {
            let digits = rest.strip_prefix('-').unwrap_or_default();
            rest.is_empty() || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        });
        fits && path.contains('/') && !tree.root().exists(path)
    })
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}
