//! What a person at a terminal sees and says while a command goes on: lines of progress above a spinner, questions and
//! answers. Without a terminal there is no spinner and nobody is asked.

use std::io::{self, BufRead as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::exit::{CliError, During as _};
use crate::output::Output;

/// The person at the terminal, if there is one.
#[derive(Debug)]
pub(crate) struct Console {
    out: Output,
    bar: Option<ProgressBar>,
    // Filled by a thread of its own: a read of a terminal cannot be cancelled.
    lines: Option<mpsc::Receiver<String>>,
}

impl Console {
    /// A console on these streams.
    pub(crate) fn new(out: &Output) -> Self {
        let bar = (out.terminal && !out.quiet && !out.machine()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { out: out.clone(), bar, lines: None }
    }

    /// A line for people, above the spinner.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.note(text)),
            None => self.out.note(text),
        }
    }

    /// Data on stdout, above the spinner.
    pub(crate) fn data(&self, text: &str) -> Result<(), CliError> {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.text(text)),
            None => self.out.text(text),
        }
    }

    /// What the spinner says.
    pub(crate) fn status(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }

    /// Takes the spinner away.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Asks, and waits for a line; none when the terminal was closed.
    pub(crate) async fn ask(&mut self, question: &str) -> Result<Option<String>, CliError> {
        self.done();
        self.out.prompt(question);
        if self.lines.is_none() {
            self.lines = Some(listen()?);
        }
        let Some(lines) = &mut self.lines else { return Ok(None) };
        Ok(lines.recv().await.map(|line| line.trim().to_owned()))
    }
}

/// Reads stdin line by line on a thread that ends with it.
fn listen() -> Result<mpsc::Receiver<String>, CliError> {
    let (send, receive) = mpsc::channel(1);
    let read = move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).during("read the terminal")?;
    Ok(receive)
}
