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

/// Whether something in back quotes somewhere in a text is the name of a test: a sentence of at least five words. Shorter
/// ones are marked by the file that they are in: `tests/crash.rs::name`.
fn test_name(quoted: &str) -> Option<&str> {
    let (file, name) = quoted.rsplit_once("::").map_or((None, quoted), |(file, name)| (Some(file), name));
    let is_identifier =
        !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_sentence = name.matches('_').count() >= 4;
    let is_marked = file.is_some_and(|file| file.ends_with(".rs"));
    (is_identifier && (is_sentence && file.is_none() || is_marked)).then_some(name)
}

fn in_back_quotes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of the columns with this title, of all tables of a page.
fn column<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let mut cells = Vec::new();
    // In which column of the table that is being read it stands; none: in a table without.
    let (mut is_in_table, mut number) = (false, None);
    for line in page.lines() {
        let row: Vec<&str> = match line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) {
            Some(row) => row.split('|').map(str::trim).collect(),
            None => {
                is_in_table = false;
                continue;
            }
        };
        if !is_in_table {
            (is_in_table, number) = (true, row.iter().position(|cell| *cell == title));
        } else if let Some(cell) = number.and_then(|number| row.get(number))
            && !cell.starts_with("---")
        {
            cells.push(*cell);
        }
    }
    cells
}

/// What a page names as tests: everything in back quotes in the columns "shown by", and sentences anywhere.
fn named_in(page: &str) -> BTreeSet<&str> {
    let shown = column(page, "shown by").into_iter().flat_map(in_back_quotes);
    let shown = shown.map(|quoted| quoted.rsplit_once("::").map_or(quoted, |(_, name)| name));
    shown.chain(in_back_quotes(page).filter_map(test_name)).collect()
}

/// How the names of tests stand where a macro makes them.
#[derive(Clone, Copy)]
enum Names {
    /// Alone, one behind the other.
    Alone,
    /// Before a colon.
    BeforeColon,
    /// At the end of a line, behind `as`.
    BehindAs,
    /// In the macro itself, the cases of a suite behind `module:`.
    InTheMacroBehindColon,
    /// By a macro that gets them from another one.
    Elsewhere,
}

/// The macros that make tests.
const MAKE_TESTS: [(&str, Names); 12] = [
    ("programs", Names::Alone),
    ("everywhere", Names::Alone),
    ("on_every_wire", Names::Alone),
    ("on_every_real_wire", Names::Alone),
    ("on_every_store", Names::Alone),
    ("targets", Names::BeforeColon),
    ("caught", Names::BehindAs),
    ("for_each_store_case", Names::InTheMacroBehindColon),
    ("for_each_transport_case", Names::Alone),
    ("store_suite", Names::Elsewhere),
    ("store_suite_tests", Names::Elsewhere),
    ("transport_suite_tests", Names::Elsewhere),
];

fn is_name(word: &str) -> bool {
    word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && word.starts_with(|first: char| first.is_ascii_lowercase())
}

/// The text in the braces that open behind `after`.
fn braced(text: &str, after: usize) -> &str {
    let text = &text[after..];
    let open = text.find('{').expect("a macro has braces");
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return &text[open + 1..at],
            b'}' => depth -= 1,
            _ => {}
        }
    }
    panic!("braces that open are closed")
}

/// Functions with the attribute of a test: not ignored, and not those whose name a macro gives.
fn functions(source: &str, found: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("//") || line.is_empty() {
            continue;
        }
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_test &= !line.starts_with("#[ignore");
            continue;
        }
        let line = line.strip_prefix("async ").unwrap_or(line);
        if let Some(rest) = line.strip_prefix("fn ")
            && is_test
        {
            let name = rest.split('(').next().unwrap_or_default();
            if is_name(name) {
                found.insert(name.into());
            }
        }
        is_test = false;
    }
}

fn made_by_macros(source: &str, found: &mut BTreeSet<String>) {
    let mut insert = |name: &str| {
        if is_name(name) {
            found.insert(name.into());
        }
    };
    for (name, stand) in MAKE_TESTS {
        match stand {
            Names::Elsewhere => {}
            Names::InTheMacroBehindColon => {
                let Some(at) = source.find(&format!("macro_rules! {name} ")) else { continue };
                let lines = braced(source, at).lines().filter_map(|line| line.trim().strip_suffix(','));
                lines.filter_map(|line| line.split_once(": ")).for_each(|(_, case)| insert(case));
            }
            // The one macro that has its cases in itself and nothing else.
            Names::Alone if name == "for_each_transport_case" => {
                let Some(at) = source.find(&format!("macro_rules! {name} ")) else { continue };
                braced(source, at).lines().for_each(|line| insert(line.trim()));
            }
            Names::Alone | Names::BeforeColon | Names::BehindAs => {
                for (at, _) in source.match_indices(&format!("\n{name}! {{")) {
                    for line in braced(source, at).lines().map(str::trim) {
                        match stand {
                            Names::BeforeColon => insert(line.split_once(':').map_or("", |(name, _)| name)),
                            Names::BehindAs => insert(line.split_once(" as ").map_or("", |(_, name)| name)),
                            _ => insert(line),
                        }
                    }
                }
            }
        }
    }
    for (at, _) in source.match_indices("\nmacro_rules! ") {
        let name = source[at..].split_whitespace().nth(1).expect("a macro has a name");
        let makes = braced(source, at).lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("#[test]") || line.starts_with("#[tokio::test")
        });
        assert!(!makes || MAKE_TESTS.iter().any(|(known, _)| *known == name), "`{name}!` makes tests: say above how");
    }
}

/// The sources of the workspace: of what `cargo test --workspace` builds.
fn sources(folder: &Path, read: &mut dyn FnMut(&str)) {
    for entry in fs::read_dir(folder).expect("the workspace can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        // Workspaces of their own.
        let is_other = ["bench", "fuzz"].iter().any(|other| path == root().join(other));
        if path.is_dir() && !is_other && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, read);
        } else if path.extension().is_some_and(|it| it == "rs") {
            read(&fs::read_to_string(&path).expect("sources are text"));
        }
    }
}

/// The names of all tests below a folder.
fn tests(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    sources(folder, &mut |source| {
        functions(source, &mut found);
        made_by_macros(source, &mut found);
    });
    found
}

const PAGES: [&str; 2] = ["RELIABILITY.md", "THREATS.md"];

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let found = tests(&root());
    for name in PAGES {
        let page = page(name);
        let named = named_in(&page);
        assert!(!named.is_empty(), "{name} names no test");
        let missing: Vec<_> = named.iter().filter(|name| !found.contains(**name)).collect();
        assert!(missing.is_empty(), "{name} names tests that do not exist: {missing:?}");
    }
}

#[test]
fn every_promise_and_every_threat_is_shown_by_something() {
    let mut simulator = String::new();
    sources(&root().join("sync-core/src/testing/sim"), &mut |source| simulator.push_str(source));
    sources(&root().join("sync-core/tests"), &mut |source| simulator.push_str(source));
    let is_word_of = |text: &str, word: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|it| it == word);
    for name in PAGES {
        let page = page(name);
        let cells = column(&page, "shown by");
        assert!(cells.len() > 10, "{name} has no table with a column `shown by`");
        for cell in cells {
            let oracles = cell
                .split(|c: char| !c.is_ascii_alphanumeric())
                .filter(|word| word.strip_prefix('O').is_some_and(|number| number.parse::<u32>().is_ok()));
            let oracles: Vec<&str> = oracles.collect();
            assert!(!oracles.is_empty() || in_back_quotes(cell).count() > 0, "{name}: nothing shows `{cell}`");
            let missing: Vec<_> = oracles.iter().filter(|oracle| !is_word_of(&simulator, oracle)).collect();
            assert!(missing.is_empty(), "{name} names oracles that the simulator does not have: {missing:?}");
        }
    }
}

/// What a simulation plays logs no error, so that one in a log always has a cause outside of it (O9).
#[test]
fn what_is_simulated_logs_no_error() {
    for folder in ["sync-core/src/machine", "sync-core/src/model", "sync-core/src/store", "store-redb/src"] {
        sources(&root().join(folder), &mut |source| {
            assert!(!source.contains("error!("), "{folder}: say it as a result, an event or an obstacle");
        });
    }
}

/// Every stored scenario stands in the track record, with what it shows.
#[test]
fn every_stored_scenario_is_named_in_the_track_record() {
    let page = page("RELIABILITY.md");
    let stored = std::fs::read_dir(root().join("sync-core/tests/regressions")).unwrap();
    let names: Vec<String> = stored.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name} is stored, and the page does not say what it shows");
    }
}

#[test]
fn a_name_without_a_test_is_noticed() {
    let text = "| a promise | shown by |\n|---|---|\n| `not_this` | `short`, `tests/crash.rs::cut` |\n\n\
                `a_promise_that_nobody_has_kept` and `sync_core::testing`\n\n| other |\n|---|\n| `table` |";
    assert_eq!(named_in(text).into_iter().collect::<Vec<_>>(), ["a_promise_that_nobody_has_kept", "cut", "short"]);
    let found = tests(&root().join("sync-core/tests"));
    assert!(!found.contains("a_promise_that_nobody_has_kept"));
    assert!(found.contains("a_name_without_a_test_is_noticed"));
}

#[test]
fn a_function_is_a_test_by_its_attribute_alone() {
    let mut found = BTreeSet::new();
    functions("fn helper() {}\n#[test]\n#[ignore]\nfn ignored() {}\n#[cfg(unix)]\nfn other() {}", &mut found);
    functions("#[test]\n#[cfg(unix)]\n// Why.\nfn one() {}\n  #[tokio::test(x)]\n  async fn two() {}", &mut found);
    functions("#[test]\nfn $name() {}\n#[test]\nconst X: u8 = 1;\nfn behind() {}", &mut found);
    made_by_macros("\neverywhere! {\n    three\n}\ntargets! {\n    four: 1,\n}\nother! {\n    five\n}\n", &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["four", "one", "three", "two"]);
    // A case of each suite, and one that only looks like one.
    let found = tests(&root());
    for name in ["b50_apply_is_durable", "dial_reaches_a_listener", "machine", "memory_on_redb", "two_nodes"] {
        assert!(found.contains(name), "{name} is a test");
    }
    for name in ["world", "one", "cases", "conformance_factory", "pair", "main"] {
        assert!(!found.contains(name), "{name} is no test");
    }
}

/// The behaviours that are built so far, by their numbers. A test that shows one carries it in its name.
const BEHAVIOURS: [RangeInclusive<u32>; 7] = [1..=30, 32..=35, 37..=57, 59..=59, 61..=64, 69..=73, 77..=84];

#[test]
fn every_behaviour_that_is_built_has_a_test_with_its_number() {
    let found = tests(&root());
    let numbers: BTreeSet<u32> = found
        .iter()
        .flat_map(|name| name.split('_'))
        .filter_map(|word| word.strip_prefix('b').and_then(|number| number.parse().ok()))
        .collect();
    let missing: Vec<u32> = BEHAVIOURS.into_iter().flatten().filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "no test carries the numbers {missing:?}");
}
