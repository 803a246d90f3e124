//! `syncline status`.

use serde_json::Value;

use super::{Context, field, list, short};
use crate::{error::Result, request::Request, text::size};

pub(super) async fn run(context: &Context) -> Result<()> {
    let document = context.ask(Request::Status { replica: context.replica.clone() }).await?;
    context.output.show(&document, text)
}

fn text(status: &Value) -> String {
    let mut lines = vec![format!("node     {}", field(status, "node_id"))];
    for address in list(status, "addresses").iter().filter_map(Value::as_str) {
        lines.push(format!("address  {address}"));
    }
    for folder in list(status, "folders") {
        let note = if folder["read_only"] == true { " (read only)" } else { "" };
        lines.push(format!("folder   {} = {}{note}", field(folder, "path"), short(folder, "replica")));
    }
    for replica in list(status, "replicas") {
        let missing = match replica["blobs_missing"].as_u64() {
            Some(0) | None => String::new(),
            Some(missing) => format!(", {missing} contents on their way"),
        };
        let number = |name: &str| replica[name].as_u64().unwrap_or_default();
        let (entries, blobs) = (number("entries"), number("blobs"));
        lines.push(format!(
            "replica  {}: {entries} entries, {blobs} of them blobs, {}, root {}{missing}",
            short(replica, "id"),
            size(number("bytes")),
            short(replica, "root")
        ));
        lines.extend(list(replica, "peers").iter().map(peer_line));
    }
    lines.join("\n")
}

fn peer_line(peer: &Value) -> String {
    let mut line = format!("  peer   {}: {}", short(peer, "id"), field(peer, "state"));
    if peer["synced"] == true {
        line.push_str(", equal");
    }
    if let transport @ [_, ..] = field(peer, "transport").as_bytes() {
        line.push_str(&format!(", over {}", String::from_utf8_lossy(transport)));
    }
    match peer["pending"].as_u64() {
        Some(0) | None => {}
        Some(pending) => line.push_str(&format!(", {pending} changes to send")),
    }
    match field(peer, "last_error") {
        "" => {}
        error => line.push_str(&format!(", last error: {error}")),
    }
    line
}
