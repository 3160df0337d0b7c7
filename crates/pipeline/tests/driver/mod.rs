//! Runs a test again in a process of its own, whose CUDA driver is `driver.c`.

use std::path::{Path, PathBuf};
use std::process::Command;

const LOG: &str = "DRIVER_LOG";

/// In the process with that driver: nothing. Before it: builds the driver, starts the test `name` with it and `settings`, and
/// gives the calls that it got. `None` where there is no C compiler.
#[allow(clippy::print_stderr)]
pub fn calls_of(name: &str, settings: &[(&str, &str)]) -> Option<Vec<String>> {
    // A colon would end it in a list of folders.
    let folder = format!("driver-{}", name.replace("::", "-"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/tests/driver/driver.c");
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(folder.join("libcuda.so"));
    match compiler.arg(source).arg("-lpthread").output() {
        Ok(built) => assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
        Err(error) => {
            eprintln!("skipped: no C compiler ({error})");
            return None;
        }
    }
    let log = folder.join("calls.txt");
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture"]).env("LD_LIBRARY_PATH", &folder).env(LOG, &log);
    let ran = test.envs(settings.iter().copied()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    Some(std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect())
}

/// The file of calls, in the process with that driver.
pub fn log() -> Option<PathBuf> {
    std::env::var_os(LOG).map(PathBuf::from)
}
