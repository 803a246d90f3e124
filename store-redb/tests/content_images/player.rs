//! Who plays a script, notes what was acknowledged, and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use store_redb::RedbStore;
use sync_content::{
    FileKind,
    disk::{Disk as _, Open},
};
use sync_core::{
    model::{Op, Value},
    store::{
        Apply, Begun, ContentDir, ContentStatus, ContentStore, Download, Origin, Reader, ReplicaStore, StoreError,
    },
    testing::{
        block_on,
        store_suite::world::{NOW, delete, key},
    },
};

use crate::{
    machine::Machine,
    scripts::{Cast, LARGE, LARGE_NEWER, Script, Step},
};

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Told {
    replica: bool,
    /// By name: to what the entry may refer. One more than one while it is written.
    entries: BTreeMap<&'static str, Vec<Option<usize>>>,
    /// Contents that are here.
    complete: BTreeSet<usize>,
    /// How many bytes of a download are durable.
    have: BTreeMap<usize, u64>,
}

impl Told {
    fn is_referred(&self, content: usize) -> bool {
        self.entries.values().flatten().any(|entry| *entry == Some(content))
    }
}

pub struct Player<'a> {
    cast: &'a Cast,
    machine: &'a Machine,
    store: Option<Arc<RedbStore>>,
    downloads: BTreeMap<usize, Arc<Download>>,
    told: Told,
    now: i64,
    is_full: bool,
    /// How often a step is tried.
    pub tries: usize,
}

impl<'a> Player<'a> {
    pub fn new(cast: &'a Cast, machine: &'a Machine) -> Self {
        let (store, downloads, told) = Default::default();
        Self { cast, machine, store, downloads, told, now: 0, is_full: false, tries: 1 }
    }

    /// Closes the store, and answers what was acknowledged.
    pub fn close(mut self) -> Told {
        (self.downloads, self.store) = (BTreeMap::new(), None);
        self.told
    }

    /// Plays until something fails more often than it may. What fails on full disks may fail.
    pub fn play(&mut self, script: &Script) -> Result<(), StoreError> {
        self.patiently(|player| {
            block_on(player.opened()?.create_replica(player.cast.world.replica, Vec::new()))?;
            player.told.replica = true;
            Ok(())
        })?;
        for step in &script.steps {
            match self.patiently(|player| player.step(step)) {
                Err(_) if self.is_full && !self.machine.is_off() => {}
                result => result?,
            }
        }
        // What works is seen to work before the power goes, too.
        let Self { cast, machine, told, .. } = &*self;
        if !machine.is_off() && !self.is_full {
            let told = told.clone();
            self.patiently(|player| is_there(&*player.opened()?, cast, &told).map(drop))?;
        }
        Ok(())
    }

    fn patiently(&mut self, work: impl Fn(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for _ in 1..self.tries {
            if work(self).is_ok() {
                return Ok(());
            }
            // After an error downloads begin again at their checkpoints.
            self.downloads.clear();
        }
        let done = work(self);
        if done.is_err() {
            self.downloads.clear();
        }
        done
    }

    fn opened(&mut self) -> Result<Arc<RedbStore>, StoreError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let store = Arc::new(self.machine.open()?);
        self.store = Some(store.clone());
        Ok(store)
    }

    fn step(&mut self, step: &Step) -> Result<(), StoreError> {
        match *step {
            Step::Import(content) => self.import(content),
            Step::Refer(name, content) => self.refer(name, content),
            Step::Fetch(content, groups) => self.fetch(content, groups),
            Step::Reuse(content, base) => self.reuse(content, base),
            Step::Checkpoint(content) => self.checkpoint(content),
            Step::GiveUp(content) => {
                self.downloads.remove(&content);
                Ok(())
            }
            Step::Finish(content) => self.finish(&[content]),
            Step::FinishBoth(one, other) => self.finish(&[one, other]),
            Step::Read(content) => self.read(content),
            Step::Collect => self.collect(),
            Step::Full(is_full) => {
                self.machine.set_full(is_full);
                self.is_full = is_full;
                Ok(())
            }
            Step::Litter => litter(self.machine).map_err(|error| StoreError::Failed(error.to_string())),
            Step::Reopen => {
                self.downloads.clear();
                self.store = None;
                self.opened().map(drop)
            }
        }
    }

    fn import(&mut self, content: usize) -> Result<(), StoreError> {
        let bytes = self.cast.contents[content].clone();
        let imported = block_on(self.opened()?.import_bytes(bytes))?;
        assert_eq!(imported.hash, self.cast.hashes[content]);
        self.told.complete.insert(content);
        Ok(())
    }

    fn refer(&mut self, name: &'static str, content: Option<usize>) -> Result<(), StoreError> {
        let op = match content {
            Some(content) => {
                let (hash, len) = (self.cast.hashes[content], self.cast.contents[content].len() as u64);
                Op::Put { key: key(name), value: Value::Blob { hash, len } }
            }
            None => delete(name),
        };
        self.now += 1;
        self.told.entries.entry(name).or_insert_with(|| vec![None]).push(content);
        let world = &self.cast.world;
        let bundles = vec![world.commit(0, self.now, vec![op])];
        let batch = Apply { replica: world.replica, bundles, origin: Origin::Local, now: NOW, records: Vec::new() };
        block_on(self.opened()?.apply(batch))?;
        self.told.entries.insert(name, vec![content]);
        Ok(())
    }

    /// The download of a content, which is begun or goes on; none when it is here.
    fn download(&mut self, content: usize) -> Result<Option<Arc<Download>>, StoreError> {
        if let Some(download) = self.downloads.get(&content) {
            return Ok(Some(download.clone()));
        }
        let download = begin(&*self.opened()?, self.cast, content)?;
        if let Some(download) = &download {
            self.downloads.insert(content, download.clone());
        }
        Ok(download)
    }

    fn fetch(&mut self, content: usize, groups: u64) -> Result<(), StoreError> {
        match self.download(content)? {
            Some(download) => fetch(self.cast, content, &download, groups),
            None => Ok(()),
        }
    }

    fn reuse(&mut self, content: usize, base: usize) -> Result<(), StoreError> {
        let Some(download) = self.download(content)? else { return Ok(()) };
        let Some(base) = block_on(self.opened()?.reader(self.cast.hashes[base]))? else { return Ok(()) };
        if base.here().byte_count(base.len()) < base.len() {
            return Ok(());
        }
        let peer = &self.cast.peers[content];
        download.partial().reuse(base);
        while let Some(mut claim) = download.partial().claim_tree(peer.here(), 64) {
            for piece in peer.encode_tree(claim.groups().into()).expect("the peer is well") {
                claim.push(&piece.expect("the peer is well"))?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, content: usize) -> Result<(), StoreError> {
        let Some(download) = self.downloads.get(&content).cloned() else { return Ok(()) };
        block_on(self.opened()?.checkpoint_download(download))?;
        // What the older version has is not durable with it, and is there as long as that is.
        if let ContentStatus::Partial { have, .. } = block_on(self.opened()?.content_status(self.cast.hashes[content]))?
        {
            self.told.have.insert(content, have);
        }
        Ok(())
    }

    /// Fetches what is missing, and publishes.
    fn finish(&mut self, contents: &[usize]) -> Result<(), StoreError> {
        let mut downloads = Vec::new();
        for content in contents {
            if let Some(download) = self.download(*content)? {
                fetch(self.cast, *content, &download, u64::MAX)?;
                downloads.push(download);
            }
        }
        block_on(self.opened()?.finish_downloads(downloads))?;
        for content in contents {
            self.downloads.remove(content);
            self.told.complete.insert(*content);
        }
        Ok(())
    }

    fn read(&mut self, content: usize) -> Result<(), StoreError> {
        let reader = block_on(self.opened()?.reader(self.cast.hashes[content]))?;
        reader.map_or(Ok(()), |reader| is_proved(self.cast, &reader))
    }

    fn collect(&mut self) -> Result<(), StoreError> {
        // What nobody refers to may go from here on.
        let Told { entries, complete, have, .. } = &mut self.told;
        let is_referred = |content: usize| entries.values().flatten().any(|entry| *entry == Some(content));
        complete.retain(|content| is_referred(*content));
        have.retain(|content, _| is_referred(*content));
        while block_on(self.opened()?.collect_content())? > 0 {}
        Ok(())
    }
}

fn begin(store: &RedbStore, cast: &Cast, content: usize) -> Result<Option<Arc<Download>>, StoreError> {
    match block_on(store.begin_download(cast.hashes[content], cast.contents[content].len() as u64))? {
        Begun::Ours(download) => {
            download.comes_for(cast.world.replica);
            Ok(Some(Arc::new(download)))
        }
        Begun::Complete => Ok(None),
        Begun::Busy => panic!("nobody else downloads it"),
    }
}

/// So many groups come.
fn fetch(cast: &Cast, content: usize, download: &Download, groups: u64) -> Result<(), StoreError> {
    let mut left = groups;
    while left > 0
        && let Some(mut claim) = download.partial().claim(left.min(64))
    {
        for piece in cast.peers[content].encode(claim.groups().into()).expect("the peer is well") {
            claim.push(&piece.expect("the peer is well"))?;
        }
        left -= (claim.groups().end - claim.groups().start).min(left);
    }
    Ok(())
}

/// Files that no row knows: an import that was never published, a download, a content.
fn litter(machine: &Machine) -> std::io::Result<()> {
    let disk = machine.content();
    let nobodys = blake3::hash(b"nobody's").to_hex();
    for path in ["/staging/77".to_owned(), format!("/partial/{nobodys}"), format!("/{}/{nobodys}", &nobodys[..2])] {
        let path = Path::new(&path);
        disk.open(path, Open::Create)?.write_at(b"whatever", 0)?;
        disk.sync_dir(path.parent().expect("it has a directory"))?;
    }
    Ok(())
}

/// What is served of a content is what its hash says.
fn is_proved(cast: &Cast, reader: &Reader) -> Result<(), StoreError> {
    let content = &cast.contents[cast.number(reader.hash().into())];
    for groups in reader.here().iter() {
        let bytes = sync_content::groups::byte_range(&groups, reader.len());
        let found = reader.read_to_vec(bytes.clone())?;
        assert!(found[..] == content[bytes.start as usize..bytes.end as usize], "what is served is not the content");
    }
    Ok(())
}

/// Whether what was acknowledged is there. Answers whether a download has something.
fn is_there(store: &RedbStore, cast: &Cast, told: &Told) -> Result<bool, StoreError> {
    let replica = cast.world.replica;
    let mut referred = BTreeSet::new();
    if told.replica {
        for (name, allowed) in &told.entries {
            let found = block_on(store.get(replica, key(name)))?.map(|entry| match entry.entry.op {
                Op::Put { value: Value::Blob { hash, .. }, .. } => cast.number(hash),
                other => panic!("{other:?} was never written"),
            });
            assert!(allowed.contains(&found), "{name}: {found:?}, not one of {allowed:?}");
            referred.extend(found);
        }
    }
    let wants: BTreeSet<usize> =
        block_on(store.wants(None, 100))?.into_iter().map(|want| cast.number(want.hash)).collect();
    assert!(wants.is_subset(&referred), "{wants:?} are wanted, and nobody refers to them");
    let mut resumes = false;
    for (content, hash) in cast.hashes.iter().enumerate() {
        let len = cast.contents[content].len() as u64;
        let here = match block_on(store.content_status(*hash))? {
            ContentStatus::Complete { len: found } => {
                assert_eq!(found, len);
                len
            }
            ContentStatus::Partial { have, .. } => {
                resumes |= have > 0;
                have
            }
            ContentStatus::Missing => 0,
        };
        let is_complete = matches!(block_on(store.content_status(*hash))?, ContentStatus::Complete { .. });
        assert!(is_complete || !told.complete.contains(&content), "{content} was acknowledged and is gone");
        assert!(is_complete || !referred.contains(&content) || wants.contains(&content), "{content} is not wanted");
        let have = told.have.get(&content).copied().unwrap_or(0);
        assert!(here >= have, "{content}: {here} bytes are here, {have} were");
        match block_on(store.reader(*hash))? {
            Some(reader) => {
                assert_eq!(reader.here().byte_count(len), here, "{content}: what is served");
                is_proved(cast, &reader)?;
            }
            None => assert_eq!(here, 0, "{content} cannot be read"),
        }
    }
    Ok(resumes)
}

/// The files of contents and downloads.
fn files(machine: &Machine) -> Result<Vec<(FileKind, [u8; 32])>, String> {
    let dir = ContentDir::open_on(Arc::new(machine.content().clone()), "/").map_err(|error| error.to_string())?;
    Ok(dir.list().map_err(|error| error.to_string())?.into_iter().collect())
}

/// Every file is one that a row knows, and there is a file for each.
fn are_files_known(store: &RedbStore, machine: &Machine, cast: &Cast) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let staged = machine.content().list(Path::new("/staging")).map_err(|error| text(&error))?;
    if !staged.is_empty() {
        return Err(format!("{staged:?} are staged, and nobody imports"));
    }
    for (kind, hash) in files(machine)? {
        let hash = sync_core::model::Hash(hash);
        let status = match cast.hashes.contains(&hash) {
            true => block_on(store.content_status(hash)).map_err(|error| text(&error))?,
            false => ContentStatus::Missing,
        };
        let is_known = match kind {
            FileKind::Complete | FileKind::Overlay => status != ContentStatus::Missing,
            FileKind::Partial => matches!(status, ContentStatus::Partial { .. }),
        };
        if !is_known {
            return Err(format!("a file of kind {kind:?} is left for ever: the row of {hash:?} says {status:?}"));
        }
    }
    Ok(())
}

/// Opens an image, looks whether what was acknowledged is there, and goes on to the end: all that is wanted
/// comes, and what nobody refers to goes. Answers whether a download could go on.
pub fn check(machine: &Machine, cast: &Cast, told: &Told) -> Result<bool, String> {
    let text = |error: StoreError| error.to_string();
    let store = machine.open().map_err(|error| format!("it does not open: {error}"))?;
    are_files_known(&store, machine, cast)?;
    let resumes = is_there(&store, cast, told).map_err(text)?;
    for want in block_on(store.wants(None, 100)).map_err(text)? {
        let content = cast.number(want.hash);
        match begin(&store, cast, content).map_err(text)? {
            Some(download) => {
                let missing = download.partial().missing().byte_count(want.len);
                let have = told.have.get(&content).copied().unwrap_or(0);
                if missing > want.len - have {
                    return Err(format!("of {content} {missing} bytes are missing, and {have} were here"));
                }
                fetch(cast, content, &download, u64::MAX).map_err(text)?;
                block_on(store.finish_downloads(vec![download])).map_err(text)?;
            }
            // It was here before an entry referred to it: a peer proves that it has it.
            None => drop(block_on(store.hold_content(want.replica, want.hash)).map_err(text)?),
        }
    }
    if let Some(want) = block_on(store.wants(None, 100)).map_err(text)?.first() {
        return Err(format!("{want:?} is wanted for ever"));
    }
    while block_on(store.collect_content()).map_err(text)? > 0 {}
    are_files_known(&store, machine, cast)?;
    let files = files(machine)?;
    for (content, hash) in cast.hashes.iter().enumerate() {
        let status = block_on(store.content_status(*hash)).map_err(text)?;
        // What the other version stands on is kept with that.
        let versions = [LARGE, LARGE_NEWER];
        let stands = |other: usize| files.contains(&(FileKind::Overlay, cast.hashes[other].0));
        let is_base =
            versions.contains(&content) && versions.into_iter().any(|other| other != content && stands(other));
        if matches!(status, ContentStatus::Complete { .. }) && !told.is_referred(content) && !is_base {
            return Err(format!("{content} is kept, and nobody refers to it"));
        }
    }
    Ok(resumes)
}
