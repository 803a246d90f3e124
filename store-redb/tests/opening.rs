//! What can be wrong with the file, each told apart and told with the way out.

use std::{fs, os::unix::fs::PermissionsExt};

use store_redb::{RedbEngine, open};
use sync_core::{
    store::{Core, Engine, EngineRead, Scan, StoreError, StoreRegistry, Write},
    testing::store_suite::world::{World, put},
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

#[test]
fn a_new_store_is_its_owners_alone_and_its_directories_are_made() {
    let directory = directory();
    let path = directory.path().join("a/b/store.redb");
    drop(open(&path).expect("opened"));
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    drop(open(&path).expect("opened again"));
}

#[test]
fn a_store_in_use_says_so() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let _first = open(&path).expect("opened");
    let error = open(&path).expect_err("the first one holds it");
    assert!(matches!(error, StoreError::InUse(_)), "{error:?}");
    assert!(error.to_string().contains("store.redb is in use"), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_stays_as_it_is() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    drop(open(&path).expect("opened"));
    let engine = RedbEngine::open(&path).expect("opened");
    // The meta row `format`: space 0, its name.
    engine.write(&mut |rows| rows.put(b"\0format", &7u32.to_be_bytes())).expect("written");
    drop(engine);
    let error = open(&path).expect_err("it is newer");
    assert!(matches!(error, StoreError::NewerFormat { found: 7, known: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("use a newer version"), "{error}");
}

#[test]
fn what_is_no_store_is_refused_and_stays_as_it_is() {
    let directory = directory();
    let path = directory.path().join("notes.txt");
    for content in [b"just some notes\n".to_vec(), vec![0xa5; 100_000], b"redb\x1a\x0a\xa9\x0d\x0a".to_vec()] {
        fs::write(&path, &content).expect("written");
        let error = open(&path).expect_err("it is no store");
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        assert_eq!(fs::read(&path).expect("read"), content);
    }
}

#[test]
fn a_directory_that_cannot_be_used_says_what_and_where() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, b"").expect("written");
    for path in [file.join("store.redb"), directory.path().to_path_buf(), "/proc/nowhere/store.redb".into()] {
        let error = open(&path).expect_err("it cannot be made there");
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

/// The story: redb proves its pages after a crash and trusts them otherwise. Over a file that was closed in good order and
/// damaged later it panicked, and that went through to whoever opened the store, or was told as "work on it panicked".
#[test]
fn b51_what_redb_panics_over_is_an_error_that_names_the_file_and_says_the_way_out() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let engine = RedbEngine::open(&path).expect("opened");
    for number in 0..2_000u32 {
        engine.write(&mut |rows| rows.put(&number.to_be_bytes(), &[7; 100])).expect("written");
    }
    drop(engine);
    let good = fs::read(&path).expect("read");
    let (mut opening, mut using) = (0, 0);
    for page in 0..good.len() / 4_096 {
        // The head of the page: its kind, and how much is in it.
        let mut damaged = good.clone();
        damaged[page * 4_096..page * 4_096 + 4].copy_from_slice(&[1, 0, 0xff, 0xff]);
        // Each in a file of its own: where redb panics it may keep its lock.
        let path = directory.path().join(format!("{page}.redb"));
        fs::write(&path, &damaged).expect("written");
        let read = RedbEngine::open(&path).map(|engine| {
            let all = engine
                .snapshot()
                .and_then(|rows| rows.scan(&[], None, Scan::Forward, &mut |_, _| std::ops::ControlFlow::Continue(())));
            (all, engine.write(&mut |rows| rows.put(b"another", b"row")))
        });
        let errors = match read {
            Ok((all, written)) => vec![all.err(), written.err()],
            Err(error) => vec![Some(error)],
        };
        for error in errors.into_iter().flatten() {
            let said = error.to_string();
            assert!(said.contains(&path.display().to_string()), "{said}");
            match error {
                StoreError::Corrupt(_) => opening += usize::from(said.contains("redb panicked")),
                StoreError::Failed(_) => {
                    using += 1;
                    assert!(said.contains("redb panicked") && said.contains("restore it from a copy"), "{said}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    println!("redb panicked in opening {opening} times, in use {using} times");
    assert!(opening + using > 0, "the damage does not reach what redb trusts");
}

#[test]
fn b51_a_damaged_row_is_reported_not_skipped() {
    let world = World::default();
    let directory = directory();
    let core = Core::open(RedbEngine::open(directory.path().join("s")).expect("opened"), [1; 32]).expect("a store");
    core.write(&[Write::CreateReplica { replica: world.replica, records: vec![] }]).remove(0).expect("created");
    let apply = sync_core::store::Apply {
        replica: world.replica,
        bundles: vec![world.commit(0, 0, vec![put("a", "some value"), put("b", "some other")])],
        origin: sync_core::store::Origin::Local,
        now: sync_core::testing::store_suite::world::NOW,
        records: vec![],
    };
    core.write(&[Write::Apply(apply)]).remove(0).expect("applied");
    // One bit of the value of `a` turns.
    let mut rows = Vec::new();
    let snapshot = core.engine().snapshot().expect("snapshot");
    sync_core::store::EngineRead::scan(&snapshot, &[], None, sync_core::store::Scan::Forward, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .expect("scanned");
    let (key, mut value) =
        rows.into_iter().find(|(_, value)| value.ends_with(b"some value")).expect("the row of `a` is there");
    *value.last_mut().expect("a value") ^= 1;
    core.engine().write(&mut |rows| rows.put(&key, &value)).expect("written");
    let key = |text: &str| sync_core::model::Key::try_from(text).expect("a key");
    let error = core.get(world.replica, &key("a")).expect_err("it is damaged");
    assert!(matches!(&error, StoreError::Corrupt(what) if what.contains("\"a\"")), "{error:?}");
    assert!(core.query(world.replica, &Default::default()).is_err(), "a query does not skip it");
    assert!(core.get(world.replica, &key("b")).expect("the others can be read").is_some());
}

#[test]
fn the_registry_opens_by_url_and_lists_what_it_knows() {
    let directory = directory();
    let mut registry = StoreRegistry::default();
    store_redb::register(&mut registry);
    let url = format!("redb:{}", directory.path().join("store.redb").display());
    let id = registry.open(&url).expect("opened").store_id();
    assert_eq!(registry.open(&url).expect("opened again").store_id(), id);
    let error = registry.open("sql:x").expect_err("nobody registered it");
    assert_eq!(error.to_string(), "there is no store `sql`; known are: redb");
}
