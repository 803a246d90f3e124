//! `syncline watch`: one line, or one JSON document, per change.

use std::ffi::OsString;

use serde_json::Value;

use super::{Context, bytes, field, key_of, short, time};
use crate::{
    error::{CliError, Result},
    output::say,
    request::{Answer, Request},
    socket::Client,
    text::size,
};

pub(super) async fn run(context: &Context, prefix: OsString) -> Result<()> {
    let Some(mut client) = Client::connect(&context.data).await else {
        let path = context.data.path().display();
        return Err(CliError::failed(format!(
            "no daemon runs in {path}, so nothing changes there: start it with `syncline up`"
        )));
    };
    client.ask(&Request::Watch { replica: context.replica.clone(), prefix: bytes(prefix) }).await?;
    loop {
        match client.next().await? {
            Some(Answer::Item(document)) if document["watching"] == true => say("watching: end it with Ctrl-C"),
            Some(Answer::Item(document)) => context.output.show(&document, text)?,
            Some(Answer::Done(_)) => return Ok(()),
            Some(Answer::Failed(text)) => return Err(CliError::Failed(text)),
            Some(Answer::Usage(text)) => return Err(CliError::Usage(text)),
            None => return Err(CliError::failed("the daemon ended: start it again with `syncline up`")),
        }
    }
}

fn text(change: &Value) -> String {
    let head = format!("{}  {}", time(&change["timestamp"]), short(change, "author"));
    match field(change, "op") {
        "put" => {
            let len = size(change["len"].as_u64().unwrap_or_default());
            format!("{head}  put     {}  ({len})", key_of(change, "key"))
        }
        "delete" => format!("{head}  delete  {}", key_of(change, "key")),
        _ => format!("{head}  delete  {}*", key_of(change, "prefix")),
    }
}
