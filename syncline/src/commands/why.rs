//! `syncline why`.

use serde_json::Value;

use super::{Context, field, list, time};
use crate::{error::Result, request::Request};

pub(super) async fn run(context: &Context) -> Result<()> {
    let document = context.ask(Request::Why { replica: context.replica.clone() }).await?;
    context.output.show(&document, |document| {
        let obstacles = list(document, "obstacles");
        match obstacles.is_empty() {
            true => "nothing is in the way".into(),
            false => obstacles.iter().map(text).collect::<Vec<_>>().join("\n"),
        }
    })
}

fn text(obstacle: &Value) -> String {
    let since = match obstacle["since"].is_null() {
        true => String::new(),
        false => format!(" (since {})", time(&obstacle["since"])),
    };
    let next = match obstacle["next_try"].as_u64() {
        Some(next) => format!("; tried again in {} s", next.div_ceil(1000)),
        None => String::new(),
    };
    let (subject, cause, advice) = (field(obstacle, "subject"), field(obstacle, "cause"), field(obstacle, "advice"));
    format!("{subject}: {cause}{since}{next}\n  -> {advice}")
}
