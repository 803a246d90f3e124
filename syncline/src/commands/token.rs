//! `syncline token`.

use std::time::Duration;

use super::{Context, field};
use crate::{error::Result, request::Request};

pub(super) async fn run(context: &Context, expires: Option<Duration>) -> Result<()> {
    let expires_s = expires.map(|duration| duration.as_secs());
    let document = context.ask(Request::Token { replica: context.replica.clone(), expires_s }).await?;
    context.output.show(&document, |document| field(document, "token").to_string())
}
