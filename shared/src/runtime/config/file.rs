//! Reads the host's sections of `autopack.toml` into dotted keys with the lines they stand on.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, HOST_SECTIONS, Origin, PROJECT_SECTIONS, SETTINGS, nearest};

/// The values by dotted key, with their lines.
type Written = BTreeMap<&'static str, (String, usize)>;

struct Reader<'a> {
    text: &'a str,
    path: &'a str,
    written: Written,
}

/// Reads the file; the sections of the repository are left to others.
pub(super) fn read(text: &str, path: &str) -> Result<Written, ConfigError> {
    let mut reader = Reader { text, path, written: Written::new() };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: reader.origin(error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    for (name, value) in table.get_ref() {
        let section: &str = name.get_ref();
        if PROJECT_SECTIONS.contains(&section) {
            continue;
        }
        if !HOST_SECTIONS.contains(&section) {
            let known = HOST_SECTIONS.iter().chain(PROJECT_SECTIONS).copied();
            return Err(reader.unknown(section, name.span().start, nearest(section, known)));
        }
        reader.value(section, name.span().start, value)?;
    }
    Ok(reader.written)
}

impl Reader<'_> {
    fn value(&mut self, key: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let text = match value.get_ref() {
            DeValue::Table(table) => return self.section(key, table),
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().replace('_', ""),
            DeValue::Float(number) => number.as_str().replace('_', ""),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) => String::new(),
        };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.in_file() && setting.key == key) else {
            let known = SETTINGS.iter().filter(|setting| setting.in_file()).map(|setting| setting.key);
            return Err(self.unknown(key, at, nearest(key, known)));
        };
        self.written.insert(setting.key, (text, self.line(at)));
        Ok(())
    }

    fn section(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            self.value(&format!("{prefix}.{}", name.get_ref()), name.span().start, value)?;
        }
        Ok(())
    }

    fn unknown(&self, key: &str, at: usize, meant: Option<String>) -> ConfigError {
        ConfigError::Unknown { origin: self.origin(at), key: key.to_owned(), meant }
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(at) }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }
}
