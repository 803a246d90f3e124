//! `syncline put`.

use std::{ffi::OsString, io::Read, path::PathBuf};

use super::{Context, absolute, bytes};
use crate::{
    error::{CliError, Result},
    request::{PutValue, Request},
};

/// What does not fit a question goes through a file.
const MAX_BYTES_IN_QUESTION: usize = 1024 * 1024;

pub(super) async fn run(
    context: &Context,
    key: OsString,
    value: Option<OsString>,
    file: Option<PathBuf>,
) -> Result<()> {
    let mut keep = None;
    let value = match (value, file) {
        (_, Some(file)) if file.as_os_str() == "-" => {
            let mut input = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut input);
            read.map_err(|error| CliError::io("standard input cannot be read", &error))?;
            if input.len() <= MAX_BYTES_IN_QUESTION {
                PutValue::Bytes(crate::text::MostlyText(input))
            } else {
                let file =
                    tempfile::NamedTempFile::new().and_then(|file| std::fs::write(file.path(), &input).map(|()| file));
                let file = file.map_err(|error| CliError::io("a temporary file cannot be written", &error))?;
                let path = file.path().to_path_buf();
                keep = Some(file);
                PutValue::File(path)
            }
        }
        (_, Some(file)) => {
            let path = absolute(&file)?;
            let is_file =
                std::fs::File::open(&path).and_then(|file| file.metadata()).map(|metadata| metadata.is_file());
            match is_file {
                Ok(true) => PutValue::File(path),
                Ok(false) => {
                    return Err(CliError::failed(format!("{} is no file: name one with --file", file.display())));
                }
                Err(error) => return Err(CliError::io(format!("the file {} cannot be read", file.display()), &error)),
            }
        }
        (Some(value), None) => PutValue::Bytes(bytes(value)),
        (None, None) => return Err(CliError::usage("a value or --file is needed: syncline put KEY VALUE")),
    };
    let request = Request::Put { replica: context.replica.clone(), key: bytes(key), value };
    let document = context.ask(request).await?;
    drop(keep);
    context.output.show(&document, |_| String::new())
}
