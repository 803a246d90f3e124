//! RELIABILITY.md and THREATS.md name the test that shows each promise. A name without a test is a promise
//! without proof, and fails here.

use std::{
    collections::BTreeSet,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").into()
}

/// Whether something in back quotes is the name of a test: a sentence of at least five words. Shorter ones are marked
/// by the file that they are in: `tests/crash.rs::name`.
fn test_name(quoted: &str) -> Option<&str> {
    let (file, name) = quoted.rsplit_once("::").map_or((None, quoted), |(file, name)| (Some(file), name));
    let is_identifier =
        !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_sentence = name.matches('_').count() >= 4;
    let is_marked = file.is_some_and(|file| file.ends_with(".rs"));
    (is_identifier && (is_sentence && file.is_none() || is_marked)).then_some(name)
}

fn named_in(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).filter_map(test_name).collect()
}

/// The names of all tests of the workspace.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the workspace can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            tests(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            // Cases of the suites stand in a list of a macro; fuzz targets and tests are functions.
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let mut before = "";
            for word in words.filter(|word| !word.is_empty()) {
                if before == "fn" {
                    found.insert(word.into());
                }
                before = word;
            }
        }
    }
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let root = root();
    let mut found = BTreeSet::new();
    tests(&root, &mut found);
    let mut named = 0;
    for page in ["RELIABILITY.md", "THREATS.md"] {
        let Ok(text) = fs::read_to_string(root.join(page)) else {
            println!("skipped: {page} is not there");
            continue;
        };
        let names = named_in(&text);
        named += names.len();
        let missing: Vec<_> = names.iter().filter(|name| !found.contains(**name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
    }
    assert!(named > 0, "no page names a test");
}

#[test]
fn a_name_without_a_test_is_noticed() {
    let text = "| a promise | `a_promise_that_nobody_has_kept` and `sync_core::testing`, `tests/crash.rs::cut` |";
    assert_eq!(named_in(text).into_iter().collect::<Vec<_>>(), ["a_promise_that_nobody_has_kept", "cut"]);
    let mut found = BTreeSet::new();
    tests(&root().join("sync-core/tests"), &mut found);
    assert!(!found.contains("a_promise_that_nobody_has_kept"));
}

/// The behaviours that are built so far, by their numbers. A test that shows one carries it in its name.
const BEHAVIOURS: [RangeInclusive<u32>; 7] = [1..=30, 32..=35, 37..=57, 59..=59, 61..=64, 69..=73, 77..=84];

#[test]
fn every_behaviour_that_is_built_has_a_test_with_its_number() {
    let mut found = BTreeSet::new();
    tests(&root(), &mut found);
    let numbers: BTreeSet<u32> = found
        .iter()
        .flat_map(|name| name.split('_'))
        .filter_map(|word| word.strip_prefix('b').and_then(|number| number.parse().ok()))
        .collect();
    let missing: Vec<u32> = BEHAVIOURS.into_iter().flatten().filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "no test carries the numbers {missing:?}");
}
