//! `syncline sync`.

use std::time::Duration;

use serde_json::Value;

use super::{Context, field, list, short};
use crate::{
    error::{CliError, Result},
    output::table,
    request::Request,
    text::size,
};

pub(super) async fn run(context: &Context, timeout: Duration) -> Result<()> {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let document = context.ask(Request::Sync { replica: context.replica.clone(), timeout_ms }).await?;
    context.output.show(&document, |document| {
        let peers = list(document, "peers");
        match peers.is_empty() {
            true => "no peers: nothing to catch up with".into(),
            false => table(&peers.iter().map(row).collect::<Vec<_>>()),
        }
    })?;
    let behind: Vec<&Value> = list(&document, "peers").iter().filter(|peer| peer["synced"] != true).collect();
    match behind.first() {
        None => match document["blobs_missing"].as_u64() {
            Some(0) | None => Ok(()),
            Some(missing) => Err(CliError::failed(format!(
                "equal with every peer, but {missing} contents have not come yet: try again, or keep `syncline up` running"
            ))),
        },
        Some(first) => Err(CliError::failed(format!(
            "not equal with {} of {} peers; the first is {}: {}; see `syncline why`",
            behind.len(),
            list(&document, "peers").len(),
            short(first, "id"),
            field(first, "error")
        ))),
    }
}

fn row(peer: &Value) -> Vec<String> {
    let number = |name: &str| peer[name].as_u64().unwrap_or_default();
    vec![
        short(peer, "id").to_string(),
        if peer["synced"] == true { "equal".into() } else { "not equal".into() },
        format!("sent {} ({})", number("sent"), size(number("bytes_sent"))),
        format!("received {} ({})", number("received"), size(number("bytes_received"))),
        format!("{} round trips", number("round_trips")),
    ]
}
