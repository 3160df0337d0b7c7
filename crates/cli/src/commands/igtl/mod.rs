//! `ultramotion igtl`: OpenIGTLink messages from files.
//!
//! `decode.rs` cuts bytes into messages, `tree.rs` shortens what each says and prints it as text.

mod decode;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Look into OpenIGTLink messages
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Decode(DecodeArgs),
}

/// Print the messages in a file, or say what is wrong with them
///
/// The file has messages one after another, as they come over the network. A message that is wrong is named by its
/// place, the class of its error (SHORT_BUFFER, MALFORMED or CRC_MISMATCH) and the field; the ones after it are read as
/// long as it is clear where they begin. Exit code 1 if any message is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ultramotion igtl decode message.bin
  xxd -r -p message.hex | ultramotion igtl decode - --json
  nc 127.0.0.1 18944 | head -c 2000000 | ultramotion igtl decode -")]
pub(crate) struct DecodeArgs {
    /// A file, or - for standard input
    file: PathBuf,
    /// One JSON object a message
    #[arg(long)]
    json: bool,
    /// Print long lists and texts whole, pixels too
    #[arg(long)]
    full: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Decode(args) => decode::run(&args),
    }
}
