//! The `syncline` program.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::Parser;
use syncline::{
    cli::{Cli, Command as Verb},
    commands,
    output::say,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            // The first paragraph says what is wrong; the usage that follows is in the help.
            let text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            say(&format!("{text}; see `syncline --help`"));
            return ExitCode::from(2);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    if matches!(cli.command, Verb::Up(_)) {
        start_with_few_arenas();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("SYNCLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Two threads: more only pass work back and forth.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ran = match runtime {
        Ok(runtime) => {
            let ran = runtime.block_on(commands::run(cli));
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            ran
        }
        Err(error) => Err(syncline::error::CliError::io("the program cannot start", &error)),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {}", error.line()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// glibc gives every thread a heap of its own, and keeps what they held at their largest. With two
/// heaps a node of 10,000 files takes 95 MB instead of 155, and is no slower. The variable is read before
/// `main`, so the program starts itself once more in its own place; where that fails it just goes on.
fn start_with_few_arenas() {
    const VARIABLE: &str = "MALLOC_ARENA_MAX";
    if cfg!(target_env = "gnu")
        && std::env::var_os(VARIABLE).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, "2").exec();
    }
}
