//! Tests of the links on the odd corners of Markdown.

use super::*;

fn urls(text: &str) -> Vec<String> {
    let found = destinations(text);
    for d in &found {
        assert_eq!(text[d.range.clone()].replace('\\', ""), d.url);
    }
    found.into_iter().map(|d| d.url).collect()
}

#[test]
fn links_are_found_and_code_is_not() {
    let text = "[a](x.md) ![i](p.png \"t\") [b](<with space.md>) [![n](in.png)](out.md)\n\n\
        `[no](code.md)`\n\n```\n[no](fence.md)\n```\n\n    [no](indented.md)\n\n\
        \\[no](escaped.md) [p](a_(b).md) [c `](no.md)` d](yes.md)\n\n\
        [ref]: ref.md \"title\"\n[^1]: note.md\n\n<a href=\"html.md\">x</a> and [ref]\n";
    let want = ["x.md", "p.png", "with space.md", "in.png", "out.md", "a_(b).md", "yes.md", "ref.md", "html.md"];
    assert_eq!(urls(text), want);
}

#[test]
fn hostile_markdown_is_read_to_the_end() {
    for text in ["[".repeat(50_000), "[a](".repeat(20_000), "![a](b".repeat(20_000), "<a href=\"".repeat(9_000)] {
        let _ = destinations(&text);
    }
}

#[test]
fn only_paths_inside_the_tree_have_a_meaning() {
    let path = |from, url| meaning(from, url).map(|m| m.path);
    assert_eq!(path("docs/a.md", "../x%20y.md#top"), Some("x y.md".into()));
    assert_eq!(path("docs/a.md", "./b/../c.md"), Some("docs/c.md".into()));
    assert_eq!(path("a.md", "docs/"), Some("docs".into()));
    for url in ["https://x.org", "mailto:a@b", "#top", "/abs.md", "../../issues/1", "{{ x }}", "src/a.rs:12", ""] {
        assert_eq!(path("docs/a.md", url), None, "{url}");
    }
}

#[test]
fn relative_paths_are_short_and_escaped() {
    assert_eq!(relative("docs/a.md", "docs/b c.md"), "b%20c.md");
    assert_eq!(relative("docs/x/a.md", "README.md"), "../../README.md");
    assert_eq!(relative("a.md", "docs/(b).md"), "docs/%28b%29.md");
    assert_eq!(relative("docs/a.md", "docs"), ".");
}

#[test]
fn a_moved_file_still_means_the_same() {
    let text = "[r](README.md) [s](docs/s.md#x) [o](OTHER.md) [w](https://x.org) [d](docs/)\n";
    let moved = |m: &Meaning| (m.path == "OTHER.md").then(|| "docs/notes/OTHER.md".to_owned());
    let new = relink(text, "NOTES.md", "docs/notes/NOTES.md", &moved).unwrap();
    assert_eq!(new, "[r](../../README.md) [s](../s.md#x) [o](OTHER.md) [w](https://x.org) [d](../)\n");
    assert_eq!(relink("[a](b.md)", "x.md", "x.md", &|_| None), None);
}
