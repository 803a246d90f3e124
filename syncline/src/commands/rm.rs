//! `syncline rm`.

use std::ffi::OsString;

use super::{Context, bytes};
use crate::{
    error::{CliError, Result},
    request::Request,
};

pub(super) async fn run(context: &Context, key: Option<OsString>, prefix: Option<OsString>) -> Result<()> {
    let replica = context.replica.clone();
    let request = match (key, prefix) {
        (_, Some(prefix)) => Request::RemovePrefix { replica, prefix: bytes(prefix) },
        (Some(key), None) => Request::Remove { replica, key: bytes(key) },
        (None, None) => return Err(CliError::usage("a key or --prefix is needed: syncline rm KEY")),
    };
    let document = context.ask(request).await?;
    context.output.show(&document, |_| String::new())
}
