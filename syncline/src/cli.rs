//! The command line: what can be asked, and the help that teaches it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::text::parse_duration;

/// Keeps a folder, and the keys in it, equal on every device that holds a ticket.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Where this node keeps its data [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// The replica that is meant, when the node has several (its first digits are enough)
    #[arg(long, global = true, value_name = "ID")]
    pub replica: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  syncline up ./notes                      share a folder; prints a ticket
  syncline up ./copy --join 'syncline://…' make an equal folder on another device
  syncline why                             what is in the way, and what to do about it

A folder is a set of keys: the file notes/a.txt is the value at the key notes/a.txt.
  syncline put greeting hello              syncline get greeting
  syncline ls notes/                       syncline watch

Exit codes: 0 done, 1 failed, 2 asked wrongly.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node: keep a folder and its replica equal, both ways
    #[command(after_help = "\
Examples:
  syncline up ./notes                              share a folder over iroh, HTTP and QUIC
  syncline up ./copy --join 'syncline://…'         make an equal folder here
  syncline up ./notes --listen quic://0.0.0.0:4433 one transport, one port
  syncline up --data ./node --listen iroh: --listen http://127.0.0.1:8080
                                                   only keys, no folder; two transports
  syncline up ./notes --listen iroh:n0             iroh with the public relays of Number 0

Without --listen the addresses of the last start are used, at first one of each kind. Start it again
without --join: folder, replica, ports and keys are remembered. Files that both sides changed are
kept, the older as `name (conflict <author> <time>).ext`. What .synclineignore lists (gitignore
syntax) is not shared. A folder is kept by one syncline of a machine; nor is one shared inside another.")]
    Up(Up),
    /// Set the value at a key
    #[command(
        after_help = "Examples:\n  syncline put greeting hello\n  syncline put photo.jpg --file ./photo.jpg\n  date | syncline put now --file -"
    )]
    Put {
        /// The key: 1 to 1,024 bytes
        key: OsString,
        /// The value
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        value: Option<OsString>,
        /// Read the value from a file (- is standard input)
        #[arg(long, value_name = "F")]
        file: Option<PathBuf>,
    },
    /// Print the value at a key
    #[command(
        after_help = "Examples:\n  syncline get greeting\n  syncline get photo.jpg --out ./photo.jpg\n  syncline get greeting --json | jq -r .value"
    )]
    Get {
        /// The key
        key: OsString,
        /// Write the value to a file instead
        #[arg(long, value_name = "F")]
        out: Option<PathBuf>,
    },
    /// Delete a key, or all keys with a prefix
    #[command(after_help = "Examples:\n  syncline rm greeting\n  syncline rm --prefix drafts/")]
    Rm {
        /// The key
        #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
        key: Option<OsString>,
        /// Delete every key that begins so
        #[arg(long, value_name = "P")]
        prefix: Option<OsString>,
    },
    /// List keys
    #[command(
        after_help = "Examples:\n  syncline ls\n  syncline ls notes/ --limit 10\n  syncline ls --json | jq '.entries[].key'"
    )]
    Ls {
        /// Only keys that begin so
        #[arg(default_value = "")]
        prefix: OsString,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Print every change as it comes, one line each (or one JSON document each)
    #[command(after_help = "Examples:\n  syncline watch\n  syncline watch notes/ --json")]
    Watch {
        /// Only keys that begin so
        #[arg(default_value = "")]
        prefix: OsString,
    },
    /// Make a ticket that lets somebody join the replica
    #[command(
        after_help = "Examples:\n  syncline ticket                       may read and write, for ever\n  syncline ticket --read --expires 7d   may read, for a week\n\nA ticket is a key: give it only to whom it is for."
    )]
    Ticket {
        /// May only read
        #[arg(long, conflicts_with = "write")]
        read: bool,
        /// May read and write (the default)
        #[arg(long)]
        write: bool,
        /// Until when: 30s, 5m, 2h, 7d
        #[arg(long, value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// Join a replica, and keep a folder equal with it
    #[command(
        after_help = "Examples:\n  syncline join 'syncline://…'            only the keys\n  syncline join 'syncline://…' ./copy     and a folder"
    )]
    Join {
        /// What `syncline ticket` printed, in quotes
        ticket: String,
        /// The folder; made if it is not there
        folder: Option<PathBuf>,
    },
    /// Make a token for the REST surface
    #[command(
        after_help = "Examples:\n  TOKEN=$(syncline token --expires 1d)\n  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/v1/status"
    )]
    Token {
        /// May only read (the default: the REST surface has nothing else)
        #[arg(long)]
        read: bool,
        /// Refused: nobody writes through the REST surface
        #[arg(long, hide = true, conflicts_with = "read")]
        write: bool,
        /// Until when: 30s, 5m, 2h, 7d
        #[arg(long, value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List the peers
    #[command(after_help = "Examples:\n  syncline peers\n  syncline peers --json | jq -r '.peers[].addresses[]'")]
    Peers,
    /// Catch up with every known peer once; done only if equal with all
    #[command(after_help = "Examples:\n  syncline sync\n  syncline sync --timeout 2m --json")]
    Sync {
        /// How long to try
        #[arg(long, value_parser = parse_duration, default_value = "30s")]
        timeout: Duration,
    },
    /// Show replicas and peers: what is here, what is on its way
    #[command(
        after_help = "Examples:\n  syncline status\n  syncline status --json | jq '.replicas[].peers[] | {id, synced, pending}'"
    )]
    Status,
    /// Show what is in the way, since when, and what to do
    #[command(after_help = "Examples:\n  syncline why\n  syncline why --json | jq -r '.obstacles[].advice'")]
    Why,
}

/// Running the node.
#[derive(Debug, Args)]
pub struct Up {
    /// The folder to share
    pub folder: Option<PathBuf>,
    /// Join the replica of this ticket instead of making one
    #[arg(long, value_name = "TICKET")]
    pub join: Option<String>,
    /// Where to listen: http://IP:PORT, quic://IP:PORT, iroh: (port 0 or none: chosen and kept)
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Where entries are kept
    #[arg(long, value_name = "STORE", default_value = "redb")]
    pub store: String,
    /// Follow the replica and write nothing to it; remembered until --read-only=false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", requires = "folder")]
    pub read_only: Option<bool>,
    /// Write node id, addresses, replica and ticket to this file, as JSON, when the node is ready
    #[arg(long, value_name = "F")]
    pub ready_file: Option<PathBuf>,
    /// Delete elsewhere too when more than half of the files are gone
    #[arg(long)]
    pub allow_mass_delete: bool,
}
