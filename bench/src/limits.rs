//! What the machine can do: the floors under the rows. All on one thread.

use std::{fs::File, io::Write, time::Instant};

use ed25519_dalek::{Signer, SigningKey};
use redb::{Database, TableDefinition};

use crate::Result;

/// Strict Ed25519 verifications a second of one core.
pub fn verify() -> Result<()> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = [3; 200];
    let signature = key.sign(&message);
    let public = key.verifying_key();
    while contest::next_round().is_some() {
        let started = Instant::now();
        let count = 10_000;
        for _ in 0..count {
            public.verify_strict(std::hint::black_box(&message), &signature)?;
        }
        contest::report(&[("per_s", f64::from(count) / started.elapsed().as_secs_f64())]);
    }
    Ok(())
}

/// BLAKE3 of 200 bytes a second, and MB/s of long ones.
pub fn hash() -> Result<()> {
    let long = vec![3; 64 << 20];
    while contest::next_round().is_some() {
        let started = Instant::now();
        let count = 300_000;
        for n in 0..count {
            std::hint::black_box(blake3::hash(std::hint::black_box(&long[n..n + 200])));
        }
        let per_s = count as f64 / started.elapsed().as_secs_f64();
        let started = Instant::now();
        std::hint::black_box(blake3::hash(std::hint::black_box(&long)));
        contest::report(&[("per_s", per_s), ("mb_per_s", long.len() as f64 / 1e6 / started.elapsed().as_secs_f64())]);
    }
    Ok(())
}

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

/// Rows of 200 bytes, a durable transaction per `batch`, into a table of `before` rows.
fn insert(random: bool, before: u64, count: u64, batch: u64) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let mut database = Database::builder().set_cache_size(32 << 20).create(dir.path().join("redb"))?;
    let value = [7; 160];
    let fill = |database: &mut Database, from: u64, count: u64, batch: u64| -> Result<()> {
        for start in (from..from + count).step_by(batch as usize) {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let mut table = transaction.open_table(ROWS)?;
            for n in start..(start + batch).min(from + count) {
                table.insert(contest::key(n, random).as_bytes(), value.as_slice())?;
            }
            drop(table);
            transaction.commit()?;
        }
        Ok(())
    };
    fill(&mut database, 0, before, 10_000)?;
    let started = Instant::now();
    fill(&mut database, before, count, batch)?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// What redb takes a second, durably, in two phases.
pub fn redb() -> Result<()> {
    while contest::next_round().is_some() {
        contest::report(&[
            ("one_random_per_s", insert(true, 100_000, 1_000, 1)?),
            ("ordered_1000_per_s", insert(false, 0, 100_000, 1_000)?),
            ("ordered_10000_per_s", insert(false, 0, 100_000, 10_000)?),
            ("random_10000_per_s", insert(true, 0, 100_000, 10_000)?),
            ("random_10000_into_300k_per_s", insert(true, 300_000, 50_000, 10_000)?),
        ]);
    }
    Ok(())
}

/// 4 KiB appended and on the disk.
pub fn sync() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = File::create(dir.path().join("file"))?;
    while contest::next_round().is_some() {
        let mut times = Vec::new();
        for _ in 0..500 {
            let started = Instant::now();
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
            times.push(started.elapsed().as_secs_f64());
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        contest::report(&[("seconds", median), ("p99_s", p99)]);
    }
    Ok(())
}
