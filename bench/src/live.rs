//! Writes on a live link, until the other node shows them; durable on both sides.

use std::time::Instant;

use sync_core::machine::Traffic;

use crate::{
    Result,
    node::{LONG, Pair, fill_single, traffic},
};

pub async fn latency(n: u64) -> Result<()> {
    let pair = Pair::new(1000).await?;
    let mut next = 0u64;
    while contest::next_round().is_some() {
        let mut watch = pair.right.watch("live", pair.right.head());
        let mut times = Vec::new();
        let before = traffic(&pair.b).await?;
        for _ in 0..n {
            next += 1;
            let started = Instant::now();
            pair.left.put(format!("live/{next}"), vec![7; 32]).await?;
            watch.next().await?;
            times.push(started.elapsed().as_secs_f64());
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        let [messages, bytes] = moved(&pair, before, n).await?;
        contest::report(&[("seconds", median), ("p99_s", p99), ("messages_each", messages), ("bytes_each", bytes)]);
    }
    Ok(())
}

/// The messages and bytes of each of the `n` writes since `before`, with what acknowledges them.
async fn moved(pair: &Pair, before: Traffic, n: u64) -> Result<[f64; 2]> {
    pair.a.flush(LONG).await?;
    let moved = traffic(&pair.b).await?.since(&before);
    Ok([moved.messages, moved.bytes_sent + moved.bytes_received].map(|count| count as f64 / n as f64))
}

pub async fn burst(n: u64, writers: u64) -> Result<()> {
    let pair = Pair::new(1000).await?;
    let mut next = 1 << 32;
    while contest::next_round().is_some() {
        let mut watch = pair.right.watch("", pair.right.head());
        let before = traffic(&pair.b).await?;
        let started = Instant::now();
        let left = pair.left.clone();
        let writing = tokio::spawn(async move {
            fill_single(&left, next, n, writers, true).await?;
            Result::Ok(started.elapsed().as_secs_f64())
        });
        for _ in 0..n {
            watch.next().await?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let written = writing.await??;
        let [messages, bytes] = moved(&pair, before, n).await?;
        contest::report(&[
            ("per_s", n as f64 / seconds),
            ("seconds", seconds),
            ("written_s", written),
            ("messages_each", messages),
            ("bytes_each", bytes),
        ]);
        next += n;
    }
    Ok(())
}
