//! Ctrl-C, and whatever else asks the program to end, ends it in order: the frame in work is finished, files are closed, the
//! summary is printed.

use ultramotion::Stop;

/// Exit code of a program that was told to end a second time, as shells report Ctrl-C: 128 and the signal's number.
const TOLD_TWICE: i32 = 130;

/// A [`Stop`] that is set by SIGINT (Ctrl-C), SIGTERM (systemd, Docker) and SIGHUP (the terminal is gone), and by the
/// console's events on Windows. A second one ends the program at once. Where `nohup` has SIGHUP ignored, it stays so.
pub(crate) fn listen() -> Stop {
    let stop = Stop::default();
    let asked = stop.clone();
    let asked_to_end = move || {
        if asked.set() {
            std::process::exit(TOLD_TWICE);
        }
    };
    if let Err(error) = on_each(asked_to_end) {
        tracing::warn!("signals cannot be watched ({error}): Ctrl-C will end the program without a summary");
    }
    stop
}

#[cfg(unix)]
fn on_each(asked_to_end: impl Fn() + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let watch = move || signals.forever().for_each(|_| asked_to_end());
    std::thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(())
}

/// Whether whoever started the program has a signal ignored. Known on Linux alone; elsewhere it is not.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn on_each(asked_to_end: impl Fn() + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(asked_to_end)
}
