//! The cases of [`Connection`](crate::transport::Connection).

use std::{collections::HashSet, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Broken, Pair, TransportFactory, broken, dial, ensure, first, listen, next, soon, stream, within};
use crate::transport::{ByteStream, CloseReason, IDLE_DEADLINE};

/// More than any buffer on the way holds.
const LARGE: usize = 8 * 1024 * 1024;

/// The streams that the contract promises.
const MANY: usize = 100;

/// Bytes that are in order only once: a counter, scrambled.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).map(|i| (i ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> Result<(), Broken> {
    to.write_all(bytes).await.map_err(|error| broken("writing", error))?;
    to.shutdown().await.map_err(|error| broken("shutting a stream down", error))
}

async fn receive(mut from: impl AsyncRead + Unpin, expected: &[u8]) -> Result<(), Broken> {
    let mut bytes = vec![0; expected.len()];
    from.read_exact(&mut bytes).await.map_err(|error| broken("reading", error))?;
    match bytes.iter().zip(expected).position(|(is, should)| is != should) {
        None => Ok(()),
        Some(at) => Err(Broken(format!("byte {at} of {} is not the one that was written there", expected.len()))),
    }
}

/// Both ways at once, and to the end.
async fn exchange(ours: ByteStream, theirs: ByteStream, seed: u64, len: usize) -> Result<(), Broken> {
    let (there, back) = (pattern(seed, len), pattern(!seed, len));
    let (our_read, our_write) = (ours.read, ours.write);
    let (their_read, their_write) = (theirs.read, theirs.write);
    let all = async {
        tokio::try_join!(
            send(our_write, &there),
            receive(their_read, &there),
            send(their_write, &back),
            receive(our_read, &back)
        )
    };
    soon(&format!("{len} bytes each way"), all).await?.map(|_| ())
}

pub async fn streams_carry_bytes_both_ways_in_order(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let (ours, theirs) = pair.stream().await?;
    exchange(ours, theirs, 1, LARGE).await?;
    // Whoever accepted the connection opens streams as well.
    let (theirs, ours) = stream(&*pair.there, &*pair.here).await?;
    exchange(ours, theirs, 2, LARGE).await
}

pub async fn a_streams_end_is_seen_as_end_of_file(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let (mut ours, mut theirs) = pair.stream().await?;
    let mut rest = Vec::new();
    send(&mut ours, b"the last words").await?;
    let read = soon("the end of file", theirs.read_to_end(&mut rest)).await?;
    read.map_err(|error| broken("reading to the end", error))?;
    ensure(rest == b"the last words", || format!("{} bytes came before the end", rest.len()))?;
    // The other direction is still open.
    send(&mut theirs, b"the answer").await?;
    rest.clear();
    let read = soon("the end of file", ours.read_to_end(&mut rest)).await?;
    read.map_err(|error| broken("reading the answer to its end", error))?;
    ensure(rest == b"the answer", || format!("{} bytes came as the answer", rest.len()))
}

pub async fn many_streams_at_once(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let mut streams = Vec::new();
    for _ in 0..MANY {
        streams.push(pair.stream().await?);
    }
    // The last opened goes first: none waits for an earlier one.
    for (seed, (ours, theirs)) in streams.into_iter().enumerate().rev() {
        exchange(ours, theirs, seed as u64, 1024).await?;
    }
    let mut opened = Vec::new();
    for _ in 0..MANY {
        let mut ours = soon("open", pair.here.open()).await?.map_err(|error| broken("open", error))?;
        soon("the first byte", ours.write_u8(1)).await?.map_err(|error| broken("writing", error))?;
        soon("flush", ours.flush()).await?.map_err(|error| broken("flushing", error))?;
        opened.push(ours);
    }
    for _ in 0..MANY {
        soon("accept", pair.there.accept()).await?.map_err(|error| broken("accept", error))?;
    }
    Ok(())
}

pub async fn a_full_stream_blocks_only_itself(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let (mut full, unread) = pair.stream().await?;
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    // A stream that takes nothing for a second is full.
    while let Ok(taken) = tokio::time::timeout(Duration::from_secs(1), full.write(&chunk)).await {
        written += taken.map_err(|error| broken("writing", error))?;
        ensure(written < 256 * 1024 * 1024, || "256 MiB that nobody reads were taken: no backpressure".into())?;
    }
    let (ours, theirs) = pair.stream().await?;
    exchange(ours, theirs, 3, 1024 * 1024).await?;
    // And what waited is still there.
    let (mut unread, mut sink) = (unread.take(written as u64), tokio::io::sink());
    let read = tokio::io::copy(&mut unread, &mut sink);
    let read = soon("reading what waited", read).await?.map_err(|error| broken("reading what waited", error))?;
    ensure(read == written as u64, || format!("{read} of {written} bytes were there"))
}

pub async fn accept_sees_a_stream_at_its_first_byte(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    pair.stream().await?;
    stream(&*pair.there, &*pair.here).await.map(|_| ())
}

pub async fn a_cancelled_accept_loses_no_stream(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let open = async {
        let mut kept = Vec::new();
        for number in 0..50 {
            let mut stream = soon("open", pair.here.open()).await?.map_err(|error| broken("open", error))?;
            soon("the first byte", stream.write_u8(number)).await?.map_err(|error| broken("writing", error))?;
            soon("flush", stream.flush()).await?.map_err(|error| broken("flushing", error))?;
            kept.push(stream);
        }
        Ok(kept)
    };
    let accept = async {
        let (mut seen, mut round) = (HashSet::new(), 0);
        while seen.len() < 50 {
            // Given up again and again, at once or after a moment.
            round += 1;
            let patience = Duration::from_millis(round % 3);
            let mut stream = match tokio::time::timeout(patience, pair.there.accept()).await {
                Ok(stream) => stream.map_err(|error| broken("accept", error))?,
                Err(_) => continue,
            };
            let number = soon("the first byte", stream.read_u8()).await?.map_err(|error| broken("reading", error))?;
            ensure(seen.insert(number), || format!("stream {number} was accepted twice"))?;
        }
        Ok(())
    };
    soon("50 streams, each accepted", async { tokio::try_join!(open, accept) }).await?.map(|_| ())
}

pub async fn both_ends_have_the_same_channel_binding(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let mut pair = Pair::connect(factory).await?;
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let (here, there) = (pair.here.channel_binding(), pair.there.channel_binding());
        ensure(here == there, || "the two ends have different channel bindings".into())?;
        ensure(here != [0; 32], || "the channel binding is all zeros".into())?;
        ensure(seen.insert(here), || "two connections share a channel binding".into())?;
        pair.here = dial(&pair.dialing, first(&pair.addresses)?).await?;
        pair.there = next(&mut pair.accepted).await?;
    }
    drop(pair.listening);
    Ok(())
}

pub async fn close_reaches_the_other_end(factory: &dyn TransportFactory) -> Result<(), Broken> {
    for closer_dialled in [true, false] {
        let pair = Pair::connect(factory).await?;
        let (ours, theirs) = pair.stream().await?;
        let (closer, other, mut left) = match closer_dialled {
            true => (&pair.here, &pair.there, theirs),
            false => (&pair.there, &pair.here, ours),
        };
        closer.close(CloseReason::Done);
        soon("closed at the closing end", closer.closed()).await?;
        soon("closed at the other end", other.closed()).await?;
        let read = soon("a read on a stream of the closed connection", left.read(&mut [0; 16])).await?;
        ensure(read.is_err(), || "a stream of the closed connection reads as if it had ended well".into())?;
        let mut written = Ok(());
        for _ in 0..64 {
            let write = soon("a write on a stream of the closed connection", left.write_all(&[0; 65_536])).await?;
            written = written.and(write);
        }
        ensure(written.is_err(), || "a stream of the closed connection takes what is written".into())?;
        let opened = soon("open on the closed connection", other.open()).await?;
        ensure(opened.is_err(), || "the closed connection opens streams".into())?;
        let accepted = soon("accept on the closed connection", other.accept()).await?;
        ensure(accepted.is_err(), || "the closed connection accepts streams".into())?;
    }
    Ok(())
}

pub async fn closed_resolves_when_the_other_end_is_gone(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (dialing, listening) = (factory.transport().await, factory.transport().await);
    let (addresses, mut accepted) = listen(&listening).await?;
    let Some(mut way) = factory.silent_way(first(&addresses)?).await else {
        crate::testing::skipped("this transport has no way that can fall silent");
        return Ok(());
    };
    let here = dial(&dialing, &way.address()).await?;
    let there = next(&mut accepted).await?;
    let (mut ours, _theirs) = stream(&*here, &*there).await?;
    way.fall_silent();
    // One end has something to say, the other has not; both notice.
    ours.write_all(b"are you there?").await.map_err(|error| broken("writing", error))?;
    let time = IDLE_DEADLINE + Duration::from_secs(5);
    within(time, "closed at an end whose other end is gone", async { tokio::join!(here.closed(), there.closed()) })
        .await
        .map(|_| ())
}

pub async fn dropping_a_connection_closes_it(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let Pair { here, there, dialing, listening, .. } = Pair::connect(factory).await?;
    let (ours, mut theirs) = stream(&*here, &*there).await?;
    drop(ours);
    drop(here);
    soon("closed at the other end", there.closed()).await?;
    let read = soon("a read on a stream of the dropped connection", theirs.read(&mut [0; 16])).await?;
    drop((dialing, listening));
    // The stream was dropped as well, which may look like its end.
    drop(read);
    Ok(())
}
