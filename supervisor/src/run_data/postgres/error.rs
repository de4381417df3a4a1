//! What the server said, by its error codes. Nothing here repeats a URL or a password: the driver's errors name neither.

use sqlx::postgres::PgDatabaseError;

use crate::run_data::RunDataError;

/// Our word for a failure of the server or of the driver.
pub(super) fn failed(error: &sqlx::Error) -> RunDataError {
    let sqlx::Error::Database(database) = error else {
        // What the driver complains about may be a part of the URL.
        let why = if matches!(error, sqlx::Error::Configuration(_)) {
            "a setting of the connection is not valid".to_owned()
        } else {
            error.to_string()
        };
        return unavailable(why, "check that it runs and can be reached");
    };
    let code = database.code().unwrap_or_default().into_owned();
    let why = format!("{} (SQLSTATE {code})", database.message());
    match code.as_str() {
        // An object or a role that we were about to make.
        "42710" | "42P04" | "42P06" => RunDataError::Taken(why),
        "42501" => unavailable(why, "give its login the privileges that docs/CLUSTER.md lists"),
        "3D000" => unavailable(why, "make the database, or correct its name"),
        "53200" => unavailable(why, "raise max_locks_per_transaction on it"),
        code if code.starts_with("28") => unavailable(why, "check user and password of its URL, and pg_hba.conf"),
        _ => unavailable(why, "wait a moment; it is tried again"),
    }
}

pub(super) const fn unavailable(why: String, hint: &'static str) -> RunDataError {
    RunDataError::Unavailable { why, hint }
}

/// Whether the server let somebody past the check of passwords who does not exist: then it has none for this way in.
pub(super) fn is_past_the_door(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    // The text is translated, the routine that speaks is not.
    let refused = database.try_downcast_ref::<PgDatabaseError>();
    refused.is_some_and(|refused| refused.code() == "28000" && refused.routine() == Some("InitializeSessionUserId"))
}
