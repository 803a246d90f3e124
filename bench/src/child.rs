//! A side in a process of its own, so that its memory is its own.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::Result;

/// This program once more, with other arguments.
pub struct Side {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Side {
    /// Starts it.
    pub fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("its output is piped")?).lines();
        Ok(Self { process, lines })
    }

    /// The next line that it says: figures by name, as [`say`] wrote them.
    pub async fn figures(&mut self) -> Result<Vec<(String, f64)>> {
        let line = self.lines.next_line().await?.ok_or("the other side ended")?;
        let mut words = line.split_whitespace();
        let mut figures = Vec::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            figures.push((name.to_string(), value.parse()?));
        }
        Ok(figures)
    }

    /// Ends it by closing its input, and waits.
    pub async fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.process.wait().await?;
        Ok(())
    }
}

/// Says figures to the parent.
pub fn say(figures: &[(&str, f64)]) {
    let words: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    contest::say(&words.join(" "));
}

/// Resolves when the parent has closed the input.
pub async fn until_the_end() {
    let _ = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await;
}
