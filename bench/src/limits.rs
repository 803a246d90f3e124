//! What the machine can do: the floors under the rows. All on one thread, unless a figure says otherwise.

use std::{fs::File, io::Write, time::Instant};

use ed25519_dalek::{Signer, SigningKey};
use redb::{Database, TableDefinition};

use crate::Result;

/// Strict Ed25519 verifications a second of one core and of both, and signatures of one.
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
        let per_s = f64::from(count) / started.elapsed().as_secs_f64();
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    (0..count).all(|_| public.verify_strict(std::hint::black_box(&message), &signature).is_ok())
                });
            }
        });
        let both_per_s = f64::from(2 * count) / started.elapsed().as_secs_f64();
        let started = Instant::now();
        for _ in 0..count {
            std::hint::black_box(key.sign(std::hint::black_box(&message)));
        }
        let sign_per_s = f64::from(count) / started.elapsed().as_secs_f64();
        contest::report(&[("per_s", per_s), ("both_per_s", both_per_s), ("sign_per_s", sign_per_s)]);
    }
    Ok(())
}

/// ChaCha20-Poly1305 of messages of 64 KiB, as Noise has them: sealed and opened again, MB/s of one core.
pub fn seal() -> Result<()> {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let failed = |_| "ring fails";
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map_err(failed)?);
    while contest::next_round().is_some() {
        let started = Instant::now();
        let (count, len) = (2_000, 64 << 10);
        let mut message = vec![3; len];
        for _ in 0..count {
            let nonce = || Nonce::assume_unique_for_key([9; 12]);
            key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut message).map_err(failed)?;
            key.open_in_place(nonce(), Aad::empty(), &mut message).map_err(failed)?;
            message.truncate(len);
        }
        let bytes = (count * len) as f64;
        contest::report(&[("mb_per_s", bytes / 1e6 / started.elapsed().as_secs_f64())]);
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

/// Rows as a replica's store has them: of each entry one of its own and one of the log, of every sixteenth one of the
/// index, with the sizes that they have. Entries a second, a durable transaction of 10,000 each.
fn insert_entries(random: bool, before: u64, count: u64) -> Result<f64> {
    const BATCH: u64 = 10_000;
    let dir = tempfile::tempdir()?;
    let database = Database::builder().set_cache_size(32 << 20).create(dir.path().join("redb"))?;
    let fill = |from: u64, count: u64| -> Result<()> {
        for start in (from..from + count).step_by(BATCH as usize) {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let mut table = transaction.open_table(ROWS)?;
            let mut keys: Vec<_> = (start..start + BATCH).map(|n| contest::key(n, random)).collect();
            // A store sorts a batch too.
            keys.sort();
            for key in &keys {
                table.insert(format!("e{key}").as_bytes(), [7; 130].as_slice())?;
            }
            for key in keys.iter().filter(|key| blake3::hash(key.as_bytes()).as_bytes()[0] < 16) {
                table.insert(format!("i{key}").as_bytes(), [7; 290].as_slice())?;
            }
            for n in start..start + BATCH {
                table.insert([b"l".as_slice(), &n.to_be_bytes()].concat().as_slice(), [7; 40].as_slice())?;
            }
            drop(table);
            transaction.commit()?;
        }
        Ok(())
    };
    fill(0, before)?;
    let started = Instant::now();
    fill(before, count)?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// What redb takes of them.
pub fn entries() -> Result<()> {
    while contest::next_round().is_some() {
        contest::report(&[
            ("ordered_10000_per_s", insert_entries(false, 0, 100_000)?),
            ("random_10000_per_s", insert_entries(true, 0, 100_000)?),
            ("random_10000_into_300k_per_s", insert_entries(true, 300_000, 50_000)?),
        ]);
    }
    Ok(())
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
