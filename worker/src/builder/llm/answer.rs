//! Reads what a model wrote, strictly: one of two forms, each with one spelling. Nothing is repaired or guessed; what is
//! wrong is named so that the next attempt can do it right. The text is untrusted.

use autopack_shared::domain::path::RepoPath;
use autopack_shared::domain::project::AnswerForm;

/// Files that one answer may name at most.
pub(super) const MOST_FILES: usize = 500;

/// What a model wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Whole files.
    Edits(Vec<Edit>),
    /// A unified diff, not read yet.
    Diff(String),
}

/// One file of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// It is to hold this.
    Write { path: RepoPath, text: String },
    /// It is to be gone.
    Delete { path: RepoPath },
}

impl Edit {
    pub(super) const fn path(&self) -> &RepoPath {
        match self {
            Self::Write { path, .. } | Self::Delete { path } => path,
        }
    }
}

/// Where an answer is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the answer: {why}")]
pub(super) struct Malformed {
    /// From 1.
    pub(super) line: usize,
    /// What would be right.
    pub(super) why: String,
}

const WRITE: &str = "=== write ";
const DELETE: &str = "=== delete ";
const END: &str = "=== end";

/// How a model is told to answer.
pub(super) const fn rules(form: AnswerForm) -> &'static str {
    match form {
        AnswerForm::Edits => {
            "Answer with whole files. For each file that you create or change write\n\
             === write path/of/the/file\n\
             its complete new text\n\
             === end\n\
             and for each file that is to be gone one line\n\
             === delete path/of/the/file\n\
             Paths are relative to the root of the repository. No line within a file may start with '=== '. Do not put \
             the files into code fences. A file that you do not name stays as it is. What stands outside of these \
             blocks is taken as a comment."
        }
        AnswerForm::Diff => {
            "Answer with exactly one code block that starts with the line ```diff and ends with the line ```. It holds \
             one unified diff as `git diff` prints it. For each file: 'diff --git a/PATH b/PATH', for a new file 'new \
             file mode 100644', for one that is to be gone 'deleted file mode 100644', then an index line whose ids may \
             be made up ('index 0000000..1111111' for a new file, 'index 1111111..0000000' for one that is to be gone, \
             else 'index 1111111..2222222'), then '--- a/PATH' and '+++ b/PATH' (/dev/null for the side that is not \
             there), then hunks '@@ -A,B +C,D @@' whose numbers and context lines are exact. What stands outside of \
             the block is taken as a comment."
        }
    }
}

/// Reads an answer.
pub(super) fn read(text: &str, form: AnswerForm) -> Result<Answer, Malformed> {
    match form {
        AnswerForm::Edits => edits(text).map(Answer::Edits),
        AnswerForm::Diff => diff(text).map(Answer::Diff),
    }
}

fn edits(text: &str) -> Result<Vec<Edit>, Malformed> {
    let mut found: Vec<Edit> = Vec::new();
    let mut open: Option<(usize, RepoPath, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let wrong = |why: String| Malformed { line: at + 1, why };
        if let Some((begun, path, mut body)) = open.take() {
            if line.trim_end() == END {
                found.push(Edit::Write { path, text: body });
            } else if line.starts_with("=== ") {
                let why = format!("{path} was begun in line {begun} and has no '=== end' before this");
                return Err(wrong(why));
            } else {
                body.push_str(line);
                body.push('\n');
                open = Some((begun, path, body));
            }
        } else if let Some(name) = line.strip_prefix(WRITE) {
            open = Some((at + 1, new_path(name, &found).map_err(wrong)?, String::new()));
        } else if let Some(name) = line.strip_prefix(DELETE) {
            let path = new_path(name, &found).map_err(wrong)?;
            found.push(Edit::Delete { path });
        } else if line.starts_with("=== ") {
            return Err(wrong("it is neither '=== write PATH' nor '=== delete PATH'".to_owned()));
        }
        if found.len() > MOST_FILES {
            return Err(wrong(format!("more than {MOST_FILES} files")));
        }
    }
    if let Some((begun, path, _)) = open {
        return Err(Malformed { line: begun, why: format!("{path} is cut off: no '=== end' follows") });
    }
    if found.is_empty() {
        return Err(Malformed { line: 1, why: "it names no file: '=== write PATH' is expected".to_owned() });
    }
    Ok(found)
}

fn new_path(name: &str, found: &[Edit]) -> Result<RepoPath, String> {
    let shown: String = name.chars().take(200).collect();
    let path = RepoPath::parse(name.trim_end()).map_err(|error| format!("{shown:?}: {error}"))?;
    // By the key under which a file system may take two names for one.
    if found.iter().any(|other| other.path().key() == path.key()) {
        return Err(format!("{path} is named twice"));
    }
    Ok(path)
}

fn diff(text: &str) -> Result<String, Malformed> {
    let mut block: Option<(usize, String)> = None;
    let mut done: Option<String> = None;
    for (at, line) in text.lines().enumerate() {
        let wrong = |why: &str| Malformed { line: at + 1, why: why.to_owned() };
        match block.take() {
            // A line of a diff starts with one of ' +-@\\' or a word, so this one is none.
            Some((_, body)) if line.trim_end() == "```" => done = Some(body),
            Some((begun, mut body)) => {
                body.push_str(line);
                body.push('\n');
                block = Some((begun, body));
            }
            None if line.trim_end() == "```diff" => {
                if done.is_some() {
                    return Err(wrong("a second ```diff block: one is expected"));
                }
                block = Some((at + 1, String::new()));
            }
            None => {}
        }
    }
    if let Some((line, _)) = block {
        return Err(Malformed { line, why: "the ```diff block is cut off: no ``` follows".to_owned() });
    }
    match done {
        Some(body) if body.trim().is_empty() => {
            Err(Malformed { line: 1, why: "the ```diff block is empty".to_owned() })
        }
        Some(body) => Ok(body),
        None => Err(Malformed { line: 1, why: "it has no ```diff block".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RepoPath {
        RepoPath::parse(text).unwrap()
    }

    #[test]
    fn whole_files_and_deletions() {
        let text = "I will do it.\n=== write src/a.rs\nfn a() {}\n```\n==== \n=== end\n=== delete old.md\nDone.";
        let edits = edits(text).unwrap();
        let written = Edit::Write { path: path("src/a.rs"), text: "fn a() {}\n```\n==== \n".to_owned() };
        assert_eq!(edits, [written, Edit::Delete { path: path("old.md") }]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, why) in [
            ("", 1, "names no file"),
            ("sorry", 1, "names no file"),
            ("=== write a\nx\n", 1, "cut off"),
            ("=== write a\n=== write b\n=== end", 2, "begun in line 1"),
            ("=== write a\nx\n=== end\n=== write A\ny\n=== end", 4, "named twice"),
            ("x\n=== patch a\n", 2, "neither"),
            ("=== write ../a\n=== end", 1, "../a"),
            ("=== write /etc/passwd\n=== end", 1, "/etc/passwd"),
            ("=== write .git/hooks/x\n=== end", 1, ".git"),
            ("=== write a/.GIT/config\n=== end", 1, ".GIT"),
            ("=== write a\u{202e}b\n=== end", 1, "a"),
            ("=== write \n=== end", 1, "\"\""),
        ] {
            let wrong = edits(text).unwrap_err();
            assert!(wrong.line == line && wrong.why.contains(why), "{text:?}: {wrong}");
        }
        let many: String = (0..=MOST_FILES).map(|n| format!("=== delete f{n}\n")).collect();
        assert!(edits(&many).unwrap_err().why.contains("more than"));
    }

    #[test]
    fn a_diff_is_taken_out_of_its_block_and_nothing_else() {
        let body = "diff --git a/x b/x\n+```diff\n ```\n";
        assert_eq!(diff(&format!("Here:\n```diff\n{body}```\nBye")).unwrap(), body);
        for (text, why) in [
            ("diff --git a/x b/x", "no ```diff"),
            ("```diff\nx\n", "cut off"),
            ("```diff\n```", "empty"),
            ("```diff\nx\n```\n```diff\ny\n```", "second"),
        ] {
            assert!(diff(text).unwrap_err().why.contains(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(=== (write|delete|end)?( ?[a./]{0,4})?\n?|```(diff)?\n|[a-z\n]{0,3}){0,20}") {
            let _ = (edits(&text), diff(&text));
        }
    }
}
