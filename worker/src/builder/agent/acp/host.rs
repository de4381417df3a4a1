//! What an agent finds on this side: it may read and write files of the tree, as far as the policy goes, and is answered
//! when it asks for leave. It has no terminal here. No link leads out of the tree.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::project::Permission;

use super::permission::{self, Policy};
use crate::builder::BuildError;
use crate::scan::beneath::Beneath;

/// Bytes of a file that is read or written for an agent.
const MOST_FILE: usize = 2 << 20;

/// Tool calls that are remembered with what they are for.
const MOST_CALLS: usize = 2000;

/// The client's side of a session.
#[derive(Debug)]
pub(in crate::builder::agent) struct Host {
    tree: Beneath,
    root: String,
    policy: Policy,
    calls: BTreeMap<String, Value>,
}

/// A refused request: the code of JSON-RPC and why.
pub(super) type Fault = (i64, String);

const NO_METHOD: i64 = -32601;
const BAD_PARAMS: i64 = -32602;
const FAILED: i64 = -32603;

impl Host {
    /// A host for a tree, which is `root` to the agent; `allow` is what the entry allows.
    pub(in crate::builder::agent) fn new(
        tree: &Path,
        root: String,
        scope: &[String],
        allow: &[Permission],
    ) -> Result<Self, BuildError> {
        let failed = |e: std::io::Error| BuildError::of("workspace", &e);
        let scope = PathRoots::new(scope.to_vec()).map_err(|e| BuildError::of("unsupported", &e))?;
        let policy = Policy::new(root.clone(), scope, allow);
        Ok(Self { tree: Beneath::open(tree).map_err(failed)?, root, policy, calls: BTreeMap::new() })
    }

    /// The tree as an agent is told of it.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Remembers what an agent says of a tool call, for when it asks for leave with less.
    pub(super) fn heard(&mut self, update: &Value) {
        let Some(id) = update["toolCallId"].as_str() else { return };
        if self.calls.len() >= MOST_CALLS && !self.calls.contains_key(id) {
            return;
        }
        let known = self.calls.entry(id.to_owned()).or_insert_with(|| json!({}));
        *known = merged(known, update);
    }

    /// Answers a request of the agent.
    pub(super) fn answer(&mut self, method: &str, params: &Value) -> Result<Value, Fault> {
        match method {
            "session/request_permission" => {
                let call = &params["toolCall"];
                let known = call["toolCallId"].as_str().and_then(|id| self.calls.get(id));
                let whole = known.map_or_else(|| call.clone(), |known| merged(known, call));
                let judged = self.policy.judge(&whole);
                Ok(permission::answer(&params["options"], judged.is_ok()))
            }
            "fs/read_text_file" => self.read(params),
            "fs/write_text_file" => self.write(params),
            other => Err((NO_METHOD, format!("{} is not offered here", other.chars().take(80).collect::<String>()))),
        }
    }

    fn read(&self, params: &Value) -> Result<Value, Fault> {
        if !self.policy.allows(Permission::Read) {
            return Err((BAD_PARAMS, "reading is not allowed".to_owned()));
        }
        let path = self.policy.place(path_of(params)?).map_err(|why| (BAD_PARAMS, why.to_owned()))?;
        let bytes = self.tree.read(path.as_str(), MOST_FILE as u64).map_err(|e| (FAILED, format!("{path}: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|_| (FAILED, format!("{path}: it is no text")))?;
        let number = |name: &str| params[name].as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (from, most) = (number("line").unwrap_or(1).saturating_sub(1), number("limit").unwrap_or(usize::MAX));
        let content: String = text.split_inclusive('\n').skip(from).take(most).collect();
        Ok(json!({ "content": content }))
    }

    fn write(&self, params: &Value) -> Result<Value, Fault> {
        if !self.policy.allows(Permission::Edit) {
            return Err((BAD_PARAMS, "writing is not allowed".to_owned()));
        }
        let path = self.policy.writable(path_of(params)?).map_err(|why| (BAD_PARAMS, why.to_owned()))?;
        let text = params["content"].as_str().ok_or_else(|| (BAD_PARAMS, "there is no content".to_owned()))?;
        if text.len() > MOST_FILE {
            return Err((BAD_PARAMS, format!("{path}: it is too large")));
        }
        self.tree.write(path.as_str(), text.as_bytes()).map_err(|e| (FAILED, format!("{path}: {e}")))?;
        Ok(Value::Null)
    }
}

fn path_of(params: &Value) -> Result<&str, Fault> {
    params["path"].as_str().ok_or_else(|| (BAD_PARAMS, "there is no path".to_owned()))
}

/// What is known of a tool call, with what is said now: a list or a kind that is said later replaces the earlier one.
fn merged(known: &Value, said: &Value) -> Value {
    let field = |name: &str| if said[name].is_null() { known[name].clone() } else { said[name].clone() };
    json!({ "kind": field("kind"), "locations": field("locations"), "content": diffs(&field("content")) })
}

/// Of a content only the places of its diffs.
fn diffs(content: &Value) -> Value {
    let each = content.as_array().into_iter().flatten().filter(|one| one["type"] == "diff").take(1000);
    each.map(|one| json!({ "type": "diff", "path": one["path"] })).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_those_of_the_tree_and_its_scope() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("src")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("canary"), "c").unwrap();
        std::fs::write(tree.join("README.md"), "one\ntwo\nthree\n").unwrap();
        symlink(&outside, tree.join("src/way")).unwrap();
        let mut host =
            Host::new(&tree, tree.canonicalize().unwrap().display().to_string(), &["src/".to_owned()], &[]).unwrap();
        let root = host.root().to_owned();
        let mut read = |path: &str| host.answer("fs/read_text_file", &json!({ "path": path, "line": 2, "limit": 1 }));
        assert_eq!(read(&format!("{root}/README.md")).unwrap()["content"], "two\n");
        for path in
            ["/etc/passwd", "README.md", &format!("{root}/../outside/canary"), &format!("{root}/src/way/canary")]
        {
            assert!(read(path).is_err(), "{path}");
        }
        let mut write = |path: &str| host.answer("fs/write_text_file", &json!({ "path": path, "content": "new" }));
        write(&format!("{root}/src/deep/a.rs")).unwrap();
        for path in ["README.md", "src/way/new", "src/way/canary", "src/../README.md", ".git/hooks/x"] {
            assert!(write(&format!("{root}/{path}")).is_err(), "{path}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "c");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        for method in ["terminal/create", "terminal/output", "fs/delete", "session/set_mode", ""] {
            assert_eq!(host.answer(method, &json!({})).unwrap_err().0, NO_METHOD, "{method}");
        }
    }

    #[test]
    fn what_was_said_of_a_call_before_counts_and_what_is_said_now_counts_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::new(dir.path(), "/ws".to_owned(), &["src/".to_owned()], &[]).unwrap();
        let inside = format!("{}/src/a", host.root());
        host.heard(&json!({ "toolCallId": "1", "kind": "edit", "locations": [{ "path": inside }] }));
        let options = json!([{ "optionId": "y", "kind": "allow_once" }, { "optionId": "n", "kind": "reject_once" }]);
        let mut ask = |call: Value| {
            let asked = json!({ "toolCall": call, "options": options });
            host.answer("session/request_permission", &asked).unwrap()["outcome"]["optionId"].clone()
        };
        assert_eq!(ask(json!({ "toolCallId": "1" })), "y");
        assert_eq!(ask(json!({ "toolCallId": "1", "kind": "execute" })), "n");
        assert_eq!(ask(json!({ "toolCallId": "1", "locations": [{ "path": "/etc/passwd" }] })), "n");
        assert_eq!(ask(json!({ "toolCallId": "2" })), "n");
    }
}
