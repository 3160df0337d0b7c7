//! Help texts, as printed.

use crate::program::start;

fn help(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let finished = start(folder.path(), arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    // Lines without trailing spaces, so that an editor does not break the snapshot.
    finished.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn program() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn run() {
    insta::assert_snapshot!(help(&["run", "--help"]));
}

#[test]
fn eval() {
    insta::assert_snapshot!(help(&["eval", "--help"]));
}

#[test]
fn serve() {
    insta::assert_snapshot!(help(&["serve", "--help"]));
}

#[test]
fn recover() {
    insta::assert_snapshot!(help(&["recover", "--help"]));
}

#[test]
fn export() {
    insta::assert_snapshot!(help(&["export", "--help"]));
}

#[test]
fn parity() {
    insta::assert_snapshot!(help(&["parity", "--help"]));
}

#[test]
fn bench() {
    insta::assert_snapshot!(help(&["bench", "--help"]));
}

#[test]
fn audit() {
    insta::assert_snapshot!(help(&["audit", "--help"]));
}

#[test]
fn models() {
    insta::assert_snapshot!(help(&["models", "--help"]));
}

#[test]
fn models_convert() {
    insta::assert_snapshot!(help(&["models", "convert", "--help"]));
}

#[test]
fn simulate() {
    insta::assert_snapshot!(help(&["simulate", "--help"]));
}

#[test]
fn igtl_decode() {
    insta::assert_snapshot!(help(&["igtl", "decode", "--help"]));
}

#[test]
fn no_command_shows_the_help_and_is_a_wrong_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let finished = start(folder.path(), &[]);
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("Usage: ultramotion <COMMAND>"), "{}", finished.stderr);
}
