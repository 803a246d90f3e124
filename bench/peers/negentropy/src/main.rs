//! negentropy 0.5: reconciliation alone, of two vectors in memory, in one process; ids of 32 bytes and
//! no entries. `peer-negentropy differ N`; each round says its d.

use std::time::Instant;

use negentropy::{Id, Negentropy, NegentropyStorageVector};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A number as something that looks like a hash.
fn id(n: u64) -> Id {
    let mut bytes = [0; 32];
    let mut x = n;
    for chunk in bytes.chunks_mut(8) {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes());
    }
    Id::from_byte_array(bytes)
}

fn side(n: u64, d: u64, own: u64) -> Result<NegentropyStorageVector> {
    let mut storage = NegentropyStorageVector::with_capacity((n + d) as usize);
    for i in 0..n {
        storage.insert(i, id(i))?;
    }
    for i in 0..d {
        // Spread over the whole range, as random keys are.
        storage.insert(i * (n / d.max(1)).max(1), id(own + i))?;
    }
    storage.seal()?;
    Ok(storage)
}

fn main() -> Result<()> {
    let n: u64 = contest::argument(2);
    while let Some(d) = contest::next_round() {
        let (left, right) = (side(n, d, 1 << 40)?, side(n, d, 1 << 41)?);
        contest::begin();
        let started = Instant::now();
        let mut client = Negentropy::borrowed(&left, 0)?;
        let mut server = Negentropy::borrowed(&right, 0)?;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let (mut messages, mut bytes) = (0, 0);
        let mut query = Some(client.initiate()?);
        while let Some(message) = query {
            let answer = server.reconcile(&message)?;
            messages += 2;
            bytes += message.len() + answer.len();
            query = client.reconcile_with_ids(&answer, &mut have, &mut need)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        if have.len() as u64 != d || need.len() as u64 != d {
            return Err(format!("found {} and {} of {d}", have.len(), need.len()).into());
        }
        contest::report(&[("seconds", seconds), ("messages", f64::from(messages)), ("bytes", bytes as f64)]);
    }
    Ok(())
}
