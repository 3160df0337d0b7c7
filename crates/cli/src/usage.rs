//! Errors as users see them: one sentence, and an exit code that says whose fault it was.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::process::ExitCode;

use ultramotion::SourceError;

use crate::output::{self, OutputError, note};

/// The command line or the configuration is wrong: exit code 2.
#[derive(Debug)]
pub(crate) struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Makes a usage error of any error.
pub(crate) fn usage(error: impl fmt::Display) -> anyhow::Error {
    UsageError(error.to_string()).into()
}

/// A source's name may be wrong, which is the command line's fault, or what it names.
pub(crate) fn source_error(error: SourceError) -> anyhow::Error {
    if error.is_in_name() { usage(error) } else { error.into() }
}

/// Prints an error and gives its exit code. That nobody reads the answers any more is none.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref().is_some_and(OutputError::is_seen_enough) {
        return ExitCode::SUCCESS;
    }
    // Causes that repeat what their context already says are left out, and the system's own words: who met them has
    // said them in plain ones.
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).filter(|cause| !cause.is::<std::io::Error>()).map(ToString::to_string)
    {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    note!("error: {sentence}");
    ExitCode::from(if error.downcast_ref::<UsageError>().is_some() { 2 } else { 1 })
}

/// What a defect looks like to the user: words like all others, so that a panic does not wait for who reads them.
pub(crate) fn on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        note!("thread '{}' {info}", thread.name().unwrap_or("?"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            note!("{trace}");
        }
        // That of the main thread is the end.
        if thread.name() == Some("main") {
            output::end();
        }
    }));
}
