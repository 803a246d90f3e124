//! Errors as the user sees them: one line that says what, on what, and the way out.

use sync_core::{manager::ManagerError, store::StoreError};

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// It failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was asked wrongly: exit code 2.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// A failure.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// A wrong question.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// What the system said about `what`.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }

    /// The text, on one line.
    pub fn line(&self) -> String {
        self.to_string().split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl From<ManagerError> for CliError {
    fn from(error: ManagerError) -> Self {
        match &error {
            ManagerError::Ticket(_) | ManagerError::Id(_) | ManagerError::Entry(_) => Self::Usage(error.to_string()),
            _ => Self::Failed(with_sources(&error)),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An error's text with those beneath it, unless they are in it already.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(beneath) = source {
        let more = beneath.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = beneath.source();
    }
    text
}

/// The result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(CliError::failed("a\n  b\n\nc").line(), "a b c");
        assert_eq!(CliError::usage("a").exit_code(), 2);
    }
}
