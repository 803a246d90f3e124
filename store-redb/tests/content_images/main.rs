//! Crash images of a store with content: what the power leaves of rows, journal and files, opened again.
//!
//! Scripts are played on disks that lose their power together, before each change of any of them. What was flushed is
//! there; of what was not, any part. What was acknowledged as here must be here, and equal its hash; what is
//! served of a part must be proved; no file may be left that no row knows; and all must go on to its end.
//!
//! `CONTENT_IMAGES=N` makes at least so many images; the default is a few hundred.

#[path = "../disk/mod.rs"]
mod disk;
mod machine;
mod player;
mod scripts;

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Instant,
};

use machine::{CONTENT, JOURNAL, Machine, ROWS};
use player::{Player, Told, check};
use scripts::{Cast, Script};
use sync_core::testing::random::Random;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn wanted() -> u64 {
    from_environment("CONTENT_IMAGES").unwrap_or(300)
}

/// Where everything is tried (`CONTENT_IMAGES`), each change is cut and each operation fails once; otherwise some.
fn stride(otherwise: usize) -> usize {
    if std::env::var_os("CONTENT_IMAGES").is_some() { 1 } else { otherwise }
}

/// Shares work out to the cores.
fn on_all_cores(work: impl Fn() + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(&work))));
}

/// What was made.
#[derive(Debug, Default)]
struct Counts {
    images: AtomicU64,
    /// Of these, those that were cut again while they were opened.
    again: AtomicU64,
    /// Of these, those in which a download could go on.
    resumed: AtomicU64,
}

impl Counts {
    fn images(&self) -> u64 {
        self.images.load(Ordering::Relaxed)
    }

    /// Looks at some images of a machine that has lost its power, and at images of the cuts while one of them is opened.
    fn look(
        &self,
        machine: &Machine,
        cast: &Cast,
        told: &Told,
        images: usize,
        random: &mut Random,
    ) -> Result<(), String> {
        for _ in 0..images {
            let image = machine.after_power_cut(random);
            if random.percent(3) {
                self.cut_again(&image, cast, told, random)?;
            }
            let resumed = check(&image, cast, told)?;
            self.images.fetch_add(1, Ordering::Relaxed);
            self.resumed.fetch_add(resumed.into(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn cut_again(&self, image: &Machine, cast: &Cast, told: &Told, random: &mut Random) -> Result<(), String> {
        for changes in 0.. {
            let copy = image.after_power_cut(random);
            copy.end_power_after(changes);
            let opened = copy.open().map(drop);
            let is_whole = !copy.is_off();
            if is_whole {
                opened.map_err(|error| format!("opening: {error}"))?;
            }
            let what = |error| format!("cut again after {changes} changes of its opening: {error}");
            check(&copy.after_power_cut(random), cast, told).map_err(what)?;
            self.images.fetch_add(1, Ordering::Relaxed);
            self.again.fetch_add(1, Ordering::Relaxed);
            if is_whole {
                break;
            }
        }
        Ok(())
    }
}

/// How many changes a script makes.
fn changes(script: &Script, cast: &Cast) -> u64 {
    let machine = Machine::new();
    machine.end_power_after(u64::MAX);
    let mut player = Player::new(cast, &machine);
    player.play(script).unwrap_or_else(|error| panic!("`{}` on good disks: {error}", script.name));
    player.close();
    u64::MAX - machine.changes_left()
}

/// Plays a script until the power ends, and looks at images of what is left.
fn cut(script: &Script, cast: &Cast, at: u64, images: usize, seed: u64, counts: &Counts) {
    let machine = Machine::new();
    machine.end_power_after(at);
    let mut player = Player::new(cast, &machine);
    let played = player.play(script);
    let told = player.close();
    let fail = |error: String| panic!("`{}`, cut at {at}, seed {seed}: {error}; told {told:?}", script.name);
    if !machine.is_off() {
        played.unwrap_or_else(|error| fail(format!("it fails with the power on: {error}")));
    }
    counts.look(&machine, cast, &told, images, &mut Random::new(seed)).unwrap_or_else(fail);
}

#[test]
fn b51_every_cut_of_twenty_scripts_with_content_leaves_what_was_acknowledged() {
    let (seed, wanted, started) = (from_environment("CRASH_SEED").unwrap_or(1), wanted(), Instant::now());
    println!("seed {seed}");
    let (cast, scripts, counts) = (Cast::new(), scripts::scripted(), Counts::default());
    assert_eq!(scripts.len(), 20);
    let cuts: Vec<(usize, u64)> = scripts
        .iter()
        .enumerate()
        .flat_map(|(number, script)| (0..=changes(script, &cast)).step_by(stride(11)).map(move |cut| (number, cut)))
        .collect();
    let next = AtomicUsize::new(0);
    on_all_cores(|| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (script, at) = cuts[number % cuts.len()];
            if number >= cuts.len() && counts.images() >= wanted / 2 {
                break;
            }
            cut(&scripts[script], &cast, at, 2, seed.wrapping_mul(1_000_000_007).wrapping_add(number as u64), &counts);
        }
    });
    let next = AtomicU64::new(0);
    on_all_cores(|| {
        while counts.images() < wanted {
            let number = seed.wrapping_mul(1_000_000).wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            let script = scripts::random(number);
            let (all, mut random) = (changes(&script, &cast), Random::new(number));
            for _ in 0..10 {
                let at = random.below(all as usize + 1) as u64;
                cut(&script, &cast, at, 2, random.bits(), &counts);
            }
        }
    });
    let (images, seconds) = (counts.images(), started.elapsed().as_secs_f64());
    let (again, resumed) = (counts.again.into_inner(), counts.resumed.into_inner());
    println!(
        "{images} crash images of rows, journal and content: {} cuts of 20 scripts, {} random ones, {:.0}/s; {again} cut \
         again while they were opened, {resumed} with a download that went on",
        cuts.len(),
        next.into_inner(),
        images as f64 / seconds
    );
    assert!(images >= wanted && images > 200, "{images} images are too few to mean anything");
    assert!(again > 20 && resumed > 10, "{again} and {resumed} are too few to mean anything");
}

/// Plays each script with each `n`-th time that `fail` says of each disk, and cuts the power at its end.
fn fail_each(fail: impl Fn(&Machine, usize, u64) + Sync, stride: usize) -> ([u64; 3], u64) {
    let (cast, scripts, counts) = (Cast::new(), scripts::scripted(), Counts::default());
    let (times, next) = (<[AtomicU64; 3]>::default(), AtomicUsize::new(0));
    on_all_cores(|| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(script) = scripts.get(number / 3) else { break };
            let disk = [ROWS, JOURNAL, CONTENT][number % 3];
            for good in (0..).step_by(stride) {
                let machine = Machine::new();
                fail(&machine, disk, good);
                let mut player = Player::new(&cast, &machine);
                player.tries = 2;
                let played = player.play(script);
                let told = player.close();
                let fail =
                    |error: String| panic!("`{}`, disk {disk} fails at {good}: {error}; told {told:?}", script.name);
                played.unwrap_or_else(|error| fail(error.to_string()));
                if machine.has_yet_to_fail() {
                    break;
                }
                times[disk].fetch_add(1, Ordering::Relaxed);
                counts.look(&machine, &cast, &told, 2, &mut Random::new(good)).unwrap_or_else(fail);
            }
        }
    });
    (times.map(AtomicU64::into_inner), counts.images())
}

#[test]
fn b51_whatever_operation_of_rows_or_content_fails_once_it_goes_on() {
    let ([rows, journal, content], images) = fail_each(Machine::fail_once_after, stride(41));
    println!(
        "{rows} operations on rows, {journal} on journals and {content} on content failed, {images} crash images after them"
    );
    assert!(rows > 10 && journal > 5 && content > 10, "these failures are too few to mean anything");
}

#[test]
fn b51_a_flush_of_rows_or_content_that_fails_and_then_succeeds_loses_nothing() {
    let ([rows, journal, content], images) = fail_each(Machine::fail_flush_after, stride(7));
    println!(
        "{rows} flushes of rows, {journal} of journals and {content} of content failed, {images} crash images after them"
    );
    assert!(rows > 5 && journal > 5 && content > 5, "these failures are too few to mean anything");
}
