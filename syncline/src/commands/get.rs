//! `syncline get`: the value's bytes to standard output and nothing else, or to a file.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
};

use serde_json::json;

use super::{Context, absolute, bytes};
use crate::{
    data_dir::is_stream,
    error::{CliError, Result},
    output::Output,
    request::Request,
    text::{MostlyText, size},
};

/// A document holds no longer value.
const MAX_VALUE_IN_DOCUMENT: u64 = 16 * 1024 * 1024;

pub(super) async fn run(context: &Context, key: OsString, out: Option<PathBuf>) -> Result<()> {
    let replica = context.replica.clone();
    let (stream, out) = match out {
        Some(out) if is_stream(&out) => (Some(out), None),
        out => (None, out),
    };
    if let Some(out) = out {
        let request = Request::Get { replica, key: bytes(key), out: absolute(&out)? };
        let document = context.ask(request).await?;
        return context.output.show(&document, |_| String::new());
    }
    let place = tempfile::tempdir().map_err(|error| CliError::io("a temporary file cannot be made", &error))?;
    let path = place.path().join("value");
    let document = context.ask(Request::Get { replica, key: bytes(key), out: path.clone() }).await?;
    let file = || File::open(&path);
    if let Some(stream) = stream {
        let copied =
            file().and_then(|mut file| io::copy(&mut file, &mut OpenOptions::new().write(true).open(&stream)?));
        copied.map_err(|error| CliError::io(stream.display(), &error))?;
        return context.output.show(&document, |_| String::new());
    }
    if context.output == Output::Json {
        let mut document = document;
        let len = document["len"].as_u64().unwrap_or_default();
        if len > MAX_VALUE_IN_DOCUMENT {
            let len = size(len);
            return Err(CliError::failed(format!("a value of {len} is too long for a document: write it with --out")));
        }
        let read = std::fs::read(&path).map_err(|error| CliError::io(path.display(), &error))?;
        document["value"] = json!(MostlyText(read));
        return context.output.show(&document, |_| String::new());
    }
    let copied = file().and_then(|mut file| io::copy(&mut file, &mut io::stdout().lock()));
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::io("standard output cannot be written", &error))
        }
        _ => Ok(()),
    }
}
