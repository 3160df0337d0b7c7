//! Playing at a source's own pace.

use std::thread;
use std::time::{Duration, Instant};

/// Longest sleep, so that a stop is heard.
const NAP: Duration = Duration::from_millis(20);

/// Sleeps until a frame is due; `false` if `stop` said so first, which is asked at least every 20 ms.
pub fn wait_until(due: Instant, stop: &dyn Fn() -> bool) -> bool {
    while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        if stop() {
            return false;
        }
        thread::sleep(rest.min(NAP));
    }
    true
}
