//! What a test says when it cannot show something here.

use std::{fmt::Display, io::Write};

/// Says on standard error what is not shown here, and why. `eprintln!` would be swallowed: the test
/// runner shows it only of tests that fail.
pub fn skipped(why: impl Display) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Nothing is left to be said when standard error is closed.
    let _ = writeln!(std::io::stderr(), "skipped: {why} ({test})");
}
