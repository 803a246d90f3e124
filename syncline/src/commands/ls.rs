//! `syncline ls`.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::{Context, bytes, key_of, list, short, time};
use crate::{
    error::Result,
    output::{Output, table},
    request::Request,
    text::{MostlyText, size},
};

/// Keys are asked for in pages of so many.
const PAGE: usize = 10_000;

pub(super) async fn run(context: &Context, prefix: OsString, limit: Option<usize>) -> Result<()> {
    let prefix = bytes(prefix);
    let mut left = limit.unwrap_or(usize::MAX);
    let (mut entries, mut after): (Vec<Value>, Option<MostlyText>) = (Vec::new(), None);
    loop {
        let page = left.min(PAGE);
        let request = Request::List {
            replica: context.replica.clone(),
            prefix: prefix.clone(),
            after: after.take(),
            limit: page,
        };
        let document = context.ask(request).await?;
        let found = list(&document, "entries");
        after = found.last().and_then(|last| serde_json::from_value(last["key"].clone()).ok());
        left -= found.len().min(left);
        let is_last = found.len() < page || left == 0;
        if context.output == Output::Text {
            context.output.show(&document, text)?;
        } else {
            entries.extend_from_slice(found);
        }
        if is_last {
            break;
        }
    }
    match context.output {
        Output::Json => context.output.show(&json!({ "entries": entries }), |_| String::new()),
        Output::Text => Ok(()),
    }
}

fn text(document: &Value) -> String {
    let row = |entry: &Value| {
        let len = entry["len"].as_u64().unwrap_or_default();
        vec![size(len), short(entry, "author").to_string(), time(&entry["timestamp"]), key_of(entry, "key")]
    };
    table(&list(document, "entries").iter().map(row).collect::<Vec<_>>())
}
