//! What an agent is given leave for: by the kind of the thing and the places it touches, and never because it asks.

use serde_json::Value;

use autopack_shared::domain::path::{PathRoots, RepoPath};
use autopack_shared::domain::project::Permission;

/// What holds where an entry says nothing.
const DEFAULT: [Permission; 4] = [Permission::Read, Permission::Search, Permission::Edit, Permission::Think];

/// What may be done, and where.
#[derive(Debug)]
pub(super) struct Policy {
    root: String,
    scope: PathRoots,
    allow: Vec<Permission>,
}

/// Why something is refused.
pub(super) type Refusal = &'static str;

impl Policy {
    /// `root` is the tree as the agent knows it; an empty `allow` is the default.
    pub(super) fn new(root: String, scope: PathRoots, allow: &[Permission]) -> Self {
        let allow = if allow.is_empty() { DEFAULT.to_vec() } else { allow.to_vec() };
        Self { root, scope, allow }
    }

    pub(super) fn allows(&self, wanted: Permission) -> bool {
        self.allow.contains(&wanted)
    }

    /// A path that an agent names, as one of the repository.
    pub(super) fn place(&self, path: &str) -> Result<RepoPath, Refusal> {
        let below = path.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        let below = below.ok_or("it is no absolute path below the tree")?;
        RepoPath::parse(below).map_err(|_| "it is no plain path below the tree")
    }

    /// The same, where it may be changed.
    pub(super) fn writable(&self, path: &str) -> Result<RepoPath, Refusal> {
        let place = self.place(path)?;
        if self.scope.is_empty() || self.scope.find(&place.key().parts()).is_some() {
            return Ok(place);
        }
        Err("it is outside of the scope")
    }

    /// Judges a tool call as an agent describes it.
    pub(super) fn judge(&self, call: &Value) -> Result<(), Refusal> {
        let wanted = kind(call["kind"].as_str().unwrap_or_default()).ok_or("it does not say what it is for")?;
        if !self.allows(wanted) {
            return Err("things of this kind are not allowed");
        }
        let places = places(call);
        match wanted {
            Permission::Edit | Permission::Delete | Permission::Move => {
                if places.is_empty() {
                    return Err("it does not say which files it changes");
                }
                places.iter().try_for_each(|path| self.writable(path).map(drop))
            }
            Permission::Read | Permission::Search => {
                let inside = |path: &&str| *path == self.root || self.place(path).is_ok();
                places.iter().all(inside).then_some(()).ok_or("it is outside of the tree")
            }
            // Where these reach cannot be seen from here; the operator allowed them as they are.
            Permission::Execute | Permission::Think | Permission::Fetch => Ok(()),
        }
    }
}

/// The kinds of the protocol; `other`, `switch_mode` and what is new are none that could be allowed.
fn kind(word: &str) -> Option<Permission> {
    match word {
        "read" => Some(Permission::Read),
        "edit" => Some(Permission::Edit),
        "delete" => Some(Permission::Delete),
        "move" => Some(Permission::Move),
        "search" => Some(Permission::Search),
        "execute" => Some(Permission::Execute),
        "think" => Some(Permission::Think),
        "fetch" => Some(Permission::Fetch),
        _ => None,
    }
}

/// Every file that a tool call names: its locations and the diffs in its content.
fn places(call: &Value) -> Vec<&str> {
    let each = |list: &'static str| call[list].as_array().into_iter().flatten();
    let located = each("locations").filter_map(|one| one["path"].as_str());
    let shown = each("content").filter(|one| one["type"] == "diff").filter_map(|one| one["path"].as_str());
    located.chain(shown).collect()
}

/// The answer to a request: the option that says so once, and nothing that would hold for later.
pub(super) fn answer(options: &Value, allowed: bool) -> Value {
    let wanted: &[&str] = if allowed { &["allow_once"] } else { &["reject_once", "reject_always"] };
    let option = |kind: &&str| {
        let found = options.as_array()?.iter().find(|one| one["kind"] == **kind)?;
        found["optionId"].as_str()
    };
    match wanted.iter().find_map(option) {
        Some(id) => serde_json::json!({ "outcome": { "outcome": "selected", "optionId": id } }),
        None => serde_json::json!({ "outcome": { "outcome": "cancelled" } }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(allow: &[Permission]) -> Policy {
        Policy::new("/tree".to_owned(), PathRoots::new(vec!["src/".to_owned()]).unwrap(), allow)
    }

    fn call(kind: &str, path: &str) -> Value {
        json!({ "toolCallId": "1", "kind": kind, "locations": [{ "path": path }] })
    }

    #[test]
    fn reads_and_edits_in_scope_are_allowed_and_nothing_else() {
        let judge = |call: Value| policy(&[]).judge(&call);
        for allowed in [call("read", "/tree/README.md"), call("read", "/tree"), call("edit", "/tree/src/a.rs")] {
            assert_eq!(judge(allowed.clone()), Ok(()), "{allowed}");
        }
        for refused in [
            call("edit", "/tree/README.md"),
            call("edit", "/tree/src/../../etc/passwd"),
            call("edit", "/tree2/src/a.rs"),
            call("edit", "src/a.rs"),
            call("edit", "/tree/src/.git/config"),
            call("read", "/etc/passwd"),
            call("delete", "/tree/src/a.rs"),
            call("execute", "/tree/src/a.rs"),
            call("fetch", "https://x"),
            call("other", "/tree/src/a.rs"),
            call("", "/tree/src/a.rs"),
            json!({ "kind": "edit" }),
            json!({ "kind": "edit", "locations": [{ "path": "/tree/src/a" }], "content": [{ "type": "diff", "path": "/etc/x" }] }),
            json!({ "kind": ["edit"] }),
            json!(null),
        ] {
            assert!(judge(refused.clone()).is_err(), "{refused}");
        }
        assert_eq!(policy(&[Permission::Execute]).judge(&call("execute", "/x")), Ok(()));
        assert!(policy(&[Permission::Execute]).judge(&call("read", "/tree/a")).is_err(), "a list replaces the default");
    }

    #[test]
    fn yes_is_said_once_and_never_for_always() {
        let options = json!([
            { "optionId": "always", "kind": "allow_always" },
            { "optionId": "once", "kind": "allow_once" },
            { "optionId": "no", "kind": "reject_once" },
        ]);
        assert_eq!(answer(&options, true)["outcome"]["optionId"], "once");
        assert_eq!(answer(&options, false)["outcome"]["optionId"], "no");
        let only_always = json!([{ "optionId": "always", "kind": "allow_always" }]);
        for odd in [only_always, json!([]), json!(null), json!([{ "kind": "allow_once" }])] {
            assert_eq!(answer(&odd, true)["outcome"]["outcome"], "cancelled", "{odd}");
        }
    }
}
