//! What was on disk at the last look, kept over restarts.
//!
//! An append-only file of records, each with its length and a checksum; the last record about a
//! path counts. What does not check out at the end (a kill in the middle of a write) is cut off.
//! The file is a cache of knowledge: when it is lost, a scan with hashing rebuilds it, and
//! [`super::plan`] recognises what is equal already.
//!
//! Before a file is replaced, the intent is recorded; so after a kill the program knows that the
//! bytes on disk are a version that it was writing, and not an edit.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    key::FileKey,
    plan::{Base, Kind},
};

const MAGIC: &[u8; 16] = b"syncline folder\x01";

/// No record is longer: a path and what a version has seen.
const MAX_RECORD_LEN: usize = 64 * 1024;

/// When a file has this many times as many records as it needs, it is written anew.
const COMPACT_FACTOR: usize = 3;

/// What the file system says about a file: as long as it says the same, the bytes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of the bytes.
    pub mtime_ns: i128,
    /// Time of the last change of anything.
    pub ctime_ns: i128,
    /// The inode.
    pub inode: u64,
    /// What kind of file.
    pub kind: Kind,
}

impl Stat {
    /// What the file system says, if it is a file or a link (the answer of `symlink_metadata`).
    pub fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        let kind = if metadata.is_symlink() {
            Kind::Link
        } else if !metadata.is_file() {
            return None;
        } else if metadata.mode() & 0o100 != 0 {
            Kind::Executable
        } else {
            Kind::File
        };
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Some(Self {
            len: metadata.len(),
            mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            kind,
        })
    }
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The version on disk.
    pub base: Base,
    /// What the file system said when it was looked at; none when it must be looked at again.
    pub stat: Option<Stat>,
    /// A version that was about to be written when the program was killed.
    pub intent: Option<Base>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
enum Record {
    /// The version is on disk.
    Known { path: Vec<u8>, base: Base, stat: Option<Stat> },
    /// The version is about to be written.
    Intent { path: Vec<u8>, next: Base },
    /// The file is no longer known.
    Gone { path: Vec<u8> },
    /// The directory that is shared: device and inode.
    Root { device: u64, inode: u64 },
    /// Imports up to this number are in the records before.
    Imports { number: u64 },
}

/// A file that was written this short a time before it is looked at is looked at once more: file systems count time in
/// ticks, and a second write in the same tick does not show.
pub const RACY: Duration = Duration::from_millis(20);

/// The same on file systems that know seconds alone, or every second one.
const COARSE: Duration = Duration::from_secs(2);

impl Stat {
    /// Whether a write that comes after now may not show. To be asked when the file system is, and not later.
    pub fn is_racy(&self) -> bool {
        // Whole seconds may be all that the file system knows.
        let tick = if self.mtime_ns % 1_000_000_000 == 0 { COARSE } else { RACY };
        self.is_younger_than(tick)
    }

    /// Whether its bytes were changed within this time. Not when they are dated ahead: a write from now on shows.
    pub fn is_younger_than(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        (-nanos(COARSE)..nanos(age)).contains(&(nanos(now) - self.mtime_ns))
    }

    /// Whether it is the same file with the same bytes; a move changes the time of the last change of anything.
    pub fn is_same_file(&self, other: &Self) -> bool {
        Self { ctime_ns: other.ctime_ns, ..*self } == *other
    }
}

/// Which directory it is, to notice that another one is mounted in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl RootId {
    /// The identity of the directory at `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// The state of a folder.
#[derive(Debug)]
pub struct FolderState {
    path: PathBuf,
    file: File,
    /// Encoded records that are not in the file yet.
    pending: Vec<u8>,
    records: usize,
    known: BTreeMap<FileKey, Known>,
    /// Intents for files that are not known yet.
    fresh: BTreeMap<FileKey, Base>,
    root: Option<RootId>,
    imports: u64,
    is_new: bool,
}

impl FolderState {
    /// Opens or makes the file. `lifetime` names what the state belongs to (the store's id): the
    /// state of another lifetime is thrown away.
    pub fn open(path: &Path, lifetime: [u8; 16]) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let header = [&MAGIC[..], &lifetime].concat();
        let mut state = Self {
            path: path.into(),
            file: OpenOptions::new().create(true).append(true).open(path)?,
            pending: Vec::new(),
            records: 0,
            known: BTreeMap::new(),
            fresh: BTreeMap::new(),
            root: None,
            imports: 0,
            is_new: true,
        };
        let mut good = 0;
        if bytes.starts_with(&header) {
            good = header.len();
            state.is_new = false;
            while let Some((record, len)) = decode(&bytes[good..]) {
                state.replay(record);
                state.records += 1;
                good += len;
            }
        }
        let needed = state.known.len() + state.fresh.len() + 1;
        if good == 0 || state.records > needed * COMPACT_FACTOR + 1024 {
            state.rewrite(&header)?;
        } else if good < bytes.len() {
            state.file.set_len(good as u64)?;
        }
        Ok(state)
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Known { path, base, stat } => {
                if let Ok(key) = FileKey::new(&path) {
                    self.fresh.remove(&key);
                    self.known.insert(key, Known { base, stat, intent: None });
                }
            }
            Record::Intent { path, next } => {
                if let Ok(key) = FileKey::new(&path) {
                    match self.known.get_mut(&key) {
                        Some(known) => known.intent = Some(next),
                        None => {
                            self.fresh.insert(key, next);
                        }
                    }
                }
            }
            Record::Gone { path } => {
                if let Ok(key) = FileKey::new(&path) {
                    self.known.remove(&key);
                    self.fresh.remove(&key);
                }
            }
            Record::Root { device, inode } => self.root = Some(RootId { device, inode }),
            Record::Imports { number } => self.imports = number,
        }
    }

    /// Writes the file anew with only what counts.
    fn rewrite(&mut self, header: &[u8]) -> io::Result<()> {
        let mut bytes = header.to_vec();
        for (key, known) in &self.known {
            let path = key.as_bytes().to_vec();
            encode(&Record::Known { path: path.clone(), base: known.base.clone(), stat: known.stat }, &mut bytes);
            if let Some(next) = &known.intent {
                encode(&Record::Intent { path, next: next.clone() }, &mut bytes);
            }
        }
        for (key, next) in &self.fresh {
            encode(&Record::Intent { path: key.as_bytes().to_vec(), next: next.clone() }, &mut bytes);
        }
        if let Some(RootId { device, inode }) = self.root {
            encode(&Record::Root { device, inode }, &mut bytes);
        }
        encode(&Record::Imports { number: self.imports }, &mut bytes);
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.records = self.known.len() + self.fresh.len();
        Ok(())
    }

    /// What is known of a file.
    pub fn get(&self, key: &FileKey) -> Option<&Known> {
        self.known.get(key)
    }

    /// The version that was about to be written to a file that was not known, if any.
    pub fn intent(&self, key: &FileKey) -> Option<&Base> {
        match self.known.get(key) {
            Some(known) => known.intent.as_ref(),
            None => self.fresh.get(key),
        }
    }

    /// The known files.
    pub fn keys(&self) -> impl Iterator<Item = &FileKey> {
        self.known.keys()
    }

    /// The known files beneath a directory.
    pub fn keys_beneath(&self, directory: &FileKey) -> impl Iterator<Item = &FileKey> {
        let prefix = [directory.as_bytes(), b"/"].concat();
        let first = self.known.range::<FileKey, _>((Bound::Excluded(directory), Bound::Unbounded));
        let upper = prefix.clone();
        first
            .map(|(key, _)| key)
            .take_while(move |key| key.as_bytes() <= &upper[..] || key.as_bytes().starts_with(&upper))
            .filter(move |key| key.as_bytes().starts_with(&prefix))
    }

    /// The files that were being written when the program was killed.
    pub fn intents(&self) -> impl Iterator<Item = &FileKey> {
        let known = self.known.iter().filter(|(_, known)| known.intent.is_some()).map(|(key, _)| key);
        known.chain(self.fresh.keys())
    }

    /// Whether nothing was noted before: the folder is shared for the first time, or the notes were lost.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How many files are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The directory that was shared at the last start.
    pub fn root(&self) -> Option<RootId> {
        self.root
    }

    /// Notes which directory is shared.
    pub fn set_root(&mut self, root: RootId) {
        self.push(Record::Root { device: root.device, inode: root.inode });
    }

    /// Up to which number imports are in the state.
    pub fn imports(&self) -> u64 {
        self.imports
    }

    /// Notes up to which number imports are in the state.
    pub fn set_imports(&mut self, number: u64) {
        self.push(Record::Imports { number });
    }

    /// Notes that the version is on disk.
    pub fn set(&mut self, key: &FileKey, base: Base, stat: Option<Stat>) {
        self.push(Record::Known { path: key.as_bytes().to_vec(), base, stat });
    }

    /// Notes that the version is about to be written.
    pub fn set_intent(&mut self, key: &FileKey, next: Base) {
        self.push(Record::Intent { path: key.as_bytes().to_vec(), next });
    }

    /// Forgets a file.
    pub fn remove(&mut self, key: &FileKey) {
        if self.known.contains_key(key) || self.fresh.contains_key(key) {
            self.push(Record::Gone { path: key.as_bytes().to_vec() });
        }
    }

    fn push(&mut self, record: Record) {
        encode(&record, &mut self.pending);
        self.records += 1;
        self.replay(record);
    }

    /// Writes what was noted to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// The same, and returns when it is on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

fn encode(record: &Record, into: &mut Vec<u8>) {
    let bytes = postcard::to_allocvec(record).expect("a record can be encoded");
    let len = u32::try_from(bytes.len()).expect("records are short");
    into.extend_from_slice(&len.to_le_bytes());
    into.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..4]);
    into.extend_from_slice(&bytes);
}

/// The first record, and how many bytes it takes with its frame.
fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let len = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    if len > MAX_RECORD_LEN {
        return None;
    }
    let body = bytes.get(8..8 + len)?;
    if bytes[4..8] != blake3::hash(body).as_bytes()[..4] {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, 8 + len))
}

/// The facts of an empty base, for tests of other modules.
#[cfg(test)]
pub(crate) fn base_of(content: &[u8], author: u8, timestamp: u64) -> Base {
    use super::plan::{Fact, Seen, VersionId};
    let author = sync_core::model::AuthorId::from([author; 32]);
    let timestamp = sync_core::model::Timestamp(timestamp);
    let hash = sync_core::model::Hash(*blake3::hash(content).as_bytes());
    Base {
        id: VersionId { timestamp, author },
        fact: Fact { kind: Kind::File, len: content.len() as u64, hash },
        knowledge: Seen::from([(author, timestamp)]),
    }
}

/// The maps of a state, for comparing.
#[cfg(test)]
impl FolderState {
    fn all(&self) -> (BTreeMap<FileKey, Known>, BTreeMap<FileKey, Base>) {
        (self.known.clone(), self.fresh.clone())
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FileKey {
        FileKey::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_write_may_hide_in_a_tick_of_the_clock_and_not_behind_a_date_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("a")).unwrap();
        let racy = |time: SystemTime| {
            file.set_modified(time).unwrap();
            Stat::of(&file.metadata().unwrap()).unwrap().is_racy()
        };
        let now = SystemTime::now();
        let whole = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
        };
        // A thread that is kept waiting between the two is late.
        assert!((0..50).any(|_| racy(SystemTime::now())));
        assert!(!racy(whole(now) - Duration::from_secs(3)));
        assert!((0..50).any(|_| racy(whole(SystemTime::now()))), "the file system may know seconds alone");
        assert!(!racy(whole(now) - Duration::from_millis(1_999)), "it knows more");
        assert!(!racy(now + Duration::from_secs(86_400)));
    }

    #[test]
    fn what_was_noted_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = FolderState::open(&path, [1; 16]).unwrap();
        let stat = Stat::of(&std::fs::symlink_metadata(&path).unwrap());
        state.set(&key("a"), base_of(b"a", 1, 1), stat);
        state.set(&key("b"), base_of(b"b", 1, 2), None);
        state.set(&key("c"), base_of(b"c", 1, 3), None);
        state.remove(&key("c"));
        state.set_intent(&key("b"), base_of(b"bb", 2, 9));
        state.set_intent(&key("d"), base_of(b"d", 2, 9));
        state.set_root(RootId { device: 1, inode: 2 });
        state.sync().unwrap();
        let again = FolderState::open(&path, [1; 16]).unwrap();
        assert_eq!(again.all(), state.all());
        assert_eq!(again.root(), Some(RootId { device: 1, inode: 2 }));
        assert_eq!(again.intent(&key("d")), Some(&base_of(b"d", 2, 9)));
        assert_eq!(again.intents().count(), 2);
    }

    #[test]
    fn files_beneath_a_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = FolderState::open(&dir.path().join("state"), [1; 16]).unwrap();
        for name in ["a", "a b", "a!", "a/1", "a/b/2", "a0", "b/1"] {
            state.set(&key(name), base_of(b"a", 1, 1), None);
        }
        assert_eq!(state.keys_beneath(&key("a")).cloned().collect::<Vec<_>>(), [key("a/1"), key("a/b/2")]);
        assert_eq!(state.keys_beneath(&key("a0")).count(), 0);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_the_rest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = FolderState::open(&path, [1; 16]).unwrap();
        state.set(&key("a"), base_of(b"a", 1, 1), None);
        state.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        state.set(&key("b"), base_of(b"b", 1, 2), None);
        state.sync().unwrap();
        let longer = std::fs::read(&path).unwrap();
        for cut in whole.len()..longer.len() {
            std::fs::write(&path, &longer[..cut]).unwrap();
            let mut again = FolderState::open(&path, [1; 16]).unwrap();
            assert_eq!(again.len(), 1);
            again.set(&key("c"), base_of(b"c", 1, 3), None);
            again.sync().unwrap();
            assert_eq!(FolderState::open(&path, [1; 16]).unwrap().len(), 2);
        }
    }

    #[test]
    fn the_state_of_another_store_and_garbage_are_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = FolderState::open(&path, [1; 16]).unwrap();
        state.set(&key("a"), base_of(b"a", 1, 1), None);
        state.sync().unwrap();
        assert!(FolderState::open(&path, [2; 16]).unwrap().is_empty());
        std::fs::write(&path, b"garbage").unwrap();
        assert!(FolderState::open(&path, [2; 16]).unwrap().is_empty());
    }

    #[test]
    fn many_records_about_one_file_are_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = FolderState::open(&path, [1; 16]).unwrap();
        for timestamp in 0..3000 {
            state.set(&key("a"), base_of(b"a", 1, timestamp), None);
        }
        state.sync().unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        let again = FolderState::open(&path, [1; 16]).unwrap();
        assert_eq!(again.get(&key("a")).unwrap().base, base_of(b"a", 1, 2999));
        assert!(std::fs::metadata(&path).unwrap().len() < before / 100);
    }
}
