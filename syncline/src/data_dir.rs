//! The data directory: what a node keeps, and who may use it.
//!
//! | file | what it is |
//! |---|---|
//! | `store.redb`, `store.redb.journal` | entries, keys, jobs, transports' state |
//! | `settings.json` | folders, listening addresses, tickets given out |
//! | `store.content/` | contents of large values |
//! | `folders/` | what was on disk at the last look, a file for each shared folder |
//! | `lock` | held by the one process that uses the directory |
//! | `socket` | where a running node takes questions |

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sync_core::model::ReplicaId;

use crate::{
    error::{CliError, Result},
    made::Made,
};

/// What a node keeps in its directory.
const CONTENTS: [&str; 6] = ["store.redb", "store.redb.journal", "store.content", "settings.json", "folders", "socket"];

/// How long a command or a start waits for another process that has the data directory and does not answer.
pub const WAIT_FOR_LOCK: Duration = Duration::from_secs(5);

/// How long a node that runs may take to answer.
pub const WAIT_FOR_ANSWER: Duration = Duration::from_secs(1);

/// How often it looks meanwhile.
pub const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// The newest format of `settings.json` that this program knows.
pub const FORMAT: u32 = 1;

/// The settings of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The format of the data directory.
    pub format: u32,
    /// Where to listen; empty before the first `up`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// The shared folders.
    #[serde(default)]
    pub folders: Vec<Binding>,
    /// Tickets that `up` prints again at each start, by replica.
    #[serde(default)]
    pub tickets: Vec<GivenTicket>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: FORMAT, listen: Vec::new(), folders: Vec::new(), tickets: Vec::new() }
    }
}

/// A folder and its replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The replica.
    pub replica: String,
    /// Whether the folder only follows.
    #[serde(default)]
    pub read_only: bool,
    /// Whether the replica is in memory, and gone when the node ends.
    #[serde(default)]
    pub in_memory: bool,
}

/// A ticket that was given out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenTicket {
    /// The replica.
    pub replica: String,
    /// The ticket: a secret.
    pub ticket: String,
}

impl std::fmt::Debug for GivenTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GivenTicket({}, ...)", self.replica)
    }
}

/// The data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// Holds the directory for this process, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// The directory that was asked for, or the platform's.
    pub fn choose(asked: Option<&Path>) -> Result<Self> {
        let path = match asked {
            Some(path) => path.to_path_buf(),
            None => default_path()?,
        };
        let path = std::path::absolute(&path).map_err(|error| CliError::io(path.display(), &error))?;
        Ok(Self { path })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a node was ever here.
    pub fn exists(&self) -> bool {
        self.file("settings.json").exists()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The state file of a folder.
    pub fn folder_state(&self, replica: ReplicaId) -> PathBuf {
        self.path.join("folders").join(replica.to_string())
    }

    /// Takes the directory for this process, and makes it where it is not there. What is made goes away again
    /// with the second value, unless that is kept: a command that fails on a fresh directory leaves none. None when
    /// another process has it ([`Self::held`]).
    pub fn claim(&self) -> Result<Option<(Lock, Made)>> {
        let is_fresh = !self.exists();
        let cannot = |error: io::Error| {
            let path = self.path.display();
            CliError::failed(format!(
                "the data directory {path} cannot be written ({error}): choose another with --data"
            ))
        };
        let mut made = Made::directory(&self.path, 0o700).map_err(cannot)?;
        match rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            access => access.map_err(|error| cannot(error.into()))?,
        }
        let Some(lock) = self.lock()? else { return Ok(None) };
        // Only now: without the lock it may be another process that makes these.
        if is_fresh {
            CONTENTS.iter().for_each(|name| made.note(self.file(name)));
            made.own(self.file("lock"));
        }
        let folders = self.file("folders");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folders).map_err(|error| {
            let path = folders.display();
            CliError::failed(format!("{path} is no directory ({error}): move it away, or choose another with --data"))
        })?;
        Ok(Some((lock, made)))
    }

    /// What is said when another process has it.
    pub fn held(&self) -> CliError {
        CliError::failed(format!(
            "another syncline uses the data directory {}: stop it, or choose another with --data",
            self.path.display()
        ))
    }

    fn lock(&self) -> Result<Option<Lock>> {
        let path = self.file("lock");
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = match file {
            // Another's command has failed, and taken away what it had made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| {
                let path = self.path.display();
                CliError::failed(format!(
                    "the data directory {path} cannot be written ({error}): choose another with --data"
                ))
            })?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Not one that was removed between the opening and the locking.
            Ok(()) if is_at(&file, &path) => Ok(Some(Lock { _file: file })),
            Ok(()) => self.lock(),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(CliError::io(path.display(), &error.into())),
        }
    }

    /// Whether the store of this directory lost its file: opening would make a new one, and a new node in silence.
    pub fn has_lost_store(&self) -> bool {
        match fs::metadata(self.file("store.redb")) {
            // A store gets its name when it is whole.
            Ok(metadata) => metadata.len() == 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ["store.redb.journal", "store.content"].iter().any(|name| self.file(name).exists())
            }
            Err(_) => false,
        }
    }

    /// Reads the settings.
    pub fn settings(&self) -> Result<Settings> {
        let path = self.file("settings.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(error) => return Err(CliError::io(path.display(), &error)),
        };
        let format = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value.get("format").and_then(serde_json::Value::as_u64));
        if let Some(format) = format
            && format > u64::from(FORMAT)
        {
            return Err(CliError::failed(format!(
                "{} has format {format}, this program knows up to {FORMAT}: use a newer version",
                path.display()
            )));
        }
        serde_json::from_str(&text).map_err(|error| {
            CliError::failed(format!(
                "{} is damaged ({error}): restore it from a copy, or choose another directory with --data",
                path.display()
            ))
        })
    }

    /// Writes the settings, whole.
    pub fn save(&self, settings: &Settings) -> Result<()> {
        let text = serde_json::to_string_pretty(settings).expect("settings are JSON");
        let path = self.file("settings.json");
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_whole(&path, text.as_bytes()).map_err(|error| CliError::io(path.display(), &error))
    }
}

/// Whether the open file is the one at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

fn default_path() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share")));
    base.map(|base| base.join("syncline"))
        .ok_or_else(|| CliError::usage("neither XDG_DATA_HOME nor HOME is set: say with --data where to keep data"))
}

/// Whether there is a device or a pipe at `path`: these are written to, and never replaced by a file.
pub fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// Writes a file that is either the old or the new one, never a part; only its owner may read it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if is_stream(path) {
        return OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".syncline-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::choose(Some(dir.path())).unwrap();
        let (lock, made) = data.claim().unwrap().unwrap();
        made.keep();
        assert!(data.claim().unwrap().is_none());
        drop(lock);
        data.claim().unwrap().unwrap().1.keep();
    }

    #[test]
    fn what_was_made_for_a_command_that_failed_goes_away_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::choose(Some(&dir.path().join("a/b"))).unwrap();
        let claimed = data.claim().unwrap().unwrap();
        data.save(&Settings::default()).unwrap();
        fs::create_dir(data.file("store.content")).unwrap();
        assert!(data.claim().unwrap().is_none(), "somebody else takes nothing away");
        assert!(data.exists());
        drop(claimed);
        assert!(!dir.path().join("a").exists());
        data.claim().unwrap().unwrap().1.keep();
        data.save(&Settings::default()).unwrap();
        drop(data.claim().unwrap().unwrap());
        assert!(data.exists());
    }

    #[test]
    fn settings_survive_and_damage_or_a_newer_format_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::choose(Some(dir.path())).unwrap();
        let _claimed = data.claim().unwrap().unwrap();
        assert_eq!(data.settings().unwrap(), Settings::default());
        let settings = Settings { listen: vec!["iroh:".into()], ..Settings::default() };
        data.save(&settings).unwrap();
        assert_eq!(data.settings().unwrap(), settings);
        fs::write(data.file("settings.json"), r#"{"format": 99, "new": true}"#).unwrap();
        assert!(data.settings().unwrap_err().to_string().contains("format 99"));
        fs::write(data.file("settings.json"), "{").unwrap();
        assert!(data.settings().unwrap_err().to_string().contains("damaged"));
    }
}
