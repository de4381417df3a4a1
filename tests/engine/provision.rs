//! What a job finds when it begins: a worktree that was ready, ignored files and secrets that its operator gives, and
//! nothing of them in what it leaves.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use autopack_shared::domain::provision::Provisions;
use autopack_shared::wire::pb::Choice;
use autopack_worker::provision::Provision;

use super::harness::{Rig, Site};

const VALUE: &str = "s3cr3t-value-0123456789";

const POLICY: &str = r#"
[project]
id = "site"

[policy]
allowed = ["examples/**"]

[builders.named]
kind = "command"
argv = ["sh", "-c", """
value=$(cat "$AUTOPACK_SECRETS/npm")
echo "it is $value"
test "$value" = s3cr3t-value-0123456789 && grep -q X=1 .env && echo both > examples/seen.txt
env | grep -c s3cr3t > examples/environment.txt
exit 0"""]

[secrets]
builders.named = ["npm"]
"#;

/// A project that needs an ignored file, and an operator who gives it and the secrets of `may`.
fn site(may: &str) -> Site {
    let mut site = Site::new(POLICY);
    site.write(".gitignore", ".env\n");
    site.write(".worktreeinclude", ".env\n");
    site.commit("needs");
    let (theirs, secret) = (site.dir.path().join("theirs"), site.dir.path().join("npm"));
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join(".env"), "X=1\n").unwrap();
    fs::write(&secret, VALUE).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[projects.site]\ninclude = {:?}\nsecrets = [{may}]\n[secrets.npm]\nfile = {:?}\n",
        theirs.display().to_string(),
        secret.display().to_string()
    );
    site.provision = Provision { given: Provisions::parse(&text, "p.toml").unwrap(), include: None };
    site
}

fn named(run: &str) -> serde_json::Value {
    let builder = json!({ "kind": "command", "name": "named" });
    json!({ "run_id": run, "phases": [{ "id": "p", "goal": "look", "builder": builder, "max_attempts": 1 }] })
}

#[tokio::test]
async fn a_named_builder_finds_both_and_leaves_neither() {
    let site = site("\"npm\"");
    let mut rig = Rig::open(&site).await;
    rig.submit_file(&named("given")).await;
    rig.until_state("given", "WAITING").await;
    let request = rig.pending("given").await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    rig.until_state("given", "SUCCEEDED").await;
    let text = |path| site.text_at("refs/heads/autopack/given", path);
    assert_eq!(text("examples/seen.txt").as_deref(), Some("both\n"));
    assert_eq!(text("examples/environment.txt").as_deref(), Some("0\n"), "no secret is in an environment");
    assert_eq!(text(".env"), None);
    let history = rig.history("given").await.join("\n");
    assert!(history.contains("it is [secret npm]") && !history.contains("s3cr3t"), "{history}");
    rig.close().await;
    assert!(!site.dir.path().join("worker/.scratch").read_dir().unwrap().any(|_| true), "the secrets are gone");
}

#[tokio::test]
async fn what_the_operator_does_not_give_nobody_gets() {
    let site = site("");
    let mut rig = Rig::open(&site).await;
    rig.submit_file(&named("refused")).await;
    let run = rig.until_state("refused", "FAILED").await;
    assert!(run.phases[0].reason.contains("no secret npm"), "{run:#?}");
    // A command that the run file brings is not the one that the project named.
    rig.submit("own", &[("p", "ls \"$AUTOPACK_SECRETS\" && exit 3; echo none > examples/none.txt", json!({}))]).await;
    rig.until_state("own", "WAITING").await;
    rig.close().await;
}

/// The worktrees that are ready, by their inodes.
fn ready(site: &Site) -> Vec<u64> {
    let entries = fs::read_dir(site.dir.path().join("worker/.pool")).into_iter().flatten();
    let trees: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path().join("tree")).collect();
    trees.iter().filter(|tree| tree.join("README.md").exists()).map(|tree| fs::metadata(tree).unwrap().ino()).collect()
}

#[tokio::test]
async fn the_next_lease_finds_a_worktree_ready() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    assert!(ready(&site).is_empty(), "nobody has asked for one yet");
    rig.submit("first", &[("p", "echo 1 >> examples/a.txt", json!({}))]).await;
    rig.until_state("first", "WAITING").await;
    let filled = async {
        while ready(&site).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), filled).await.unwrap();
    let waiting = ready(&site);
    // The builder tells which folder it got.
    let script = "stat -c %i . > examples/inode.txt";
    rig.submit("second", &[("p", script, json!({}))]).await;
    rig.until_state("second", "WAITING").await;
    let request = rig.pending("second").await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    rig.until_state("second", "SUCCEEDED").await;
    let used = site.text_at("refs/heads/autopack/second", "examples/inode.txt").unwrap();
    assert!(waiting.contains(&used.trim().parse().unwrap()), "{used} is none of {waiting:?}");
    rig.close().await;
    assert!(ready(&site).is_empty(), "what is left of a pool is thrown away");
}
