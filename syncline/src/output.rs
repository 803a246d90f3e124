//! What commands print: text for people, or one JSON document.

use std::io::{self, Write};

use serde_json::Value;

use crate::error::{CliError, Result};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

impl Output {
    /// Prints a document, for people as `text` says it.
    pub fn show(self, document: &Value, text: impl FnOnce(&Value) -> String) -> Result<()> {
        let line = match self {
            Self::Json => document.to_string(),
            Self::Text => text(document),
        };
        if line.is_empty() { Ok(()) } else { print(format!("{line}\n").as_bytes()) }
    }
}

/// Writes to standard output. Whoever closes it has seen enough: that is no error.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::io("standard output cannot be written", &error))
        }
        _ => Ok(()),
    }
}

/// Tells people something beside the output.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A list for people: columns as wide as they need to be.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = widths[column])).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d");
        assert_eq!(table(&[]), "");
    }
}
