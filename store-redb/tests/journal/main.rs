//! The journal: what was acknowledged is there after power cuts at any write to either file, damage is told, and
//! readers cannot tell what is in memory from what is in redb.

mod machine;

use std::{
    collections::BTreeMap,
    io,
    ops::{Bound, ControlFlow},
};

use machine::{JOURNAL, Machine, ROWS};
use redb::StorageBackend;
use store_redb::{Limits, RedbEngine};
use sync_core::{
    store::{Core, Engine, EngineRead, Scan, StoreError},
    testing::random::Random,
};

/// So small that a few transactions fill the journal, and some are too large for it.
const SMALL: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 32 * 1024 };

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(machine: &Machine) -> Result<RedbEngine, StoreError> {
    open_with(machine, [5; 32])
}

fn open_with(machine: &Machine, secret: [u8; 32]) -> Result<RedbEngine, StoreError> {
    let machine = machine.clone();
    RedbEngine::with_backends(move || machine.open(), SMALL, secret)
}

fn rows(reader: &dyn EngineRead, (start, end): (&[u8], Option<&[u8]>), order: Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    reader
        .scan(start, end, order, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("the rows can be read");
    rows
}

fn all(engine: &RedbEngine) -> Model {
    rows(&engine.snapshot().expect("a snapshot"), (&[], None), Scan::Forward).into_iter().collect()
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("key {:02}", random.below(60)).into_bytes()
}

/// A transaction, done to the engine and to the model.
fn transact(engine: &RedbEngine, model: &mut Model, random: &mut Random) -> Result<(), StoreError> {
    let count = *random.pick(&[1, 1, 1, 2, 5, 20, 60]);
    let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..count)
        .map(|_| {
            let value = vec![random.below(256) as u8; *random.pick(&[0, 10, 100, 1_000])];
            (key(random), (!random.percent(30)).then_some(value))
        })
        .collect();
    engine.write(&mut |writer| {
        for (key, value) in &changes {
            match value {
                Some(value) => writer.put(key, value)?,
                None => writer.delete(key)?,
            }
            assert_eq!(writer.get(key)?, *value, "a writer reads its own writes");
        }
        Ok(())
    })?;
    for (key, value) in changes {
        match value {
            Some(value) => drop(model.insert(key, value)),
            None => drop(model.remove(&key)),
        }
    }
    Ok(())
}

/// Every read of the rows that the model has.
fn compare(reader: &dyn EngineRead, model: &Model, random: &mut Random) {
    for order in [Scan::Forward, Scan::Backward] {
        let (start, end) = (key(random), random.percent(80).then(|| key(random)));
        let mut expected: Vec<_> = match &end {
            Some(end) if *end <= start => Vec::new(),
            _ => {
                let bounds = (Bound::Included(&start), end.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
                model.range::<Vec<u8>, _>(bounds).map(|(key, value)| (key.clone(), value.clone())).collect()
            }
        };
        if order == Scan::Backward {
            expected.reverse();
        }
        assert_eq!(rows(reader, (&start, end.as_deref()), order), expected);
        // And one that breaks.
        let (limit, mut seen) = (random.below(4) + 1, 0);
        reader
            .scan(&start, end.as_deref(), order, &mut |key, value| {
                assert_eq!(expected.get(seen), Some(&(key.to_vec(), value.to_vec())));
                seen += 1;
                if seen == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .expect("scanned");
        assert_eq!(seen, limit.min(expected.len()));
    }
    let key = key(random);
    assert_eq!(reader.get(&key).expect("read"), model.get(&key).cloned());
}

#[test]
fn what_is_in_memory_cannot_be_told_from_what_is_in_redb() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = Machine::default();
        let mut engine = Some(open(&machine).expect("opened"));
        let mut model = Model::new();
        let mut old = Vec::new();
        for _ in 0..60 {
            let open_engine = engine.get_or_insert_with(|| open(&machine).expect("opened again"));
            transact(open_engine, &mut model, &mut random).expect("written");
            let snapshot = open_engine.snapshot().expect("a snapshot");
            compare(&snapshot, &model, &mut random);
            old.push((snapshot, model.clone()));
            if random.percent(10) {
                let (snapshot, model) = random.pick(&old);
                compare(snapshot, model, &mut random);
            }
            if random.percent(5) {
                old.clear();
                engine = None;
            }
        }
    }
}

#[test]
fn b51_a_power_cut_at_any_write_to_rows_or_journal_leaves_before_or_after() {
    let mut images = 0;
    for seed in 0..2 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let machine = Machine::default();
        let mut engine = open(&machine).expect("opened");
        let mut model = Model::new();
        let mut states = vec![(machine.operations(), model.clone())];
        for step in 0..40 {
            if step % 13 == 12 {
                drop(engine);
                engine = open(&machine).expect("opened again");
            }
            transact(&engine, &mut model, &mut random).expect("written");
            states.push((machine.operations(), model.clone()));
        }
        for cut in states[0].0..=machine.operations() {
            for _ in 0..2 {
                let image = Machine::with(machine.after_power_cut(cut, &mut random));
                let acknowledged = states.iter().rposition(|(operations, _)| *operations <= cut).expect("the first is");
                let allowed: Vec<&Model> = states.iter().skip(acknowledged).take(2).map(|(_, model)| model).collect();
                let engine = open(&image).unwrap_or_else(|error| panic!("after {cut} operations: {error}"));
                let mut found = all(&engine);
                assert!(allowed.contains(&&found), "after {cut} operations: {found:?} is neither of {allowed:?}");
                // Writing goes on, and another cut changes nothing of that.
                transact(&engine, &mut found, &mut random).expect("writing goes on");
                let again = Machine::with(image.files());
                assert_eq!(all(&open(&again).expect("opened again")), found, "after {cut} operations and a kill");
                images += 1;
            }
        }
    }
    println!("{images} images");
    assert!(images > 500, "{images} images are too few to mean anything");
}

/// A machine whose journal holds seven transactions that redb does not have: one more would fill half of it.
fn seven() -> (Machine, Vec<Model>) {
    let machine = Machine::default();
    let engine = open(&machine).expect("opened");
    let mut models = vec![Model::new()];
    for number in 0..7u8 {
        let row = (vec![number], vec![number; 50]);
        engine.write(&mut |rows| rows.put(&row.0, &row.1)).expect("written");
        let mut model = models.last().expect("one is there").clone();
        model.insert(row.0, row.1);
        models.push(model);
    }
    (Machine::with(machine.files()), models)
}

/// Where the bytes of its seven records are: each has a page, behind the header's.
fn record(number: usize) -> std::ops::Range<usize> {
    let start = 4_096 * (1 + number);
    start..start + 16 + 4 + 8 + 6 + 1 + 50
}

#[test]
fn b51_a_damaged_record_is_an_error_unless_it_is_the_torn_last() {
    let (machine, models) = seven();
    assert_eq!(&all(&open(&Machine::with(machine.files())).expect("opened")), models.last().expect("seven"));
    for number in 0..7 {
        for at in record(number) {
            let mut files = machine.files();
            files[JOURNAL][at] ^= 1 << (at % 8);
            let opened = open(&Machine::with(files));
            match number {
                6 => assert_eq!(all(&opened.expect("a torn end is cut off")), models[6]),
                _ => {
                    let error = opened.expect_err("it is not the last");
                    assert!(matches!(&error, StoreError::Corrupt(what) if what.contains("is damaged")), "{error:?}");
                }
            }
        }
    }
}

#[test]
fn b51_a_journal_that_is_missing_lost_or_anothers_is_told() {
    let (machine, models) = seven();
    let [rows, journal] = machine.files();
    let other = Machine::default();
    drop(open_with(&other, [6; 32]).expect("another store"));
    let [other_rows, other_journal] = other.files();
    let error = open(&Machine::with([other_rows, journal.clone()])).expect_err("it is of another store");
    assert!(error.to_string().contains("not the journal of this store"), "{error}");
    drop(open(&Machine::with([Vec::new(), other_journal])).expect("one that is empty is in nobody's way"));
    let mut newer = journal.clone();
    newer[11] = 9;
    let error = open(&Machine::with([rows.clone(), newer])).expect_err("it is newer");
    assert!(matches!(error, StoreError::NewerFormat { found: 9, known: 1, .. }), "{error:?}");
    let mut beginning_lost = journal.clone();
    beginning_lost[record(0)].fill(0);
    open(&Machine::with([rows, beginning_lost])).expect_err("the first record is missing");
    // An older copy of the rows takes in what the journal still has.
    let engine = open(&machine).expect("opened");
    assert_eq!(&all(&engine), models.last().expect("seven"));
}

#[test]
fn b51_a_flush_of_the_journal_that_fails_is_not_acknowledged_nor_retried_on_the_same_file() {
    let machine = Machine::default();
    let engine = open(&machine).expect("opened");
    let mut random = Random::new(1);
    let mut model = Model::new();
    engine.write(&mut |rows| rows.put(b"before", b"1")).expect("written");
    machine.fail(JOURNAL, Some(io::ErrorKind::Other));
    let error = engine.write(&mut |rows| rows.put(b"failed", b"1")).expect_err("the flush fails");
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    // Opening writes the last record anew, or nothing can be known of it.
    assert!(engine.snapshot().is_err(), "the files cannot be opened while the disk is broken");
    machine.fail(JOURNAL, None);
    let found = all(&engine);
    assert_eq!(found.get(&b"before"[..]).map(Vec::as_slice), Some(&b"1"[..]));
    model.extend(found);
    for _ in 0..5 {
        transact(&engine, &mut model, &mut random).expect("writing goes on");
    }
    assert_eq!(all(&open(&Machine::with(machine.files())).expect("opened")), model);
}

#[test]
fn b51_a_full_disk_fails_writes_and_loses_nothing_whichever_file_it_stops() {
    for full in [ROWS, JOURNAL] {
        let machine = Machine::default();
        let engine = open(&machine).expect("opened");
        let mut random = Random::new(2);
        let mut model = Model::new();
        for _ in 0..7 {
            transact(&engine, &mut model, &mut random).expect("written");
        }
        machine.fail(full, Some(io::ErrorKind::StorageFull));
        let mut errors = 0;
        for _ in 0..30 {
            if let Err(error) = transact(&engine, &mut model, &mut random) {
                assert!(matches!(&error, error @ StoreError::DiskFull(_) if error.is_temporary()), "{error:?}");
                errors += 1;
            }
        }
        assert!(errors > 5, "{errors} errors: the disk was not full");
        machine.fail(full, None);
        assert_eq!(all(&engine), model, "what was acknowledged, and nothing else");
        transact(&engine, &mut model, &mut random).expect("there is space again");
        assert_eq!(all(&open(&Machine::with(machine.files())).expect("opened")), model);
    }
}

#[test]
fn a_store_that_is_closed_leaves_an_empty_journal() {
    let (machine, models) = seven();
    drop(open(&machine).expect("opened"));
    let [rows, journal] = machine.files();
    assert_eq!(journal.len(), 4_096, "the header's page");
    // So the rows alone are all of the store.
    let machine = Machine::with([rows, Vec::new()]);
    assert_eq!(&all(&open(&machine).expect("opened")), models.last().expect("seven"));
}

#[test]
fn a_store_from_before_there_was_a_journal_is_opened() {
    let machine = Machine::default();
    let rows = || machine.open().map(|(rows, _)| rows);
    let table = redb::TableDefinition::<&[u8], &[u8]>::new("syncline");
    let database = redb::Builder::new().create_with_backend(rows().expect("a file")).expect("a database");
    let writing = database.begin_write().expect("a transaction");
    let first = [(&b"\0format"[..], vec![0, 0, 0, 1]), (b"\0store id", vec![7; 16]), (b"\0salt", vec![8; 32])];
    {
        let mut table = writing.open_table(table).expect("the table");
        for (key, value) in &first {
            table.insert(*key, value.as_slice()).expect("inserted");
        }
    }
    writing.commit().expect("committed");
    drop(database);
    assert_eq!(rows().expect("a file").len().expect("a length") % 4_096, 0);
    let core = Core::open(open(&machine).expect("opened"), [1; 32]).expect("the store of then");
    assert_eq!(format!("{:?}", core.store_id()), format!("{:?}", sync_core::store::StoreId([7; 16])));
    assert_eq!(core.engine().snapshot().expect("a snapshot").get(b"\0format").expect("read"), Some(vec![0, 0, 0, 3]));
}
