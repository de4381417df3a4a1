//! Tampering of every kind, and the exit code it must get.

use super::*;

fn draft(n: u64) -> AuditDraft {
    AuditDraft {
        chain: "run/tidy".to_owned(),
        actor: Principal { id: "local:ann".to_owned(), method: "socket".to_owned() },
        op: "request.approved".to_owned(),
        object_type: "request".to_owned(),
        object_id: format!("q-{n}"),
        before: Some("pending".to_owned()),
        after: Some("approved".to_owned()),
        fence: Some("run/tidy#3".to_owned()),
        digests: BTreeMap::from([("subject".to_owned(), Digest::of(b"s").to_string())]),
        reason: "looks good".to_owned(),
        request: BTreeMap::new(),
    }
}

fn chain(length: u64) -> (Vec<AuditRecord>, (u64, Digest)) {
    let mut prev_hash = NO_RECORD;
    let records: Vec<_> = (1..=length)
        .map(|seq| {
            let at = Timestamp::from_millis(1_767_225_600_000 + seq.cast_signed());
            let place = AuditPlace { cluster: "c-1", incarnation: 2, seq, leaf_index: seq - 1, prev_hash, at };
            let record = draft(seq).seal(&place);
            prev_hash = record.hash;
            record
        })
        .collect();
    (records, (length, prev_hash))
}

fn code(records: &[AuditRecord], head: (u64, Digest)) -> u8 {
    verify_chain("run/tidy", records, head).map_or_else(|e| e.exit_code(), |()| 0)
}

#[test]
fn a_body_is_canonical_and_its_hash_is_pinned() {
    let (records, _) = chain(1);
    assert_eq!(
        records[0].body,
        concat!(
            r#"{"actor":{"auth_method":"socket","id":"local:ann","kind":"local","roles":[],"session":null},"#,
            r#""after_state":"approved","before_state":"pending","chain":"run/tidy","cluster":"c-1","#,
            r#""digests":{"subject":"sha256:043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"},"#,
            r#""fence":{"epoch":3,"scope":"run/tidy"},"incarnation":2,"object":{"id":"q-1","type":"request"},"#,
            r#""on_behalf_of":null,"op":"request.approved","reason":"looks good","redactions":[],"request":{},"#,
            r#""seq":1,"ts_db":"2026-01-01T00:00:00.001Z","v":1}"#,
        )
    );
    let mut bytes = b"autopack-audit-v1\0".to_vec();
    bytes.extend([0; 32]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend(Digest::of(records[0].body.as_bytes()).as_bytes());
    assert_eq!(records[0].hash, Digest::of(&bytes));
}

#[test]
fn a_whole_chain_passes_and_so_does_an_empty_one() {
    let (records, head) = chain(20);
    assert_eq!(code(&records, head), 0);
    assert_eq!(code(&[], (0, NO_RECORD)), 0);
}

#[test]
fn any_flipped_byte_of_a_body_is_found() {
    let (records, head) = chain(2);
    for at in 0..records[0].body.len() {
        let mut forged = records.clone();
        let mut bytes = forged[0].body.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(body) = String::from_utf8(bytes) else {
            continue;
        };
        forged[0].body = body;
        assert_eq!(code(&forged, head), 2, "byte {at}");
    }
}

#[test]
fn a_deleted_or_swapped_record_is_a_break_at_its_place() {
    let (records, head) = chain(5);
    let mut deleted = records.clone();
    deleted.remove(2);
    let found = verify_chain("run/tidy", &deleted, head).unwrap_err();
    assert!(matches!(&found, AuditBreak::Chain { seq: 3, chain, .. } if chain == "run/tidy"), "{found}");

    let mut swapped = records.clone();
    swapped.swap(1, 3);
    assert_eq!(code(&swapped, head), 2);

    // Swapped, with the numbers made to fit.
    let mut renumbered = records;
    renumbered.swap(1, 3);
    renumbered[1].seq = 2;
    renumbered[3].seq = 4;
    assert_eq!(code(&renumbered, head), 2);
}

#[test]
fn columns_that_the_hash_does_not_cover_are_compared_with_the_body() {
    let (records, head) = chain(3);
    let mut moved = records.clone();
    moved[1].at = moved[1].at.plus_seconds(-3600);
    assert_eq!(code(&moved, head), 2);
    let mut renamed = records;
    renamed[1].chain = "run/other".to_owned();
    assert_eq!(code(&renamed, head), 2);
}

#[test]
fn a_chain_moved_under_another_name_is_found() {
    let (records, head) = chain(3);
    assert!(verify_chain("run/other", &records, head).is_err());
}

#[test]
fn a_cut_tail_is_told_from_a_break() {
    let (records, head) = chain(5);
    assert_eq!(code(&records[..3], head), 3);
    assert_eq!(code(&[], head), 3);
}

#[test]
fn records_that_the_head_does_not_know_are_a_break() {
    let (records, _) = chain(5);
    assert_eq!(code(&records, (4, records[3].hash)), 2);
    assert_eq!(code(&records, (5, records[3].hash)), 2);
}

#[test]
fn a_rewritten_suffix_has_another_head() {
    let (mut records, head) = chain(5);
    for n in 3..5 {
        let prev_hash = records[n - 1].hash;
        let (seq, leaf_index, at) = (records[n].seq, records[n].leaf_index, records[n].at);
        let forged = AuditDraft { reason: "nothing to see".to_owned(), ..draft(seq) };
        records[n] = forged.seal(&AuditPlace { cluster: "c-1", incarnation: 2, seq, leaf_index, prev_hash, at });
    }
    assert_eq!(code(&records, head), 2);
}

#[test]
fn a_record_without_a_position_says_so() {
    let (mut records, _) = chain(2);
    assert_eq!([records[0].position(), records[1].position()], [Some(0), Some(1)]);
    records[1].leaf_index = UNNUMBERED;
    assert_eq!(records[1].position(), None);
}

#[test]
fn long_or_hostile_reasons_are_escaped_cut_and_pinned() {
    let place = AuditPlace {
        cluster: "c",
        incarnation: 0,
        seq: 1,
        leaf_index: 0,
        prev_hash: NO_RECORD,
        at: Timestamp::from_millis(0),
    };
    let reason = format!("a\u{1b}[2J\n{}", "x".repeat(600));
    let record = AuditDraft { reason: reason.clone(), ..draft(1) }.seal(&place);
    let body: Value = serde_json::from_str(&record.body).unwrap();
    let kept = body["reason"].as_str().unwrap();
    assert!(kept.starts_with(r"a\u{1b}[2J\u{a}xxx"), "{kept}");
    assert_eq!(kept.chars().count(), 500);
    assert_eq!(body["digests"]["reason"], Digest::of(reason.as_bytes()).to_string());
}

#[test]
fn large_integers_are_text() {
    assert_eq!(integer(1 << 53), Value::from(1_u64 << 53));
    assert_eq!(integer((1 << 53) + 1), Value::from("9007199254740993"));
}
