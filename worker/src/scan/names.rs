//! What a file's name says about it: which files are text, which are documents, which belong in the root, which are
//! kept on purpose and are nobody's fault.

/// Endings of files that are text by custom and are expected to be UTF-8. Data, markup with its own declaration of an
/// encoding (HTML, XML) and anything that may be binary are left out.
const TEXT: &[&str] = &[
    "adoc", "bash", "bat", "c", "cc", "cfg", "cmake", "conf", "cpp", "cs", "css", "cxx", "dart", "ex", "exs", "fish",
    "go", "gradle", "groovy", "h", "hh", "hpp", "hs", "ini", "java", "js", "json", "jsx", "kt", "less", "lua", "m",
    "markdown", "md", "mjs", "ml", "mm", "php", "pl", "pm", "ps1", "py", "pyi", "r", "rb", "rs", "rst", "scala",
    "scss", "sh", "sql", "swift", "tf", "toml", "ts", "tsx", "txt", "vue", "yaml", "yml", "zig", "zsh",
];

/// Folders whose files are copies or specimens: what is odd about them is on purpose.
const SPECIMENS: &[&str] = &[
    "fixture",
    "fixtures",
    "testdata",
    "test_data",
    "test-data",
    "__fixtures__",
    "__snapshots__",
    "snapshots",
    "golden",
    "vendor",
    "vendored",
    "third_party",
    "third-party",
    "thirdparty",
    "node_modules",
    "external",
];

/// Names, before a separator or an ending, of documents that belong in the root of a repository.
const CONVENTIONAL: &[&str] = &[
    "readme",
    "license",
    "licence",
    "licenses",
    "copying",
    "copyright",
    "unlicense",
    "notice",
    "patents",
    "changelog",
    "changes",
    "history",
    "news",
    "releases",
    "contributing",
    "contributors",
    "security",
    "code_of_conduct",
    "code-of-conduct",
    "authors",
    "maintainers",
    "owners",
    "credits",
    "thanks",
    "acknowledgements",
    "governance",
    "support",
    "citation",
    "architecture",
    "roadmap",
    "install",
    "hacking",
    "upgrading",
    "third_party",
    "third-party",
    "thirdparty",
    "dco",
    "codeowners",
    "agents",
    "claude",
    "gemini",
    "index",
    "summary",
    "404",
];

/// Words in the names of `.txt` files that a tool reads.
const MANIFESTS: &[&str] = &[
    "requirements",
    "constraints",
    "cmakelists",
    "robots",
    "runtime",
    "llms",
    "humans",
    "manifest",
    "packages",
    "apt",
    "environment",
];

/// The ending of a name in lower case; empty without one.
fn ending(path: &str) -> String {
    let base = base_name(path);
    base.rsplit_once('.').map_or_else(String::new, |(_, end)| end.to_ascii_lowercase())
}

/// The last component of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder of a path; empty for a file in the root.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether links are looked for.
pub(crate) fn is_markdown(path: &str) -> bool {
    matches!(ending(path).as_str(), "md" | "markdown")
}

/// Whether the file is a document, of which one copy is enough.
pub(crate) fn is_document(path: &str) -> bool {
    matches!(ending(path).as_str(), "md" | "markdown" | "rst" | "adoc" | "txt")
}

/// Whether the file is expected to be UTF-8 text.
pub(crate) fn is_text(path: &str) -> bool {
    TEXT.binary_search(&ending(path).as_str()).is_ok()
}

/// Whether the file may declare another encoding in its first lines, and does so by custom (PEP 263).
pub(crate) fn may_declare_encoding(path: &str) -> bool {
    matches!(ending(path).as_str(), "py" | "pyi" | "rb")
}

/// Whether a folder on the way says that the file is a specimen or someone else's.
pub(crate) fn is_specimen(path: &str) -> bool {
    let named = |part: &str| SPECIMENS.iter().any(|s| part.eq_ignore_ascii_case(s));
    folder(path).split('/').any(named)
}

/// Whether the name is one of those that documents of a repository, or of a package in it, have by custom.
pub(crate) fn is_conventional(path: &str) -> bool {
    let base = base_name(path).to_ascii_lowercase();
    let fits = |name: &&&str| {
        base.strip_prefix(**name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    CONVENTIONAL.iter().find(fits).is_some()
}

/// Whether a tool reads this `.txt` file.
pub(crate) fn is_manifest(path: &str) -> bool {
    let base = base_name(path).to_ascii_lowercase();
    ending(path) == "txt" && MANIFESTS.iter().any(|word| base.contains(word))
}

/// Whether a file in the root is a note or a leftover that belongs elsewhere.
pub(crate) fn is_clutter(path: &str) -> bool {
    if path.contains('/') || path.starts_with('.') || is_conventional(path) || is_manifest(path) {
        return false;
    }
    let scratch = ["log", "bak", "old", "orig", "rej", "tmp"];
    is_document(path) || scratch.contains(&ending(path).as_str()) || path.ends_with('~')
}

/// Whether a file is one of a set of documents that may be deleted when an equal one exists.
pub(crate) fn is_removable_copy(path: &str) -> bool {
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let text = ending(path) == "txt";
    let plain_place = folder(path).is_empty() || path.to_ascii_lowercase().starts_with("docs/");
    is_document(path)
        && !hidden
        && !is_conventional(path)
        && !is_manifest(path)
        && !is_specimen(path)
        && (!text || plain_place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_endings_is_sorted() {
        assert!(TEXT.is_sorted());
    }

    #[test]
    fn conventional_documents_and_manifests_stay_in_the_root() {
        for stays in [
            "README.md",
            "readme.rst",
            "README_zh.md",
            "LICENSE",
            "LICENSE-MIT.txt",
            "CHANGELOG.md",
            "AGENTS.md",
            "requirements-dev.txt",
            "CMakeLists.txt",
            "Cargo.toml",
            "Makefile",
            ".notes.md",
            "docs/x.md",
            "main.py",
        ] {
            assert!(!is_clutter(stays), "{stays}");
        }
        for clutter in ["NOTES.md", "BUILD_PLAN.md", "readmes.md", "todo-list.md.bak", "out.log", "a~", "ideas.txt"] {
            assert!(is_clutter(clutter), "{clutter}");
        }
    }

    #[test]
    fn copies_that_have_a_purpose_are_left_alone() {
        for kept in
            ["a/README.md", "tests/fixtures/a.md", "vendor/x/doc.md", ".github/a.md", "src/a.txt", "requirements.txt"]
        {
            assert!(!is_removable_copy(kept), "{kept}");
        }
        for copy in ["GUIDE.md", "docs/GUIDE.md", "docs/a.txt", "a/b/guide.rst"] {
            assert!(is_removable_copy(copy), "{copy}");
        }
    }
}
