// The fuzz target of recovery: a damaged file of a store. Replayed here, explored by `fuzz/`.

use std::sync::OnceLock;

use store_redb::RedbEngine;
use sync_core::{
    model::SlotRange,
    store::{ChangesRequest, Core, NodeKind, Position, Query, Scope, StoreError, Write},
    testing::{fuzz::Input, random::Random},
};

use crate::{
    disk::Disk,
    scripts::{self, Step},
};

/// Files as they are after a good end, and after a power cut.
fn files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        for seed in 0..3 {
            let disk = Disk::default();
            let core = open(&disk).expect("an empty disk can be used");
            for step in scripts::random(seed).steps {
                if let Step::Write(group) = step {
                    core.write(&group).into_iter().for_each(|result| drop(result.expect("the disk works")));
                }
            }
            files.push(disk.after_power_cut(disk.operations(), &mut Random::new(seed)));
            drop(core);
            files.push(disk.file());
        }
        files
    })
}

fn open(disk: &Disk) -> Result<Core<RedbEngine>, StoreError> {
    let disk = disk.clone();
    Core::open(RedbEngine::with_backend(move || Ok(disk.clone()))?, [3; 32])
}

/// Whatever is damaged, opening and reading answer, with an error or not, and never panic.
pub fn recovery(data: &[u8]) {
    let mut input = Input::new(data);
    let files = files();
    let mut file = files[input.below(files.len())].clone();
    for _ in 0..1 + input.below(4) {
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
    let disk = Disk::with(file);
    let _ = read_all(&disk);
}

fn read_all(disk: &Disk) -> Result<(), StoreError> {
    let core = open(disk)?;
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
    core.write(&[Write::Save { records: Vec::new() }]).remove(0)?;
    Ok(())
}
