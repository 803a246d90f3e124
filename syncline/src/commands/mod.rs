//! The verbs: each turns its arguments into a question, and the answer into text.

mod get;
mod join;
mod ls;
mod peers;
mod put;
mod rm;
mod status;
mod sync;
mod ticket;
mod token;
mod watch;
mod why;

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::Value;

use crate::{
    cli::{Cli, Command},
    daemon,
    data_dir::{DataDir, LOCK_INTERVAL, WAIT_FOR_LOCK},
    error::{CliError, Result},
    folder::guard::Permission,
    node::{Node, StoreKind},
    output::Output,
    request::Request,
    socket::Client,
    text::MostlyText,
};

/// What all commands share.
struct Context {
    data: DataDir,
    output: Output,
    replica: Option<String>,
}

/// Runs a command.
pub async fn run(cli: Cli) -> Result<()> {
    let output = if cli.json { Output::Json } else { Output::Text };
    let context = Context { data: DataDir::choose(cli.data.as_deref())?, output, replica: cli.replica };
    match cli.command {
        Command::Up(up) => daemon::run(context.data, up, context.replica, output).await,
        Command::Put { key, value, file } => put::run(&context, key, value, file).await,
        Command::Get { key, out } => get::run(&context, key, out).await,
        Command::Rm { key, prefix } => rm::run(&context, key, prefix).await,
        Command::Ls { prefix, limit } => ls::run(&context, prefix, limit).await,
        Command::Watch { prefix } => watch::run(&context, prefix).await,
        Command::Ticket { read, expires, .. } => ticket::run(&context, read, expires).await,
        Command::Join { ticket, folder } => join::run(&context, ticket, folder).await,
        Command::Token { write: true, .. } => Err(CliError::usage(
            "the REST surface is read-only, so no token may write: leave out --write, and write with `syncline put`",
        )),
        Command::Token { expires, .. } => token::run(&context, expires).await,
        Command::Peers => peers::run(&context).await,
        Command::Sync { timeout } => sync::run(&context, timeout).await,
        Command::Status => status::run(&context).await,
        Command::Why => why::run(&context).await,
    }
}

/// Whether a command may make a data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Allowed,
    Refused,
}

impl Context {
    /// Asks the daemon, or the node in the data directory when no daemon runs.
    async fn ask(&self, request: Request) -> Result<Value> {
        self.ask_with(request, Fresh::Refused).await
    }

    async fn ask_with(&self, request: Request, fresh: Fresh) -> Result<Value> {
        let deadline = Instant::now() + WAIT_FOR_LOCK;
        let (lock, made) = loop {
            if let Some(client) = Client::connect(&self.data).await {
                return client.request(&request).await;
            }
            if !self.data.exists() && fresh == Fresh::Refused {
                let path = self.data.path().display();
                return Err(CliError::failed(format!(
                    "there is no node in {path}: start one with `syncline up`, or name another with --data"
                )));
            }
            // Between two commands, or while a daemon starts, the directory is held for a moment.
            match self.data.claim()? {
                Some(claimed) => break claimed,
                None if Instant::now() >= deadline => return Err(self.data.held()),
                None => tokio::time::sleep(LOCK_INTERVAL).await,
            }
        };
        let node = Node::open(self.data.clone(), lock, StoreKind::Redb, Permission::Ask, false).await?;
        let answered = self.ask_node(&node, request).await;
        let ended = node.shutdown().await;
        drop(node);
        let document = answered?;
        made.keep();
        ended.map(|()| document)
    }

    async fn ask_node(&self, node: &std::sync::Arc<Node>, request: Request) -> Result<Value> {
        node.change_settings(|_| ())?;
        if matches!(request, Request::Sync { .. }) {
            node.register_dialling(&[]).await?;
        }
        node.handle(request).await
    }
}

fn bytes(text: OsString) -> MostlyText {
    MostlyText(text.into_vec())
}

/// The same path for the daemon, which stands elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| CliError::io(path.display(), &error))
}

/// A field of a document, for people.
fn field<'a>(document: &'a Value, name: &str) -> &'a str {
    document[name].as_str().unwrap_or_default()
}

/// The first digits of an id.
fn short<'a>(document: &'a Value, name: &str) -> &'a str {
    let id = field(document, name);
    id.get(..10).unwrap_or(id)
}

/// A key, for people.
fn key_of(document: &Value, name: &str) -> String {
    let key: MostlyText = serde_json::from_value(document[name].clone()).unwrap_or_default();
    crate::text::shown(&key.0)
}

/// A list in a document.
fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Microseconds since 1970, for people.
fn time(micros: &Value) -> String {
    match micros.as_u64() {
        Some(micros) => {
            let text = crate::folder::conflict::readable(sync_core::model::Timestamp(micros));
            let (date, time) = text.split_once(' ').unwrap_or((&text, ""));
            let time = time.replace('.', ":");
            format!("{date} {}", time.get(..8).unwrap_or(&time))
        }
        None => "-".into(),
    }
}
