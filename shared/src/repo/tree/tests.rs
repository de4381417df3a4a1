//! Raw trees: odd, hostile and huge ones.

use super::*;

fn entry(mode: u32, name: &str, oid: Oid) -> Entry {
    Entry { mode, name: name.as_bytes().to_vec(), oid }
}

#[test]
fn round_trip_keeps_odd_modes_and_hostile_names() {
    let dir = tempfile::tempdir().unwrap();
    let repo = super::super::open::init_bare(dir.path()).unwrap();
    let odb = repo.odb().unwrap();
    let blob = from_git(odb.write(ObjectType::Blob, b"x").unwrap());
    let inner = write(&odb, vec![entry(0o100_664, ".git", blob)]).unwrap();
    let entries = vec![entry(0o040_000, "a", inner), entry(0o100_644, "a.b", blob), entry(0o104_755, "a\n", blob)];
    let tree = write(&odb, entries.clone()).unwrap();
    let mut back = read(&odb, tree).unwrap();
    back.sort_by(|a, b| a.name.cmp(&b.name));
    let mut want = entries;
    want.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(back, want);
    assert_eq!(closure(&odb, tree, &HashSet::new()).unwrap().len(), 3);
}

#[test]
fn malformed_trees_are_refused() {
    let id = [7_u8; 20];
    let raw = |names: &[&str]| {
        names.iter().flat_map(|name| [format!("100644 {name}\0").as_bytes(), &id].concat()).collect::<Vec<u8>>()
    };
    assert!(parse(&raw(&["a", "b"])).is_ok());
    for bad in
        [raw(&["b", "a"]), raw(&["a", "a"]), raw(&[""]), raw(&["a/b"]), b"100644 a\0short".to_vec(), b"abc".to_vec()]
    {
        assert!(parse(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_tree_bomb_meets_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let repo = super::super::open::init_bare(dir.path()).unwrap();
    let odb = repo.odb().unwrap();
    let mut oid = from_git(odb.write(ObjectType::Blob, b"x").unwrap());
    for level in 0..10 {
        let mode = if level == 0 { 0o100_644 } else { 0o040_000 };
        oid = write(&odb, (0..10).map(|n| entry(mode, &format!("e{n}"), oid)).collect()).unwrap();
    }
    assert!(matches!(diff(&repo, None, Some(oid), 1000), Err(TreeError::TooComplex { .. })));
    assert_eq!(closure(&odb, oid, &HashSet::new()).unwrap().len(), 11);
}
