//! `syncline join`.

use std::path::PathBuf;

use super::{Context, Fresh, absolute, field, short};
use crate::{error::Result, node::parse_ticket, request::Request};

pub(super) async fn run(context: &Context, ticket: String, folder: Option<PathBuf>) -> Result<()> {
    // Before a data directory is made for it.
    parse_ticket(&ticket)?;
    let folder = folder.as_deref().map(absolute).transpose()?;
    let document = context.ask_with(Request::Join { ticket, folder }, Fresh::Allowed).await?;
    context.output.show(&document, |document| match field(document, "folder") {
        "" => format!("joined the replica {}", short(document, "replica")),
        folder => format!("joined the replica {}, kept in {folder}", short(document, "replica")),
    })
}
