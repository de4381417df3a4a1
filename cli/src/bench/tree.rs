//! A repository as large ones are: source, documents with links, data and binaries in the shares they have there.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// Writes it, with about so many files.
pub(super) fn make(root: &Path, files: usize) -> io::Result<()> {
    fs::create_dir_all(root.join("config"))?;
    fs::write(root.join("config/baseline_policy.yaml"), "version: 1\n")?;
    fs::write(root.join("README.md"), "# A large repository\n")?;
    for folder in 0..files.div_ceil(50) {
        let path = root.join(format!("area{}/module{folder}", folder % 40));
        fs::create_dir_all(&path)?;
        for n in 0..50.min(files - folder * 50) {
            let (name, bytes) = file(folder, n);
            fs::write(path.join(name), bytes)?;
        }
    }
    Ok(())
}

fn file(folder: usize, n: usize) -> (String, Vec<u8>) {
    let mut text = String::new();
    match n % 10 {
        0 => {
            // Writing to a String cannot fail.
            let _infallible =
                writeln!(text, "# Module {folder}, page {n}\n\nSee [the code](file{}.rs) and `x`.", n + 1);
            lines(&mut text, "Prose about what this module does, and why it is done like that.", 30);
            (format!("page{n}.md"), text.into_bytes())
        }
        1..=5 => {
            lines(&mut text, &format!("pub fn call_{folder}_{n}() -> usize {{ {n} }} // one more line of code"), 60);
            (format!("file{n}.rs"), text.into_bytes())
        }
        6 | 7 => {
            lines(&mut text, &format!("def call_{folder}_{n}(): return {n}  # one more line of code"), 60);
            (format!("file{n}.py"), text.into_bytes())
        }
        8 => (format!("data{n}.json"), format!("{{\"folder\": {folder}, \"n\": {n}}}\n").into_bytes()),
        _ => (format!("image{n}.png"), (0..2048_usize).map(|i| (i * 31 + folder + n) as u8).collect()),
    }
}

fn lines(text: &mut String, line: &str, count: usize) {
    for _ in 0..count {
        text.push_str(line);
        text.push('\n');
    }
}
