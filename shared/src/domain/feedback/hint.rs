//! Path hints: for each deliverable that is missing, the written path that was probably meant to be it.

/// How unlike two paths may be, in hundredths of the longer one.
const UNLIKE: usize = 40;
/// Paths that are compared: more are not looked at.
const MOST: usize = 2000;

/// One line for each missing deliverable: where something like it was written, that is named.
#[must_use]
pub fn hints(missing: &[String], written: &[String]) -> Vec<String> {
    missing.iter().map(|wanted| hint(wanted, written)).collect()
}

fn hint(wanted: &str, written: &[String]) -> String {
    match likeliest(wanted, written) {
        Some(path) => format!("you wrote {path}, the deliverable is {wanted}"),
        None => format!("{wanted} was not written"),
    }
}

/// The written path that is most like the wanted one, if one is like it at all.
fn likeliest<'a>(wanted: &str, written: &'a [String]) -> Option<&'a str> {
    let candidates = written.iter().take(MOST).map(String::as_str).filter(|path| *path != wanted);
    let scored = candidates.filter_map(|path| distance(wanted, path).map(|distance| (distance, path)));
    scored.min().map(|(_, path)| path)
}

/// How unlike two paths are, from 0; none where they have nothing to do with each other.
fn distance(wanted: &str, path: &str) -> Option<usize> {
    let (low, other) = (wanted.trim_end_matches('/').to_lowercase(), path.to_lowercase());
    if low == other {
        return Some(0);
    }
    let (name, found) = (last(&low), last(&other));
    // The right file in the wrong folder.
    if name == found {
        return Some(1);
    }
    // The right name with another ending, in the right folder.
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    if stem(name) == stem(found) && folder(&low) == folder(&other) {
        return Some(2);
    }
    let longest = low.chars().count().max(other.chars().count());
    let edits = edits(&low, &other, longest * UNLIKE / 100)?;
    Some(3 + edits)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The Levenshtein distance, if it is at most `most`.
fn edits(a: &str, b: &str, most: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().collect();
    if a.chars().count().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
        if row.iter().all(|edits| *edits > most) {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_was_meant_is_named() {
        for (wanted, written, expected) in [
            ("src/foo.py", vec!["src/Foo.py"], "you wrote src/Foo.py, the deliverable is src/foo.py"),
            ("src/foo.py", vec!["foo.py", "src/far.py"], "you wrote foo.py, the deliverable is src/foo.py"),
            ("docs/guide.md", vec!["docs/guide.rst"], "you wrote docs/guide.rst, the deliverable is docs/guide.md"),
            (
                "src/parser.rs",
                vec!["src/praser.rs", "README.md"],
                "you wrote src/praser.rs, the deliverable is src/parser.rs",
            ),
            ("src/foo.py", vec!["README.md", "tests/everything_else.rs"], "src/foo.py was not written"),
            ("src/foo.py", vec![], "src/foo.py was not written"),
            ("docs/", vec!["Docs"], "you wrote Docs, the deliverable is docs/"),
        ] {
            let written: Vec<String> = written.into_iter().map(str::to_owned).collect();
            assert_eq!(hints(&[wanted.to_owned()], &written), [expected]);
        }
    }

    #[test]
    fn the_closest_wins_and_ties_go_by_name() {
        let written = ["x/foo.py", "a/foo.py", "src/foo.pyi", "src/FOO.py"].map(str::to_owned);
        assert_eq!(likeliest("src/foo.py", &written), Some("src/FOO.py"));
        assert_eq!(likeliest("src/foo.py", &written[..3]), Some("a/foo.py"));
    }
}
