//! What several of the tests need.
#![allow(dead_code, clippy::print_stderr)]

use std::path::PathBuf;

/// The conformance corpus: `igtl/` in the folder beside the checkout, or where
/// `ULTRAMOTION_SHARED` points. `None`, with a line on the terminal, where it is absent.
pub fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("ULTRAMOTION_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let corpus = shared.join("igtl");
    if corpus.join("upstream-fixtures.json").is_file() {
        return Some(corpus);
    }
    eprintln!(
        "SKIPPED: no OpenIGTLink corpus at {}; put it there or point ULTRAMOTION_SHARED at the folder above it",
        corpus.display()
    );
    None
}

/// The messages of the reference library, by name.
pub fn upstream_messages(corpus: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(corpus.join("upstream-fixtures.json")).expect("readable fixtures");
    let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    let fixtures = json["fixtures"].as_object().expect("an object of fixtures");
    fixtures.iter().map(|(name, f)| (name.clone(), from_hex(f["wire_hex"].as_str().expect("hex")))).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
            digit(pair[0]) << 4 | digit(pair[1])
        })
        .collect()
}

/// A Python that has pyigtl: the one that `ULTRAMOTION_PYTHON` names, or `python3`. `None`, with a
/// line on the terminal, where there is none.
pub fn python_with_pyigtl() -> Option<String> {
    let python = std::env::var("ULTRAMOTION_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = std::process::Command::new(&python).args(["-c", "import pyigtl"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!(
        "SKIPPED: `{python} -c 'import pyigtl'` fails; `pip install pyigtl`, \
         or point ULTRAMOTION_PYTHON at a Python that has it"
    );
    None
}
