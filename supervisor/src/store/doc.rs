//! Rows on disk: the whole row is a JSON document with a version, save what a write changes under guard (state,
//! version, `done_at`, ...), which stands in columns only. Keys that are searched stand in columns besides.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{StoreError, StoreResult};

/// The version of every document this program writes.
const VERSION: u64 = 1;

/// Writes a row's document, without the fields that have columns.
pub(super) fn pack<T: Serialize>(row: &T, columns: &[&str]) -> StoreResult<String> {
    let value = serde_json::to_value(row).map_err(|e| broken(&e))?;
    let Value::Object(mut fields) = value else {
        return Err(StoreError::Corrupt("a row that is no JSON object".to_owned()));
    };
    for column in columns {
        fields.remove(*column);
    }
    fields.insert("v".to_owned(), VERSION.into());
    Ok(Value::Object(fields).to_string())
}

/// Reads a row from its document and the fields that have columns.
pub(super) fn unpack<T, const N: usize>(doc: &str, columns: [(&str, Value); N]) -> StoreResult<T>
where
    T: DeserializeOwned,
{
    let mut fields: Map<String, Value> = serde_json::from_str(doc).map_err(|e| broken(&e))?;
    let version = fields.remove("v");
    if version != Some(VERSION.into()) {
        return Err(StoreError::Corrupt(format!("a document of version {version:?}; {VERSION} is known")));
    }
    fields.extend(columns.map(|(name, value)| (name.to_owned(), value)));
    serde_json::from_value(Value::Object(fields)).map_err(|e| broken(&e))
}

fn broken(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(format!("a document cannot be read or written: {error}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        state: String,
        name: String,
    }

    #[test]
    fn a_column_is_kept_out_of_the_document_and_put_back() {
        let row = Row { state: "new".to_owned(), name: "x".to_owned() };
        let doc = pack(&row, &["state"]).unwrap();
        assert_eq!(doc, r#"{"name":"x","v":1}"#);
        assert_eq!(unpack::<Row, 1>(&doc, [("state", "new".into())]).unwrap(), row);
    }

    #[test]
    fn a_document_of_another_version_is_refused() {
        for doc in [r#"{"name":"x","state":"new","v":2}"#, r#"{"name":"x","state":"new"}"#, "[]"] {
            assert!(matches!(unpack::<Row, 0>(doc, []), Err(StoreError::Corrupt(_))), "{doc}");
        }
    }
}
