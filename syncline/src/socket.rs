//! The daemon's socket in the data directory: length-delimited JSON, one question a connection, one
//! or many answers.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{
    data_dir::DataDir,
    error::{CliError, Result},
    node::Node,
    request::{Answer, Request},
};

/// No frame is longer: a listing of many keys, or a value on the command line (which the system
/// limits to 2 MiB altogether).
const MAX_FRAME_LEN: u32 = 64 * 1024 * 1024;

/// The kernel takes no longer path for a socket.
const MAX_SOCKET_PATH_LEN: usize = 107;

/// The path of the socket, and what must be kept open while it is used: a path that is too long
/// for a socket is reached through its directory's descriptor.
fn socket_path(data: &DataDir) -> io::Result<(PathBuf, Option<fs::File>)> {
    let path = data.file("socket");
    if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH_LEN {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd;
    let directory = fs::File::open(data.path())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/socket", directory.as_raw_fd())), Some(directory)))
}

/// Opens the socket. The caller holds the data directory's lock, so what lies there is dead.
pub fn listen(data: &DataDir) -> Result<UnixListener> {
    let (path, _directory) = socket_path(data).map_err(|error| CliError::io(data.path().display(), &error))?;
    let open = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    open().map_err(|error| CliError::io(format!("the socket {} cannot be made", data.file("socket").display()), &error))
}

/// Answers questions until the future is dropped.
pub async fn serve(listener: UnixListener, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &node).await {
                        tracing::debug!(%error, "a command went away");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, say: others must end before it helps to try again.
                tracing::warn!(%error, "a command could not be taken");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, node: &Arc<Node>) -> io::Result<()> {
    let Some(request) = read::<Request>(&mut stream).await? else { return Ok(()) };
    if let Request::Watch { replica, prefix } = request {
        return answer_watch(stream, node, replica, prefix.0).await;
    }
    let answer = match node.handle(request).await {
        Ok(document) => Answer::Done(document),
        Err(CliError::Failed(text)) => Answer::Failed(text),
        Err(CliError::Usage(text)) => Answer::Usage(text),
    };
    write(&mut stream, &answer).await
}

async fn answer_watch(
    mut stream: UnixStream,
    node: &Arc<Node>,
    replica: Option<String>,
    prefix: Vec<u8>,
) -> io::Result<()> {
    let mut changes = match node.watch(replica.as_deref(), &prefix).await {
        Ok(changes) => changes,
        Err(CliError::Failed(text)) => return write(&mut stream, &Answer::Failed(text)).await,
        Err(CliError::Usage(text)) => return write(&mut stream, &Answer::Usage(text)).await,
    };
    // The first answer says that every later change will be seen.
    write(&mut stream, &Answer::Item(serde_json::json!({ "watching": true }))).await?;
    let mut ended = [0; 1];
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = stream.read(&mut ended) => return Ok(()),
        };
        match change {
            Ok(change) => write(&mut stream, &Answer::Item(crate::node::change_document(&change))).await?,
            Err(error) => return write(&mut stream, &Answer::Failed(error.to_string())).await,
        }
    }
}

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects, if a daemon runs.
    pub async fn connect(data: &DataDir) -> Option<Self> {
        let (path, _directory) = socket_path(data).ok()?;
        Some(Self { stream: UnixStream::connect(&path).await.ok()? })
    }

    /// Asks.
    pub async fn ask(&mut self, request: &Request) -> Result<()> {
        write(&mut self.stream, request).await.map_err(|error| went_away(&error))
    }

    /// The next answer; none when the daemon has ended.
    pub async fn next(&mut self) -> Result<Option<Answer>> {
        read(&mut self.stream).await.map_err(|error| went_away(&error))
    }

    /// Asks, and waits for the one answer.
    pub async fn request(mut self, request: &Request) -> Result<serde_json::Value> {
        self.ask(request).await?;
        match self.next().await? {
            Some(Answer::Done(document) | Answer::Item(document)) => Ok(document),
            Some(Answer::Failed(text)) => Err(CliError::Failed(text)),
            Some(Answer::Usage(text)) => Err(CliError::Usage(text)),
            None => Err(CliError::failed("the daemon ended before it answered: start it again with `syncline up`")),
        }
    }
}

fn went_away(error: &io::Error) -> CliError {
    CliError::failed(format!("the daemon went away ({error}): start it again with `syncline up`"))
}

/// Writes a frame: the length of the document (`u32`, the highest byte first), and the document.
pub(crate) async fn write(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_FRAME_LEN);
    let len = len.ok_or_else(|| io::Error::other("the answer is too long: ask for less with --limit"))?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads a frame; none where the other side has ended.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Option<T>> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_be_bytes(len);
    if len > MAX_FRAME_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = Vec::new();
    // Memory grows with what arrives, not with what is claimed.
    stream.take(u64::from(len)).read_to_end(&mut bytes).await?;
    if bytes.len() != len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map(Some).map_err(Into::into)
}

/// Removes the socket of a daemon that ends.
pub fn remove(data: &DataDir) {
    let _ = fs::remove_file(Path::new(&data.file("socket")));
}
