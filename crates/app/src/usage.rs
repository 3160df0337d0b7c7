//! Errors as users see them: one sentence, and an exit code that says whose fault it was.

use std::fmt;
use std::process::ExitCode;

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

/// Prints an error and gives its exit code.
#[allow(clippy::print_stderr)] // this is where errors meet the user
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Causes that repeat what their context already says are left out.
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    eprintln!("error: {sentence}");
    ExitCode::from(if error.downcast_ref::<UsageError>().is_some() { 2 } else { 1 })
}
