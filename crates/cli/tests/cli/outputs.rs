//! Words that cannot be written do not stop the work: outputs that are closed, full, without a reader, or never read.
#![cfg(unix)]

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ultramotion_igtlink::{Content, Image, Message, ScalarType};

use crate::live::{SOON, scanner, send, serve_command};
use crate::program::{by_shell, command, results, run_arguments, shelf};

/// What an output may be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bad {
    Closed,
    Full,
    Broken,
}

impl Bad {
    const ALL: [Self; 3] = [Self::Closed, Self::Full, Self::Broken];

    fn stdio(self) -> Stdio {
        match self {
            // By the shell, below.
            Bad::Closed => Stdio::null(),
            Bad::Full => File::options().write(true).open("/dev/full").unwrap().into(),
            Bad::Broken => {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                writer.into()
            }
        }
    }
}

/// The same program, with an output closed if it is to be.
fn closing(program: Command, bad: Bad, redirection: &str) -> Command {
    if bad == Bad::Closed {
        by_shell(&program, &format!("exec \"$0\" \"$@\" {redirection}"))
    } else {
        program
    }
}

/// Runs a command with one output bad; its code, and what it says on the other one.
fn run_with(folder: &Path, arguments: &[&str], bad: Bad, is_stdout: bool) -> (i32, String) {
    let mut program = closing(command(folder, arguments), bad, if is_stdout { ">&-" } else { "2>&-" });
    let output = if is_stdout {
        program.stdout(bad.stdio()).stderr(Stdio::piped()).output().unwrap()
    } else {
        program.stderr(bad.stdio()).stdout(Stdio::piped()).output().unwrap()
    };
    let said = if is_stdout { output.stderr } else { output.stdout };
    (output.status.code().expect("no signal ends it"), String::from_utf8(said).unwrap())
}

#[test]
fn every_command_ends_well_or_with_one_sentence_whatever_its_outputs_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let detector = shelf().detector().display().to_string();
    let sequence = shelf().sequence().display().to_string();
    std::fs::write(folder.join("message.bin"), "not a message").unwrap();
    let run_two = run_arguments(&sequence, &["--frames", "2"]);
    let run_two: Vec<&str> = run_two.iter().map(String::as_str).collect();
    let commands: [&[&str]; 9] = [
        &run_two,
        &["models", "list"],
        &["models", "inspect", &detector, "--tensors"],
        &["models", "verify", &detector],
        &["igtl", "decode", "message.bin"],
        &["serve", "--print-config"],
        &["doctor"],
        &["simulate", &sequence, "--rate", "200", "--listen", "127.0.0.1:0"],
        &["run", "no-such-file.mha"],
    ];
    for arguments in commands {
        let has = |word| arguments.contains(&word);
        let expected = i32::from(has("decode") || has("no-such-file.mha"));
        for bad in Bad::ALL {
            for is_stdout in [true, false] {
                let what =
                    format!("{arguments:?} with {} {bad:?}", if is_stdout { "stdout" } else { "stderr" });
                let _ = std::fs::remove_dir_all(folder.join("out"));
                let (code, said) = run_with(folder, arguments, bad, is_stdout);
                assert!(!said.contains("panicked"), "{what}: {said}");
                let is_answered = is_stdout && !has("no-such-file.mha");
                match bad {
                    Bad::Full if is_answered => {
                        assert_eq!(code, 1, "{what}: {said}");
                        let sentence = "error: cannot write to standard output: the disk is full; what goes to files is written";
                        assert_eq!(said.lines().last(), Some(sentence), "{what}: {said}");
                    }
                    // Its reader has seen enough, before the verdict of some.
                    Bad::Broken if is_answered => assert_eq!((code, said.as_str()), (0, ""), "{what}"),
                    _ => assert_eq!(code, expected, "{what}: {said}"),
                }
                if arguments == run_two {
                    assert_eq!(results(&folder.join("out")).len(), 2, "{what}");
                }
            }
        }
    }
}

/// Ends a program; its code.
fn end(mut child: Child) -> i32 {
    let deadline = Instant::now() + SOON;
    kill("TERM", &child);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("it ends by itself");
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(signal: &str, child: &Child) {
    Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
}

/// Lines in the results of a recording.
fn recorded(session: &Path) -> usize {
    std::fs::read_to_string(session.join("results.jsonl")).map_or(0, |text| text.lines().count())
}

/// Waits until so many frames are recorded.
fn wait_recorded(session: &Path, frames: usize) {
    let deadline = Instant::now() + SOON;
    while recorded(session) < frames {
        assert!(Instant::now() < deadline, "{} of {frames} frames pass", recorded(session));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn serve_goes_on_where_its_log_cannot_be_written() {
    for bad in Bad::ALL {
        let (scanner, folder) = (scanner(), tempfile::tempdir().unwrap());
        let session = folder.path().join("session");
        let program = serve_command(&scanner, folder.path(), "", &["--json", "--record", "session"]);
        let mut program = closing(program, bad, "2>&-");
        let mut child = program.stderr(bad.stdio()).stdout(Stdio::piped()).spawn().unwrap();
        assert!(scanner.wait_clients(1, SOON));
        send(&scanner, 0);
        wait_recorded(&session, 1);
        // A picture that is not taken is worth a word.
        let image = Image::new(ScalarType::Float32, 1, [4, 4, 1], vec![0; 64]);
        scanner.broadcast(&Message::new("Image_Probe".parse().unwrap(), Content::Image(image))).unwrap();
        for number in 1..4 {
            send(&scanner, number);
            wait_recorded(&session, number + 1);
        }
        let mut stdout = child.stdout.take().unwrap();
        assert_eq!(end(child), 0, "{bad:?}");
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((last["answered"].as_u64(), last["restarts"].as_u64()), (Some(4), Some(0)), "{last}");
        // What is closed is the system's null device: nothing is lost there.
        assert_eq!(last["log_lost"].as_u64() > Some(0), bad != Bad::Closed, "{last}");
    }
}

#[test]
fn serve_goes_on_where_its_figures_cannot_be_written() {
    for bad in Bad::ALL {
        let (scanner, folder) = (scanner(), tempfile::tempdir().unwrap());
        let session = folder.path().join("session");
        let settings = "[report]\nevery_s = 0.01\n";
        let program = serve_command(&scanner, folder.path(), settings, &["--record", "session"]);
        let mut program = closing(program, bad, ">&-");
        let mut child = program.stdout(bad.stdio()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(scanner.wait_clients(1, SOON));
        for number in 0..3 {
            send(&scanner, number);
            wait_recorded(&session, number + 1);
        }
        let mut stderr = child.stderr.take().unwrap();
        assert_eq!(end(child), i32::from(bad == Bad::Full), "{bad:?}");
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(text.contains("error: cannot write to standard output"), bad == Bad::Full, "{text}");
        assert_eq!(results(&session).len(), 3);
    }
}

/// A pipe that is full and never read. Lives as long as its reader.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // Fills it, waits for room, and ends with the reader.
    std::thread::spawn(move || filler.write_all(&[b'x'; 1 << 21]));
    (reader, writer.into())
}

#[test]
fn outputs_that_nobody_reads_hold_up_nothing() {
    for is_stdout in [true, false] {
        let (scanner, folder) = (scanner(), tempfile::tempdir().unwrap());
        let session = folder.path().join("session");
        let settings = "[report]\nevery_s = 0.01\n";
        let mut program = serve_command(&scanner, folder.path(), settings, &["--record", "session"]);
        let (_reader, pipe) = full_pipe();
        let program = if is_stdout {
            program.stdout(pipe).stderr(Stdio::null())
        } else {
            program.stderr(pipe).stdout(Stdio::null())
        };
        let child = program.spawn().unwrap();
        assert!(scanner.wait_clients(1, SOON));
        for number in 0..3 {
            send(&scanner, number);
            wait_recorded(&session, number + 1);
        }
        assert_eq!(end(child), 0);
        let again = crate::program::run(folder.path(), "session", &[]);
        assert_eq!((again.code, results(&folder.path().join("out")).len()), (0, 3), "{}", again.stderr);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, pipe) = full_pipe();
    let sequence = shelf().sequence().display().to_string();
    let arguments = run_arguments(&sequence, &[]);
    let mut program = command(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    // Its summary waits for a reader who never comes.
    let mut child = program.stdout(pipe).stderr(Stdio::null()).spawn().unwrap();
    wait_recorded(&folder.path().join("out"), 12);
    let deadline = Instant::now() + SOON;
    let code = loop {
        kill("INT", &child);
        std::thread::sleep(Duration::from_millis(20));
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "it ends");
    };
    assert_eq!(code, Some(130));
    assert_eq!(results(&folder.path().join("out")).len(), 12);
}
