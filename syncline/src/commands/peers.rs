//! `syncline peers`.

use serde_json::Value;

use super::{Context, field, list, short};
use crate::{error::Result, output::table, request::Request};

pub(super) async fn run(context: &Context) -> Result<()> {
    let document = context.ask(Request::Peers { replica: context.replica.clone() }).await?;
    context.output.show(&document, |document| {
        let peers = list(document, "peers");
        if peers.is_empty() {
            return "no peers: give somebody a ticket with `syncline ticket`".into();
        }
        table(&peers.iter().map(row).collect::<Vec<_>>())
    })
}

fn row(peer: &Value) -> Vec<String> {
    let texts = |name: &str| list(peer, name).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let links = texts("links");
    let state = match (peer["blocked"].as_bool(), links.is_empty()) {
        (Some(true), _) => "blocked".to_string(),
        (_, false) => format!("connected over {links}"),
        _ => match field(peer, "last_error") {
            "" => "not connected".to_string(),
            error => format!("not connected: {error}"),
        },
    };
    vec![short(peer, "id").to_string(), field(peer, "name").to_string(), state, texts("addresses")]
}
