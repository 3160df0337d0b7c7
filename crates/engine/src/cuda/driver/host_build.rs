//! Builds the kernels for this machine's processor, for tests.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::CudaError;

/// How the sources are compiled. Kernels are asked to check alignment: `emulate.cpp` has what is called where it is wrong.
const FLAGS: [&str; 4] = ["-std=c++20", "-O1", "-fPIC", "-w"];
const KERNEL_FLAGS: [&str; 1] = ["-fsanitize=alignment"];

/// Compiles every `.cu` of the engine and of the folders in `more` with the C++ compiler (`CXX`, or `c++`) into a library
/// that an emulated device opens, in `out`. What is there already is not built again.
pub fn build_for_host(more: &[PathBuf], out: &Path) -> Result<PathBuf, CudaError> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let (kernels, shim) = (engine.join("kernels"), engine.join("emulate"));
    let mut folders = vec![kernels.clone(), shim.clone()];
    folders.extend(more.iter().cloned());
    let mut files = Vec::new();
    for folder in &folders {
        let entries = std::fs::read_dir(folder).map_err(|e| failed("read", folder, &e))?;
        files.extend(entries.filter_map(|entry| entry.ok().map(|e| e.path())));
    }
    files.sort();
    let is = |path: &Path, suffix: &str| path.extension().is_some_and(|s| s == suffix);

    let mut headers = DefaultHasher::new();
    (FLAGS, KERNEL_FLAGS).hash(&mut headers);
    for file in files.iter().filter(|f| is(f, "cuh") || is(f, "h")) {
        std::fs::read(file).map_err(|e| failed("read", file, &e))?.hash(&mut headers);
    }
    std::fs::create_dir_all(out).map_err(|e| failed("make", out, &e))?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut whole = DefaultHasher::new();
    let mut objects = Vec::new();
    for file in files.iter().filter(|f| is(f, "cu") || is(f, "cpp")) {
        let mut content = headers.clone();
        std::fs::read(file).map_err(|e| failed("read", file, &e))?.hash(&mut content);
        let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or("kernel");
        let object = out.join(format!("{stem}-{:016x}.o", content.finish()));
        object.hash(&mut whole);
        if !object.exists() {
            make(&object, |target| {
                let mut command = Command::new(&compiler);
                command
                    .args(FLAGS)
                    .args(KERNEL_FLAGS.iter().filter(|_| is(file, "cu")))
                    .args(["-x", "c++", "-c"]);
                command.arg("-I").arg(&shim).arg("-I").arg(&kernels).arg(file).arg("-o").arg(target);
                command
            })?;
        }
        objects.push(object);
    }
    let library = out.join(format!("kernels-{:016x}.so", whole.finish()));
    if !library.exists() {
        make(&library, |target| {
            let mut command = Command::new(&compiler);
            command.arg("-shared").args(&objects).arg("-o").arg(target);
            command
        })?;
    }
    Ok(library)
}

/// Runs a compiler whose result appears at once and whole: several test programs may build the same file.
fn make(path: &Path, command: impl Fn(&Path) -> Command) -> Result<(), CudaError> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let mut command = command(&partial);
    let ran = command.output().map_err(|e| CudaError::Host(format!("cannot run {command:?}: {e}")))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(CudaError::Host(format!("{command:?} failed:\n{said}")));
    }
    std::fs::rename(&partial, path).map_err(|e| failed("make", path, &e))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> CudaError {
    CudaError::Host(format!("cannot {what} {}: {error}", path.display()))
}
