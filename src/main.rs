//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pooler::config::Config;

/// Sessions of all sizes come and go by the thousand: an allocator that gives memory back and does
/// not mix sizes keeps an idle client small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground. SIGTERM drains, SIGINT drains servers only, SIGQUIT stops at once,
    /// SIGHUP reloads.
    Run {
        /// The configuration.
        config: PathBuf,
    },
    /// Parse a configuration, validate it, and print what it means.
    Check {
        /// Log in everywhere, too, and say where that fails: exit code 1.
        #[arg(long)]
        connect: bool,
        /// The configuration.
        config: PathBuf,
    },
    /// Show pools, who waits and who holds what, live: q quits, p pauses, s sorts.
    Top {
        /// Where the pooler serves its metrics.
        #[arg(default_value = "http://127.0.0.1:9930")]
        url: String,
        /// Print it once, as plain text, and exit.
        #[arg(long)]
        once: bool,
    },
    /// Start a primary, two replicas and the pooler before them; Ctrl-C removes everything.
    Demo {
        /// Stop by itself after so many seconds.
        #[arg(long = "for", value_name = "SECONDS", hide = true)]
        stop_after: Option<u64>,
    },
}

#[expect(clippy::print_stderr, reason = "this is what a command line is for")]
fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => match pooler::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::from(match e {
                    pooler::RunError::Config(_) | pooler::RunError::Tls(_) => 2,
                    pooler::RunError::System(_) => 1,
                })
            }
        },
        Command::Check { config, connect } => check(&config, connect),
        Command::Top { url, once } => match pooler::top::run(&url, once) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::from(e.exit_code())
            }
        },
        Command::Demo { stop_after } => {
            let options = pooler::demo::Options {
                stop_after: stop_after.map(std::time::Duration::from_secs),
                ..pooler::demo::Options::default()
            };
            match pooler::demo::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what a command line is for"
)]
fn check(path: &std::path::Path, connect: bool) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    print!("{}", pooler::check::describe(&config));
    // What it means stands there; a file that is of no use is an error all the same.
    let tls = match pooler::tls::Tls::load(&config.tls, None) {
        Ok(tls) => tls,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    if !connect {
        return ExitCode::SUCCESS;
    }
    match pooler::check::connect(&config, &tls) {
        Ok((text, failed)) => {
            print!("{text}");
            ExitCode::from(u8::from(failed > 0))
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
