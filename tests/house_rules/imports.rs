//! Who may import whom: every path that a file names, and the table of what its room may not name.

use super::source::{Source, is_word, line_of};

/// What a part of the tree may not import.
pub(crate) struct Fence {
    /// Files this holds for: prefixes of their paths.
    room: &'static [&'static str],
    /// Files among them this does not hold for.
    except: &'static [&'static str],
    /// Paths they may not name; `crate::x` is the file's own crate.
    never: &'static [&'static str],
}

/// Crates that reach outside: files, sockets, processes, clocks, databases, the wire.
const OUTSIDE: &[&str] = &[
    "tokio",
    "tokio_util",
    "tonic",
    "prost",
    "sqlx",
    "git2",
    "rustix",
    "nix",
    "tempfile",
    "tracing",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::repo",
    "crate::wire",
    "crate::runtime",
];

/// The walls of the house.
pub(crate) const FENCES: &[Fence] = &[
    Fence { room: &[""], except: &["shared/src/repo", "supervisor/src/hub"], never: &["git2"] },
    Fence { room: &[""], except: &["supervisor/src/store", "supervisor/src/run_data/postgres"], never: &["sqlx"] },
    Fence { room: &[""], except: &["supervisor/src/coordination/etcd"], never: &["etcd_client"] },
    Fence { room: &[""], except: &["cli/"], never: &["anyhow"] },
    Fence { room: &["shared/"], except: &[], never: &["autopack_supervisor", "autopack_worker", "autopack"] },
    Fence { room: &["supervisor/"], except: &[], never: &["autopack_worker", "autopack"] },
    Fence { room: &["worker/"], except: &[], never: &["autopack_supervisor", "autopack"] },
    Fence { room: &["shared/src/domain"], except: &[], never: OUTSIDE },
    Fence {
        room: &["shared/src/repo"],
        except: &[],
        never: &["tokio", "tonic", "prost", "crate::wire", "crate::runtime"],
    },
    Fence {
        room: &["shared/src/wire"],
        // It waits for an answer.
        except: &["shared/src/wire/dial.rs"],
        never: &["crate::repo", "crate::runtime", "git2", "tokio"],
    },
    Fence { room: &["shared/src/wire/dial.rs"], except: &[], never: &["crate::repo", "crate::runtime", "git2"] },
    Fence { room: &["shared/src/runtime"], except: &[], never: &["crate::repo", "crate::wire", "tonic", "prost"] },
    Fence {
        room: &["supervisor/src/store"],
        except: &[],
        never: &[
            "crate::api",
            "crate::coordination",
            "crate::director",
            "crate::hub",
            "autopack_shared::wire",
            "tonic",
        ],
    },
    Fence {
        room: &["supervisor/src/coordination"],
        except: &[],
        never: &["crate::api", "crate::director", "crate::hub", "crate::store", "autopack_shared::wire", "tonic"],
    },
    Fence {
        room: &["supervisor/src/hub"],
        except: &[],
        never: &[
            "crate::api",
            "crate::coordination",
            "crate::director",
            "crate::store",
            "autopack_shared::wire",
            "tonic",
        ],
    },
    Fence {
        room: &["supervisor/src/run_data"],
        except: &[],
        never: &[
            "crate::api",
            "crate::coordination",
            "crate::director",
            "crate::hub",
            "crate::store::postgres",
            "crate::store::sqlite",
            "autopack_shared::wire",
            "tonic",
        ],
    },
    // The director knows its ports, not what stands behind them.
    Fence {
        room: &["supervisor/src/director"],
        except: &[],
        never: &[
            "crate::api",
            "crate::coordination::etcd",
            "crate::coordination::file_lock",
            "crate::hub::local",
            "crate::run_data::postgres",
            "crate::store::postgres",
            "crate::store::sqlite",
            "autopack_shared::wire",
            "tonic",
        ],
    },
    // Some files of the worker speak to the supervisor; the rest does not know that there is one.
    Fence {
        room: &["worker/src"],
        except: &[
            "worker/src/daemon.rs",
            "worker/src/fetch.rs",
            "worker/src/jobs.rs",
            "worker/src/line.rs",
            "worker/src/link.rs",
            "worker/src/phase.rs",
            "worker/src/phase/data.rs",
            "worker/src/phase/ending.rs",
            "worker/src/phase/output.rs",
            "worker/src/surveys.rs",
            "worker/src/upload.rs",
        ],
        never: &["autopack_shared::wire", "tonic"],
    },
];

/// Every import that stands in the wrong room, as `line: path`.
pub(crate) fn misplaced(file: &Source) -> Vec<String> {
    if !file.is_rust() || file.is_test() {
        return Vec::new();
    }
    let holds = |fence: &&Fence| {
        let listed = |list: &[&str]| list.iter().any(|prefix| file.path.starts_with(prefix));
        listed(fence.room) && !listed(fence.except)
    };
    let never: Vec<&str> = FENCES.iter().filter(holds).flat_map(|fence| fence.never).copied().collect();
    let within =
        |path: &str, root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let named = paths(file.shipped(), &file.module());
    named
        .into_iter()
        .filter(|(_, path)| never.iter().any(|root| within(path, root)))
        .map(|(at, path)| format!("{}: {path} may not be imported here", line_of(&file.code, at)))
        .collect()
}

/// Blocks of imports that are not std, then other crates, then ours.
pub(crate) fn mixed_blocks(file: &Source) -> Vec<String> {
    let rank = |path: &str| match path.split("::").next().unwrap_or_default().trim_start_matches("r#") {
        "std" | "core" | "alloc" => 0,
        "crate" | "super" | "self" => 2,
        name if name.starts_with("autopack") => 2,
        name if file.code.contains(&format!("mod {name};")) || file.code.contains(&format!("mod {name} {{")) => 2,
        _ => 1,
    };
    let (mut last, mut in_block, mut found) = (0, None, Vec::new());
    for (number, line) in file.code.lines().enumerate() {
        let item = line.strip_prefix("pub ").unwrap_or(line);
        let item = item.strip_prefix("pub(crate) ").or_else(|| item.strip_prefix("pub(super) ")).unwrap_or(item);
        if let Some(path) = item.strip_prefix("use ") {
            let rank = rank(path.trim_end_matches(';'));
            if in_block.is_some_and(|block| block != rank) || rank < last {
                found.push(format!("{}: imports stand in three blocks: std, other crates, ours", number + 1));
            }
            (last, in_block) = (rank, Some(rank));
        } else if line.is_empty() {
            in_block = None;
        }
    }
    found
}

/// Every path with `::` in the code and the byte it starts at, groups of `use` spelled out, `super` and `self` resolved
/// from `module`.
fn paths(code: &str, module: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(is_word).map(|offset| at + offset) {
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |offset| start + offset);
        at = end;
        if &code[start..end] == "use" && !code[..start].ends_with(is_word) {
            let stop = code[end..].find(';').map_or(code.len(), |offset| end + offset);
            spell_out(&code[end..stop], "", &mut |path| found.push((start, resolve(path, module))));
            at = stop;
        } else if code[end..].starts_with("::") && !code[..start].ends_with("::") {
            let rest = &code[start..];
            let stop = rest.find(|c| !is_word(c) && c != ':').unwrap_or(rest.len());
            found.push((start, resolve(rest[..stop].trim_end_matches(':'), module)));
            at = start + stop;
        }
    }
    found
}

/// Calls `each` with every path of a use tree.
fn spell_out(tree: &str, prefix: &str, each: &mut dyn FnMut(&str)) {
    let mut depth = 0_usize;
    let parts = tree.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, group)) => {
                let group = group.trim_end().strip_suffix('}').unwrap_or(group);
                spell_out(group, &format!("{prefix}{}", head.trim()), each);
            }
            None => {
                let path = part.split(" as ").next().unwrap_or(part).trim();
                let path = path.trim_end_matches("::*");
                each(&match path {
                    "self" => prefix.trim_end_matches(':').to_owned(),
                    path => format!("{prefix}{path}"),
                });
            }
        }
    }
}

/// A path from the root of the crate.
fn resolve(path: &str, module: &[&str]) -> String {
    let mut parts = path.split("::").peekable();
    let mut above = module.len();
    let mut relative = false;
    while let Some(step) = parts.next_if(|part| matches!(*part, "super" | "self")) {
        above = above.saturating_sub(usize::from(step == "super"));
        relative = true;
    }
    if !relative {
        return path.to_owned();
    }
    let root = std::iter::once("crate");
    root.chain(module[..above].iter().copied()).chain(parts).collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, code: &str) -> Vec<String> {
        misplaced(&Source::new(path, code))
    }

    #[test]
    fn a_use_tree_is_spelled_out() {
        let code = "use a::{b::{self, c as d}, e::*};\nfn f() { super::x::y(); self::z::w(); }";
        let all: Vec<String> =
            paths(code, &["m", "n"]).into_iter().map(|(at, path)| format!("{} {path}", line_of(code, at))).collect();
        assert_eq!(all, ["1 a::b", "1 a::b::c", "1 a::e", "2 crate::m::x::y", "2 crate::m::n::z::w"]);
    }

    #[test]
    fn walls_hold() {
        assert_eq!(found("worker/src/scan.rs", "\nuse git2::Oid;\n"), ["2: git2::Oid may not be imported here"]);
        assert_eq!(found("supervisor/src/api.rs", "fn f() { sqlx::query(x) }").len(), 1);
        assert_eq!(found("supervisor/src/api.rs", "use autopack_worker::scan;").len(), 1);
        assert_eq!(found("worker/src/gate.rs", "use autopack_shared::{domain::ids, wire::pb};").len(), 1);
        assert_eq!(found("shared/src/domain/ids.rs", "use super::super::repo::raw;").len(), 1);
        assert_eq!(found("shared/src/domain/ids.rs", "let now = std::time::SystemTime::now();").len(), 1);
        assert_eq!(found("supervisor/src/director/apply.rs", "use crate::store::sqlite::SqliteStore;").len(), 1);
        assert_eq!(found("supervisor/src/store/run.rs", "use anyhow::Context;").len(), 1);
    }

    #[test]
    fn what_is_allowed_is_left_alone() {
        assert!(found("shared/src/repo/raw.rs", "use git2::Oid;\nuse crate::domain::ids;").is_empty());
        assert!(found("supervisor/src/director/apply.rs", "use crate::store::Store;").is_empty());
        assert!(found("worker/src/scan.rs", "// git2::Oid\nlet text = \"git2::Oid\";").is_empty());
        assert!(found("worker/src/scan.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use git2::Oid; }").is_empty());
        assert!(found("worker/src/scan/tests.rs", "use git2::Oid;").is_empty());
    }

    #[test]
    fn blocks_are_told_apart() {
        let mixed = |code: &str| mixed_blocks(&Source::new("a/src/b.rs", code)).len();
        assert_eq!(mixed("use std::fs;\n\nuse serde::Serialize;\n\nuse crate::x;\n\nuse super::y;\n"), 0);
        assert_eq!(mixed("mod y;\n\nuse crate::x;\npub use y::Z;\n"), 0);
        assert_eq!(mixed("use std::fs;\nuse serde::Serialize;\n"), 1);
        assert_eq!(mixed("use crate::x;\n\nuse std::fs;\n"), 1);
    }
}
