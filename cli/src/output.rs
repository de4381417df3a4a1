//! Where output goes: data on stdout, everything else on stderr. JSON documents carry their format; text is escaped
//! by whoever makes it.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use autopack_shared::runtime::config::Environment;

use crate::exit::{CliError, During as _};
use crate::terminal::{Table, Tone, line, paint};

/// How data is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One indented document.
    Json,
    /// One document a line.
    Jsonl,
    /// A SARIF 2.1.0 log; `gaps scan` only.
    Sarif,
}

/// The streams of the process and what they can do.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// How data is written.
    pub(crate) format: Format,
    /// Whether notes are left out.
    pub(crate) quiet: bool,
    /// Whether stderr takes colour.
    pub(crate) color: bool,
    /// Whether stdout takes colour.
    pub(crate) data_color: bool,
    /// Whether a person sits at both ends: stdin and stderr are terminals.
    pub(crate) interactive: bool,
    /// Whether stderr is a terminal, for progress.
    pub(crate) terminal: bool,
    /// The width of a line.
    pub(crate) width: usize,
}

impl Output {
    /// Looks at the streams once.
    pub(crate) fn of_process(format: Format, quiet: bool, no_color: bool, env: &Environment) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let color = !no_color && env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb");
        Self {
            format,
            quiet,
            color: color && err,
            data_color: color && out,
            interactive: err && io::stdin().is_terminal(),
            terminal: err,
            width: width(env),
        }
    }

    /// Whether data is for programs.
    pub(crate) const fn machine(&self) -> bool {
        match self.format {
            Format::Text => false,
            Format::Json | Format::Jsonl | Format::Sarif => true,
        }
    }

    /// Refuses the format that only a scan can write.
    pub(crate) fn no_sarif(&self) -> Result<(), CliError> {
        if self.format == Format::Sarif {
            let what = "this command cannot write SARIF";
            return Err(CliError::invalid(what, "-o sarif belongs to `gaps scan`", "use -o json"));
        }
        Ok(())
    }

    /// Writes data as it is. A reader that went away is no failure.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.during("write to stdout"),
        }
    }

    /// Writes text data.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        self.raw(text.as_bytes())
    }

    /// Writes a table.
    pub(crate) fn table(&self, table: &Table) -> Result<(), CliError> {
        self.text(&table.render(self.width, self.data_color))
    }

    /// Writes one document: indented, or on one line for jsonl.
    pub(crate) fn document<T: Serialize>(&self, document: &T) -> Result<(), CliError> {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(document),
            Format::Text | Format::Json | Format::Sarif => serde_json::to_string_pretty(document),
        };
        self.text(&(text.map_err(io::Error::from).during("write JSON")? + "\n"))
    }

    /// Writes one document of a stream, always on one line.
    pub(crate) fn event<T: Serialize>(&self, document: &T) -> Result<(), CliError> {
        self.text(&(serde_json::to_string(document).map_err(io::Error::from).during("write JSON")? + "\n"))
    }

    /// Writes a list: `{"format": "runs/1", "runs": [...]}`, or one `run/1` a line.
    pub(crate) fn list(&self, plural: &str, singular: &str, items: Vec<Value>) -> Result<(), CliError> {
        if self.format == Format::Jsonl {
            return items.into_iter().try_for_each(|item| self.event(&tagged(singular, item)));
        }
        self.document(&json!({ "format": format!("{plural}/1"), plural: items }))
    }

    /// A line for people on stderr; left out with `-q`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.stderr(text);
        }
    }

    /// A warning on stderr; never left out.
    pub(crate) fn warn(&self, text: &str) {
        self.stderr(&format!("{} {text}", paint(self.color, Tone::Warn, "warning:")));
    }

    /// A failure on stderr, in three lines.
    pub(crate) fn failure(&self, error: &CliError) {
        let [what, why, fix] = error.lines();
        let head = paint(self.color, Tone::Bad, &format!("error[{}]:", line(&error.reason())));
        self.stderr(&format!("{head} {}", line(&what)));
        self.stderr(&format!("  because: {}", line(&why)));
        self.stderr(&format!("  do this: {}", line(&fix)));
    }

    /// A question on stderr, without a line end.
    pub(crate) fn prompt(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{text} ").and_then(|()| err.flush());
    }

    fn stderr(&self, text: &str) {
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A document with its format.
pub(crate) fn tagged(name: &str, document: Value) -> Value {
    let mut document = document;
    if let Value::Object(fields) = &mut document {
        fields.insert("format".to_owned(), Value::from(format!("{name}/1")));
    }
    document
}

fn width(env: &Environment) -> usize {
    let said = env.get("COLUMNS").and_then(|columns| columns.parse().ok());
    let of = |stream: rustix::fd::BorrowedFd<'_>| {
        rustix::termios::tcgetwinsize(stream).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    let (out, err) = (io::stdout(), io::stderr());
    let real = of(rustix::fd::AsFd::as_fd(&out)).or_else(|| of(rustix::fd::AsFd::as_fd(&err)));
    said.or(real).unwrap_or(100).max(40)
}
