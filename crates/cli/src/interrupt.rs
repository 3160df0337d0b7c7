//! Ctrl-C ends a run in order: the frame in work is finished, files are closed, the summary is printed.

use ultramotion::Stop;

/// A [`Stop`] that Ctrl-C sets. A second one ends the program at once.
pub(crate) fn listen() -> Stop {
    let stop = Stop::default();
    let asked = stop.clone();
    let handler = move || {
        if asked.set() {
            std::process::exit(130);
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!(%error, "Ctrl-C will end the program without a summary");
    }
    stop
}
