//! A file system in memory. Content of a store in memory lives here; tests cut its power.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Disk, DiskFile, Open};

/// Bytes of a page. Files are sparse: a group at the end of a huge claimed length costs a page.
const PAGE: u64 = 16 * 1024;

/// What a torn write may keep: whole sectors.
const SECTOR: usize = 512;

/// A file system in memory.
///
/// [`MemoryDisk::new`] is for use; [`MemoryDisk::recording`] also remembers what was not synced,
/// can be full, can fail once or from a chosen operation on, and makes the images that a power cut may leave.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryDisk({} files)", self.lock().names.len())
    }
}

#[derive(Default)]
struct State {
    names: Names,
    recording: Option<Recording>,
}

type Names = BTreeMap<PathBuf, Node>;

/// A file, with or without a name. It lives as long as a name or a handle leads to it.
type Node = Arc<Mutex<FileState>>;

#[derive(Default)]
struct Recording {
    durable_names: Names,
    pending_names: Vec<Renaming>,
    operations: u64,
    power_ends_at: Option<u64>,
    /// Fails one operation, counted down from here, looks included.
    fails_in: Option<u64>,
    /// Fails one sync, counted down from here.
    sync_fails_in: Option<u64>,
    is_full: bool,
}

/// Counts down; true when it is the one.
fn is_due(countdown: &mut Option<u64>) -> bool {
    let is_due = *countdown == Some(0);
    *countdown = countdown.and_then(|left| left.checked_sub(1));
    is_due
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

impl Recording {
    /// One operation, whether it changes something or looks.
    fn look(&mut self) -> io::Result<()> {
        if is_due(&mut self.fails_in) { Err(broken()) } else { Ok(()) }
    }

    /// One that changes something, if there is still power.
    fn change(&mut self) -> io::Result<()> {
        if self.power_ends_at.is_some_and(|end| self.operations >= end) {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        Ok(())
    }
}

/// A change of names that no directory sync has made durable yet: `from` vanishes, `to` appears.
struct Renaming {
    from: Option<PathBuf>,
    to: Option<(PathBuf, Node)>,
}

#[derive(Default)]
struct FileState {
    now: Pages,
    durable: Pages,
    unsure: Vec<Write>,
}

/// A write that may not be on the disk, or follows one that may not.
struct Write {
    offset: u64,
    bytes: Vec<u8>,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No sync came yet.
    Pending,
    /// The sync failed: it is on the disk or not, whatever is synced later, as the system takes it for written.
    Lost,
    /// It is on the disk.
    Durable,
}

#[derive(Clone, Default)]
struct Pages {
    pages: BTreeMap<u64, Arc<Vec<u8>>>,
    len: u64,
}

impl Pages {
    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let at = (offset % PAGE) as usize;
            let take = bytes.len().min(PAGE as usize - at);
            let page = self.pages.entry(offset / PAGE).or_default();
            let page = Arc::make_mut(page);
            if page.len() < at + take {
                page.resize(at + take, 0);
            }
            page[at..at + take].copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            offset += take as u64;
        }
    }

    fn read(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buffer.is_empty() {
            let at = (offset % PAGE) as usize;
            let take = buffer.len().min(PAGE as usize - at);
            let (now, rest) = buffer.split_at_mut(take);
            now.fill(0);
            if let Some(page) = self.pages.get(&(offset / PAGE)) {
                let there = page.len().saturating_sub(at).min(take);
                now[..there].copy_from_slice(&page[at..at + there]);
            }
            buffer = rest;
            offset += take as u64;
        }
        Ok(())
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk that remembers what is not synced.
    pub fn recording() -> Self {
        let disk = Self::new();
        disk.lock().recording = Some(Recording::default());
        disk
    }

    /// How many operations that change something were done. Only a recording disk counts.
    pub fn operations(&self) -> u64 {
        self.lock().recording.as_ref().map_or(0, |recording| recording.operations)
    }

    /// From that operation on (counted as [`MemoryDisk::operations`] does) everything fails.
    pub fn end_power_at(&self, operation: u64) {
        if let Some(recording) = &mut self.lock().recording {
            recording.power_ends_at = Some(operation);
        }
    }

    /// Fails one operation after `good` more, looks included. Only a recording disk does.
    pub fn fail_once_after(&self, good: u64) {
        if let Some(recording) = &mut self.lock().recording {
            recording.fails_in = Some(good);
        }
    }

    /// Fails one sync after `good` more. What it was to make durable may be lost, whatever is synced later.
    pub fn fail_sync_after(&self, good: u64) {
        if let Some(recording) = &mut self.lock().recording {
            recording.sync_fails_in = Some(good);
        }
    }

    /// Whether what was to fail once has not yet.
    pub fn has_yet_to_fail(&self) -> bool {
        let state = self.lock();
        state.recording.as_ref().is_some_and(|recording| recording.fails_in.or(recording.sync_fails_in).is_some())
    }

    /// Whether there is no space for more.
    pub fn set_full(&self, is_full: bool) {
        if let Some(recording) = &mut self.lock().recording {
            recording.is_full = is_full;
        }
    }

    /// What may be on the disk after a power cut now: what was synced, and of what was not any
    /// part, chosen by `seed`; writes are torn at sectors. The result records again.
    ///
    /// # Panics
    ///
    /// When this disk does not record.
    pub fn power_cut(&self, seed: u64) -> Self {
        let state = self.lock();
        let recording = state.recording.as_ref().expect("only a recording disk can lose its power");
        let mut draw = Draw(seed);
        let mut names = recording.durable_names.clone();
        for change in &recording.pending_names {
            if draw.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        for node in names.values_mut() {
            let left = lock(node).after_power_cut(&mut draw);
            *node = Arc::new(Mutex::new(FileState { now: left.clone(), durable: left, unsure: Vec::new() }));
        }
        let recording = Some(Recording { durable_names: names.clone(), ..Recording::default() });
        Self(Arc::new(Mutex::new(State { names, recording })))
    }

    /// Flips the bits of `mask` in one byte of a file, as rot does. False when there is no such byte.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) -> bool {
        let Some(node) = self.lock().names.get(path).cloned() else { return false };
        let mut file = lock(&node);
        let mut byte = [0];
        if file.now.read(&mut byte, offset).is_err() {
            return false;
        }
        file.now.write(&[byte[0] ^ mask], offset);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no operation on the disk panics")
    }

    /// The state for an operation that looks.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.recording.as_mut().map_or(Ok(()), Recording::look)?;
        Ok(state)
    }

    /// The state for an operation that changes something, if there is still power.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.look()?;
        state.recording.as_mut().map_or(Ok(()), Recording::change)?;
        Ok(state)
    }

    /// The same for one that takes space.
    fn grow(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.change()?;
        match &state.recording {
            Some(Recording { is_full: true, .. }) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(state),
        }
    }

    /// The same for a sync, and what becomes of it.
    fn sync(&self) -> io::Result<(MutexGuard<'_, State>, io::Result<()>)> {
        let mut state = self.lock();
        let mut result = Ok(());
        if let Some(recording) = &mut state.recording {
            if is_due(&mut recording.sync_fails_in) || is_due(&mut recording.fails_in) {
                result = Err(broken());
            }
            recording.change()?;
        }
        Ok((state, result))
    }
}

impl State {
    fn rename(&mut self, change: Renaming) {
        change.apply(&mut self.names);
        if let Some(recording) = &mut self.recording {
            recording.pending_names.push(change);
        }
    }
}

impl Renaming {
    fn apply(&self, names: &mut Names) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        if let Some((to, node)) = &self.to {
            names.insert(to.clone(), Arc::clone(node));
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.from.as_deref().and_then(Path::parent) == Some(dir)
            || self.to.as_ref().and_then(|(to, _)| to.parent()) == Some(dir)
    }
}

impl FileState {
    fn after_power_cut(&self, draw: &mut Draw) -> Pages {
        let mut pages = self.durable.clone();
        for Write { offset, bytes, fate } in &self.unsure {
            match if *fate == Fate::Durable { 1 } else { draw.below(4) } {
                0 => {}
                1 => pages.write(bytes, *offset),
                2 => {
                    let sectors = bytes.len().div_ceil(SECTOR) as u64;
                    let keep = (draw.below(sectors + 1) as usize * SECTOR).min(bytes.len());
                    pages.write(&bytes[..keep], *offset);
                }
                _ => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate().filter(|_| draw.below(2) == 0) {
                        pages.write(sector, offset + (number * SECTOR) as u64);
                    }
                }
            }
        }
        pages
    }

    /// Makes durable what was written, or loses it.
    fn sync(&mut self, fate: Fate) {
        let pending = self.unsure.iter_mut().filter(|write| write.fate == Fate::Pending);
        pending.for_each(|write| write.fate = fate);
        if self.unsure.iter().all(|write| write.fate == Fate::Durable) {
            self.durable = self.now.clone();
            self.unsure.clear();
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let node = match how {
            Open::Create => {
                let mut state = self.grow()?;
                let node = Node::default();
                state.rename(Renaming { from: None, to: Some((path.into(), Arc::clone(&node))) });
                node
            }
            Open::Read | Open::Write => self.look()?.names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?,
        };
        Ok(Arc::new(Handle { disk: self.clone(), node }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let node = state.names.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.rename(Renaming { from: Some(from.into()), to: Some((to.into(), node)) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(Renaming { from: Some(path.into()), to: None });
        Ok(())
    }

    // A name brings its directories with it: nothing that content does depends on empty ones.
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, result) = self.sync()?;
        // Names are metadata, of which the file system keeps a journal: they wait for the next sync.
        result?;
        if let Some(recording) = &mut state.recording {
            let (durable, pending) =
                std::mem::take(&mut recording.pending_names).into_iter().partition(|change| change.is_in(path));
            recording.pending_names = pending;
            let durable: Vec<Renaming> = durable;
            for change in durable {
                change.apply(&mut recording.durable_names);
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.look()?;
        let mut names: Vec<String> = state
            .names
            .range(path.to_path_buf()..)
            .map_while(|(name, _)| name.strip_prefix(path).ok())
            .filter_map(|rest| rest.components().next()?.as_os_str().to_str().map(str::to_owned))
            .collect();
        names.dedup();
        Ok(names)
    }
}

struct Handle {
    disk: MemoryDisk,
    node: Node,
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        drop(self.disk.look()?);
        lock(&self.node).now.read(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let recording = self.disk.grow()?.recording.is_some();
        let mut file = lock(&self.node);
        file.now.write(bytes, offset);
        if recording {
            file.unsure.push(Write { offset, bytes: bytes.to_vec(), fate: Fate::Pending });
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (state, result) = self.disk.sync()?;
        let recording = state.recording.is_some();
        drop(state);
        if recording {
            lock(&self.node).sync(if result.is_ok() { Fate::Durable } else { Fate::Lost });
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.node).now.len)
    }
}

fn lock(node: &Node) -> MutexGuard<'_, FileState> {
    node.lock().expect("no operation on a file panics")
}

/// Numbers from a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
