//! What a command asks of a node, whether it runs as a daemon or in the same process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::MostlyText;

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Sets a value.
    Put {
        /// The replica, where there are several.
        replica: Option<String>,
        /// The key.
        key: MostlyText,
        /// The value, or the absolute path of the file that holds it.
        value: PutValue,
    },
    /// Writes the value at a key to a file (absolute path).
    Get {
        /// The replica.
        replica: Option<String>,
        /// The key.
        key: MostlyText,
        /// Where to.
        out: PathBuf,
    },
    /// Deletes a key.
    Remove {
        /// The replica.
        replica: Option<String>,
        /// The key.
        key: MostlyText,
    },
    /// Deletes all keys with a prefix.
    RemovePrefix {
        /// The replica.
        replica: Option<String>,
        /// The prefix.
        prefix: MostlyText,
    },
    /// Lists keys.
    List {
        /// The replica.
        replica: Option<String>,
        /// Only those that begin so.
        prefix: MostlyText,
        /// Only those after this one.
        after: Option<MostlyText>,
        /// At most so many.
        limit: usize,
    },
    /// Answers with every change from now on.
    Watch {
        /// The replica.
        replica: Option<String>,
        /// Only keys that begin so.
        prefix: MostlyText,
    },
    /// Makes a ticket.
    Ticket {
        /// The replica.
        replica: Option<String>,
        /// Whether it gives the right to write.
        write: bool,
        /// For how many seconds.
        expires_s: Option<u64>,
    },
    /// Makes a token for the REST surface.
    Token {
        /// Only this replica.
        replica: Option<String>,
        /// For how many seconds.
        expires_s: Option<u64>,
    },
    /// Joins a replica.
    Join {
        /// The ticket.
        ticket: String,
        /// The folder (absolute path).
        folder: Option<PathBuf>,
    },
    /// Lists the peers.
    Peers {
        /// Only those of this replica.
        replica: Option<String>,
    },
    /// Catches up with every peer.
    Sync {
        /// Only this replica.
        replica: Option<String>,
        /// How long to try, in milliseconds.
        timeout_ms: u64,
    },
    /// How everything stands.
    Status {
        /// Only this replica.
        replica: Option<String>,
    },
    /// What is in the way.
    Why {
        /// Only of this replica.
        replica: Option<String>,
    },
}

/// A value to be put.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutValue {
    /// The bytes.
    Bytes(MostlyText),
    /// A file (absolute path).
    File(PathBuf),
}

/// One frame of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The document, and the end.
    Done(serde_json::Value),
    /// One of many documents.
    Item(serde_json::Value),
    /// It failed.
    Failed(String),
    /// It was asked wrongly.
    Usage(String),
}
