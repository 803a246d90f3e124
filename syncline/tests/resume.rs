//! A download that is killed goes on where it was.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use common::{Machine, Signal, StoppingProxy, equal, eventually, signal};

const MIB: u64 = 1 << 20;

#[test]
fn b70_a_download_that_was_killed_goes_on_at_its_checkpoint() {
    let (a, b) = (Machine::new(), Machine::new());
    let len = 40 * MIB;
    let mut random = sync_core::testing::random::Random::new(70);
    a.save("large", (0..len / 8).flat_map(|_| random.bits().to_le_bytes()).collect::<Vec<u8>>());
    let up_a = a.share(&["--listen", "http://127.0.0.1:0"]);
    let (_proxy, ticket) = StoppingProxy::start(&up_a, 20 * MIB);
    let up_b = b.join(&ticket, &["--listen", "http://127.0.0.1:0"]);
    // The sender stands still. What came is made durable a while later.
    let download = || b.json(["status"])["downloads"][0].clone();
    eventually("a checkpoint is made", || download()["durable"].as_u64() > Some(0), || download().to_string());
    let durable = download()["durable"].as_u64().unwrap();
    assert!(durable < len, "{durable}: the sender stands still");
    up_b.kill();
    signal(up_a.child.id(), Signal::CONT);
    let _up_b = b.share(&["--listen", "http://127.0.0.1:0"]);
    equal(&[&a, &b]);
    let moved = b.json(["status"])["content_bytes"].clone();
    let (resumed, received) = (moved["resumed"].as_u64().unwrap(), moved["received"].as_u64().unwrap());
    assert!(resumed >= durable, "{resumed} of {durable}");
    // What came is a little more than the content: proofs of groups are among it.
    let all = resumed + received;
    assert!((len..len + len / 50).contains(&all), "{resumed} + {received} for {len}");
}
