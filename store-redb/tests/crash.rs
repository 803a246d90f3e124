//! Power cuts and full disks: what was acknowledged is there, and what was not is there as a whole or not at all.

mod disk;

use disk::{Disk, Failure};
use store_redb::{Limits, RedbEngine};
use sync_core::{
    model::Digest,
    store::{Apply, Core, NodeKind, NodeRecord, Origin, StoreError, Write},
    testing::{
        block_on,
        random::Random,
        store_suite::world::{NOW, World, delete_prefix, put},
    },
};

fn open(disk: &Disk) -> Result<Core<RedbEngine>, StoreError> {
    let disk = disk.clone();
    Core::open(RedbEngine::with_backend(move || Ok(disk.clone()))?, [3; 32])
}

fn batch(world: &World, number: i64) -> Write {
    let ops = match number % 4 {
        3 => vec![delete_prefix("1")],
        _ => (0..20).map(|n| put(&format!("{}", (number * 7 + n) % 40), &format!("{number}"))).collect(),
    };
    let value = Some(number.to_string().into_bytes().into());
    let cursor = NodeRecord { kind: NodeKind::Job, name: "cursor".into(), value };
    Write::Apply(Apply {
        replica: world.replica,
        bundles: vec![world.commit(0, number * 100, ops)],
        origin: Origin::Local,
        now: NOW,
        records: vec![cursor],
    })
}

/// The replica's root and the cursor that was saved with the last batch.
fn seen(core: &Core<RedbEngine>, world: &World) -> (Option<Digest>, Vec<NodeRecord>) {
    let root = core.state(world.replica).map(|state| state.root).ok();
    (root, core.node_records(NodeKind::Job).expect("records can be read"))
}

#[test]
fn b51_a_power_cut_at_any_write_leaves_before_or_after() {
    let world = World::default();
    let disk = Disk::default();
    let core = open(&disk).expect("an empty disk can be used");
    // What a reader sees after each acknowledged step, and how many operations there were by then.
    let mut states = vec![(disk.operations(), seen(&core, &world))];
    let create = Write::CreateReplica { replica: world.replica, records: vec![] };
    for write in std::iter::once(create).chain((0..12).map(|number| batch(&world, number))) {
        core.write(&[write]).remove(0).expect("the disk works");
        states.push((disk.operations(), seen(&core, &world)));
    }
    let seed = 5;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let first = states[0].0;
    let mut images = 0;
    for cut in first..=disk.operations() {
        for _ in 0..4 {
            let image = disk.after_power_cut(cut, &mut random);
            let core = open(&Disk::with(image)).expect("the image can be opened");
            let found = seen(&core, &world);
            let acknowledged = states.iter().rposition(|(operations, _)| *operations <= cut).expect("the first is");
            let allowed: Vec<_> = states.iter().skip(acknowledged).take(2).map(|(_, seen)| seen).collect();
            assert!(allowed.contains(&&found), "after {cut} operations: {found:?} is neither of {allowed:?}");
            // The index agrees with the entries, and writing goes on.
            if let Ok(claims) = core.first_claims(world.replica, &sync_core::store::Scope::all()) {
                drop(claims);
                core.write(&[batch(&world, 50)]).remove(0).expect("writing goes on");
            }
            images += 1;
        }
    }
    println!("{images} images");
    assert!(images > 300, "{images} images are too few to mean anything");
}

#[test]
fn b51_a_full_disk_fails_the_write_alone_and_it_goes_on_when_there_is_space() {
    let world = World::default();
    let disk = Disk::default();
    let core = open(&disk).expect("an empty disk can be used");
    let create = Write::CreateReplica { replica: world.replica, records: vec![] };
    core.write(&[create, batch(&world, 0)]).into_iter().for_each(|result| drop(result.expect("the disk works")));
    let before = seen(&core, &world);
    disk.fail(Some(Failure::NoSpace));
    for _ in 0..3 {
        let error = core.write(&[batch(&world, 1), batch(&world, 2)]).remove(0).map(|_| ());
        assert!(matches!(&error, Err(error @ StoreError::DiskFull(_)) if error.is_temporary()), "{error:?}");
    }
    disk.fail(None);
    assert_eq!(seen(&core, &world), before, "nothing of it is there");
    for result in core.write(&[batch(&world, 1), batch(&world, 2)]) {
        result.expect("there is space again");
    }
    assert_ne!(seen(&core, &world), before);
}

#[test]
fn b51_a_flush_that_fails_is_not_acknowledged_nor_retried_on_the_same_file() {
    let world = World::default();
    let disk = Disk::default();
    let core = open(&disk).expect("an empty disk can be used");
    core.write(&[Write::CreateReplica { replica: world.replica, records: vec![] }]).remove(0).expect("created");
    disk.fail(Some(Failure::Broken));
    let error = core.write(&[batch(&world, 0)]).remove(0).map(|_| ());
    assert!(matches!(error, Err(StoreError::Io { .. })), "{error:?}");
    disk.fail(None);
    // The engine opened the file again; what is there is what was acknowledged, or all of the batch.
    core.write(&[batch(&world, 1)]).remove(0).expect("the disk works again");
    assert!(core.state(world.replica).expect("state").root.count > 0);
}

/// The crash images found it: the header of a new journal, whose flush had failed, was read back from the system's
/// memory and taken for written. It never came to the disk: after the next power cut the journal was a new one, and what
/// had been acknowledged since was gone.
#[test]
fn b51_a_journal_whose_first_flush_failed_keeps_what_is_acknowledged_after_it() {
    let world = World::default();
    for seed in 0..20 {
        println!("seed {seed}");
        let open = |rows: &Disk, journal: &Disk| {
            let (rows, journal) = (rows.clone(), journal.clone());
            RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), Limits::default(), [5; 32])
                .and_then(|engine| Core::open(engine, [3; 32]))
        };
        let (rows, journal) = (Disk::default(), Disk::default());
        journal.fail_flush_after(0);
        open(&rows, &journal).expect_err("the flush of the header fails");
        let core = open(&rows, &journal).expect("the disk works again");
        core.write(&[Write::CreateReplica { replica: world.replica, records: vec![] }]).remove(0).expect("created");
        let mut random = Random::new(seed);
        let [rows, journal] = [rows, journal].map(|disk| disk.after_power_cut(disk.operations(), &mut random));
        let core = open(&Disk::with(rows), &Disk::with(journal)).expect("the image can be opened");
        core.state(world.replica).expect("what was acknowledged is there");
    }
}

#[test]
fn a_store_on_a_failing_disk_answers_every_caller() {
    let world = World::default();
    let disk = Disk::default();
    let again = disk.clone();
    let engine = RedbEngine::with_backend(move || Ok(again.clone())).expect("an empty disk can be used");
    let store = sync_core::store::EngineStore::open_with(engine, [1; 32], sync_core::store::ContentDir::in_memory())
        .expect("a store");
    block_on(async {
        use sync_core::store::ReplicaStore;
        store.create_replica(world.replica, vec![]).await.expect("created");
        disk.fail(Some(Failure::NoSpace));
        let Write::Apply(apply) = batch(&world, 0) else { unreachable!("a batch is applied") };
        assert!(matches!(store.apply(apply.clone()).await, Err(StoreError::DiskFull(_))));
        disk.fail(None);
        store.apply(apply).await.expect("there is space again");
    });
}
