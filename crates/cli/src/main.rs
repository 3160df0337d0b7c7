//! The `ultramotion` command.

// The doc comments of arguments are their help texts, where `[:N]` is no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod commands;
mod device;
mod exports;
mod interrupt;
mod output;
mod settings;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Real-time ultrasound perception: finds, follows and outlines anatomy in a stream of ultrasound frames.
///
/// Research software. Not a medical device: do not use it for diagnosis or treatment.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  ultramotion run --overlay                       simulated ultrasound in, pictures and results.jsonl out
  ultramotion run recording.igs.mha --overlay     your own recording
  ultramotion run stills/ --independent           a folder of unrelated images
  ultramotion export results.jsonl --csv a.csv    results as a table; others for CVAT, 3D Slicer ...
  ultramotion serve --connect localhost:18944     a scanner's stream, live, results at localhost:18945
  ultramotion simulate                            a simulated scanner on 127.0.0.1:18944
  ultramotion doctor                              what this machine can run

Environment:
  ULTRAMOTION_DEBUG=2   print every kernel with its shape, time and GFLOP/s
  ULTRAMOTION_LOG       log filter, e.g. info or ultramotion_pipeline=debug
                        (default: warn,ultramotion_gateway=info)
  ULTRAMOTION_SIMD      avx512, avx2, neon or portable instead of the best that the processor has")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<commands::run::Args>),
    Serve(commands::serve::Args),
    Recover(commands::recover::Args),
    Export(commands::export::Args),
    Eval(commands::eval::Args),
    Parity(commands::parity::Args),
    Bench(commands::bench::Args),
    Audit(commands::audit::Args),
    Models(commands::models::Args),
    Simulate(commands::simulate::Args),
    Igtl(commands::igtl::Args),
    Doctor(commands::doctor::Args),
}

fn main() -> ExitCode {
    usage::on_panic();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("ULTRAMOTION_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,ultramotion_gateway=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(output::log).with_target(false).init();
    let result = match cli.command {
        Command::Run(args) => commands::run::run(*args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Recover(args) => commands::recover::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Parity(args) => commands::parity::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Audit(args) => commands::audit::run(args),
        Command::Models(args) => commands::models::run(args),
        Command::Simulate(args) => commands::simulate::run(args),
        Command::Igtl(args) => commands::igtl::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
    };
    let code = result.unwrap_or_else(|error| usage::report(&error));
    output::end();
    code
}
