// The fuzz target of recovery: a damaged file of a store. Replayed here, explored by `fuzz/`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use store_redb::{Limits, RedbEngine};
use sync_core::{
    model::SlotRange,
    store::{ChangesRequest, Core, NodeKind, NodeRecord, Position, Query, Scope, StoreError, Write},
    testing::{
        fuzz::{Bound, Input},
        random::Random,
    },
};

use crate::{
    disk::Disk,
    scripts::{self, Step},
};

/// What one may hold. The image is some 300 KiB, and here several times; but redb believes the lengths of a damaged
/// allocator's bitmaps: 32 bits that count bits, so half a GiB, in memory that it does not touch.
pub const BOUND: Bound = Bound { times: 4, kib: 1 << 20 };

/// What a store leaves: its rows, and its journal if it has one.
#[derive(Clone)]
struct Image {
    rows: Vec<u8>,
    journal: Option<Vec<u8>>,
}

/// Images as they are after a good end, and after a power cut.
fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let mut images = Vec::new();
        for seed in 0..3 {
            for has_journal in [false, true] {
                let (rows, journal) = (Disk::default(), has_journal.then(Disk::default));
                let core = open(&rows, journal.as_ref()).expect("an empty disk can be used");
                for step in scripts::random(seed).steps {
                    if let Step::Write(group) = step {
                        core.write(&group).into_iter().for_each(|result| drop(result.expect("the disk works")));
                    }
                }
                let cut = |disk: &Disk| disk.after_power_cut(disk.operations(), &mut Random::new(seed));
                images.push(Image { rows: cut(&rows), journal: journal.as_ref().map(cut) });
                drop(core);
                images.push(Image { rows: rows.file(), journal: journal.as_ref().map(Disk::file) });
            }
        }
        images
    })
}

/// From now on redb's own panics are counted and not told: each is to be an error. Who counts libFuzzer's findings by
/// panics would take them for some.
pub fn say_nothing_of_redbs_panics() -> &'static AtomicU64 {
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().contains("/redb-")) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        } else {
            default(panic);
        }
    }));
    &PANICS
}

/// Small, so that transactions of a few rows are large ones, and folded.
const LIMITS: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 64 * 1024 };

fn open(rows: &Disk, journal: Option<&Disk>) -> Result<Core<RedbEngine>, StoreError> {
    let rows = rows.clone();
    let engine = match journal.cloned() {
        None => RedbEngine::with_backend(move || Ok(rows.clone())),
        Some(journal) => RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), LIMITS, [5; 32]),
    };
    Core::open(engine?, [3; 32])
}

/// Whatever is damaged, opening, reading and writing answer, with an error or not, and never panic.
pub fn recovery(data: &[u8]) {
    let mut input = Input::new(data);
    let images = images();
    let Image { mut rows, mut journal } = images[input.below(images.len())].clone();
    for _ in 0..1 + input.below(4) {
        match &mut journal {
            Some(journal) if input.one_in(3) => edit(journal, &mut input),
            _ => edit(&mut rows, &mut input),
        }
    }
    let journal = journal.map(Disk::with);
    let _ = use_all(&Disk::with(rows), journal.as_ref());
}

fn edit(file: &mut Vec<u8>, input: &mut Input<'_>) {
    let len = file.len().max(1);
    let at = input.long() as usize % len;
    // The head of the file is hit as often as all the rest.
    let at = if input.one_in(2) { at % 512.min(len) } else { at };
    match input.below(7) {
        0 | 1 if !file.is_empty() => file[at] ^= 1 << input.below(8),
        2 if !file.is_empty() => file[at] = input.byte(),
        3 => {
            let bytes = input.bytes(64);
            let end = (at + bytes.len()).min(file.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
        4 => {
            let start = at / 512 * 512;
            let end = (start + 512).min(file.len());
            file[start..end].fill(0);
        }
        5 => {
            let from = input.long() as usize % len / 4096 * 4096;
            let page = file[from..(from + 4096).min(file.len())].to_vec();
            let start = at / 4096 * 4096;
            let end = (start + page.len()).min(file.len());
            file[start..end].copy_from_slice(&page[..end - start]);
        }
        _ => file.truncate(at),
    }
}

fn use_all(rows: &Disk, journal: Option<&Disk>) -> Result<(), StoreError> {
    let core = open(rows, journal)?;
    for id in core.replicas()? {
        // Each may fail, and none keeps the others from being asked.
        let _ = core.state(id);
        let _ = core.log(id, Position(0), usize::MAX);
        let _ = core.query(id, &Query::default());
        let _ = core.summary(id, &SlotRange::ALL);
        let _ = core.split(id, &SlotRange::ALL, 16);
        let _ = core.first_claims(id, &Scope::all());
        let _ = core.changes(&ChangesRequest {
            replica: id,
            since: Position(0),
            not_from: None,
            scope: Scope::all(),
            max_bytes: 100_000,
        });
    }
    let _ = core.node_records(NodeKind::Job);
    let record =
        |name: String, len| NodeRecord { kind: NodeKind::Job, name: name.into(), value: Some(vec![7; len].into()) };
    // A small transaction, a large one, and one that goes into what is left of both.
    for (number, len) in [100, 9_000, 2_000].into_iter().enumerate() {
        let records = vec![record(format!("damaged {number}"), len)];
        let _ = core.write(&[Write::Save { records }]).remove(0);
    }
    for id in core.replicas()? {
        core.write(&[Write::DropReplica { replica: id, records: Vec::new() }]).remove(0)?;
    }
    Ok(())
}
