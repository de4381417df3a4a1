//! The folders that the list's patterns lead into by their paths.

use globset::{GlobBuilder, GlobMatcher};

/// The folders of each pattern that has any, from the root.
#[derive(Debug)]
pub(super) struct Ways(Vec<Vec<Part>>);

#[derive(Debug)]
enum Part {
    Name(Box<GlobMatcher>),
    /// `**`: every folder below.
    All,
}

impl Ways {
    /// Reads the list, in the words of a `.gitignore`.
    pub(super) fn read(list: &[u8]) -> Self {
        let text = String::from_utf8_lossy(list);
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_end);
        Self(lines.filter(|line| !line.starts_with(['#', '!'])).filter_map(way).collect())
    }

    /// Whether a pattern names something below a folder.
    pub(super) fn lead_into(&self, folder: &[u8]) -> bool {
        let folder = String::from_utf8_lossy(folder);
        self.0.iter().any(|way| leads(way, &folder))
    }
}

/// None for a pattern that is matched at any depth, or is no pattern.
fn way(line: &str) -> Option<Vec<Part>> {
    let line = line.strip_prefix('/').unwrap_or(line).trim_end_matches('/');
    let (folders, _last) = line.rsplit_once('/')?;
    if folders.starts_with("**") {
        return None;
    }
    folders.split('/').map(part).collect()
}

fn part(text: &str) -> Option<Part> {
    if text == "**" {
        return Some(Part::All);
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build().ok()?;
    Some(Part::Name(Box::new(glob.compile_matcher())))
}

fn leads(way: &[Part], folder: &str) -> bool {
    let mut parts = way.iter();
    for name in folder.split('/') {
        match parts.next() {
            Some(Part::All) => return true,
            Some(Part::Name(glob)) if glob.is_match(name) => {}
            Some(Part::Name(_)) | None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_leads_into_the_folders_of_its_path() {
        let list = b"# c/d\n.env\n*.key\nlocal/conf\n/a/b*/c.txt\n!x/y\ndeep/**/z\n**/any/z\ntop/\n";
        let ways = Ways::read(list);
        for folder in ["local", "a", "a/b1", "deep", "deep/one/two"] {
            assert!(ways.lead_into(folder.as_bytes()), "{folder}");
        }
        for folder in ["c", "x", "target", "local/conf", "local/else", "a/c", "a/b1/c", "any", "q/any", "top"] {
            assert!(!ways.lead_into(folder.as_bytes()), "{folder}");
        }
    }
}
