//! Errors as users see them: one sentence, and an exit code that says whose fault it was.

use std::fmt;
use std::process::ExitCode;

use ultramotion::SourceError;

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

/// Prints an error and gives its exit code.
#[allow(clippy::print_stderr)] // this is where errors meet the user
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Causes that repeat what their context already says are left out, and the system's own words: who met them has
    // said them in plain ones.
    let mut sentence = error.to_string();
    for cause in error.chain().skip(1).filter(|cause| !cause.is::<std::io::Error>()).map(ToString::to_string)
    {
        if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    eprintln!("error: {sentence}");
    ExitCode::from(if error.downcast_ref::<UsageError>().is_some() { 2 } else { 1 })
}

/// What a defect looks like to the user. A reader that has seen enough, as in `ultramotion models list | head -1`,
/// meets no defect: the program ends as quietly as others do.
#[allow(clippy::print_stderr)]
pub(crate) fn on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let message = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if message.starts_with("failed printing to std") && message.contains("Broken pipe") {
            std::process::exit(BROKEN_PIPE);
        }
        usual(info);
    }));
}

/// Exit code of a program that wrote to a pipe without a reader, as shells report it: 128 and the signal's number.
const BROKEN_PIPE: i32 = 141;
