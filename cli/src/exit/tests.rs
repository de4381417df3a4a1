//! The failure table and how a failure is told.

use std::fmt::Write as _;

use tonic_types::ErrorDetails;

use super::*;

#[test]
fn the_table_of_reasons_and_exits() {
    let mut table = String::new();
    for (exit, reasons) in TABLE {
        for reason in *reasons {
            writeln!(table, "{:>3}  {reason}", exit.code()).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn no_reason_stands_in_the_table_twice() {
    let mut all: Vec<&str> = TABLE.iter().flat_map(|(_, reasons)| reasons.iter().copied()).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

fn status(code: Code, reason: &str, hint: &str) -> Status {
    let metadata = std::collections::HashMap::from([("hint".to_owned(), hint.to_owned())]);
    let details = ErrorDetails::with_error_info(reason, "autopack.dev", metadata);
    Status::with_error_details(code, "it says no", details)
}

#[test]
fn the_reason_of_a_status_wins_over_its_code() {
    let failed = |code, reason| Err::<(), _>(status(code, reason, "do that")).during("ask").unwrap_err();
    let denied = failed(Code::FailedPrecondition, "OVER_LIMIT");
    assert_eq!((denied.reason().as_ref(), denied.exit()), ("over_limit", Exit::Refused));
    assert_eq!(denied.lines(), ["cannot ask", "it says no", "do that"]);
    let unknown = failed(Code::FailedPrecondition, "SOMETHING_NEW");
    assert_eq!((unknown.reason().as_ref(), unknown.exit()), ("something_new", Exit::Conflict));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what a broken connection gives")]
fn a_status_without_details_goes_by_its_code() {
    let error = Err::<(), _>(Status::unavailable("gone")).during("ask").unwrap_err();
    assert_eq!((error.reason().as_ref(), error.exit()), ("unavailable", Exit::Unavailable));
}

#[test]
fn a_connection_that_broke_is_a_service_away_and_no_bug() {
    let broke = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
    let error = CliError::Engine { what: "x".into(), status: Box::new(broke) };
    assert_eq!((error.reason().as_ref(), error.exit()), ("unavailable", Exit::Unavailable));
}

#[test]
fn a_full_disk_is_a_service_away_and_a_missing_file_is_not_found() {
    let of = |kind| Err::<(), _>(io::Error::from(kind)).during("write x").unwrap_err().exit();
    assert_eq!(of(io::ErrorKind::StorageFull), Exit::Unavailable);
    assert_eq!(of(io::ErrorKind::NotFound), Exit::NotFound);
    assert_eq!(of(io::ErrorKind::PermissionDenied), Exit::Unavailable);
    assert_eq!(of(io::ErrorKind::IsADirectory), Exit::Usage);
    let denied = |what: &str| Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied)).during(what).unwrap_err();
    assert_eq!(denied("write x").reason(), "read_only");
    assert!(denied("write x").lines()[2].contains("--data-dir") && denied("read x").lines()[2].contains("readable"));
}
