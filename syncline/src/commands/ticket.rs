//! `syncline ticket`.

use std::time::Duration;

use super::{Context, field};
use crate::{error::Result, request::Request};

pub(super) async fn run(context: &Context, read: bool, expires: Option<Duration>) -> Result<()> {
    let expires_s = expires.map(|duration| duration.as_secs());
    let document = context.ask(Request::Ticket { replica: context.replica.clone(), write: !read, expires_s }).await?;
    context.output.show(&document, |document| field(document, "ticket").to_string())
}
