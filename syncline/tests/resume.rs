//! A download that is killed goes on where it was.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use common::{Machine, Signal, equal, eventually, signal};
use sync_core::model::Ticket;

const MIB: u64 = 1 << 20;

/// Forwards to `target`. When `limit` bytes have come from there, its process is stopped.
fn proxy(target: SocketAddr, process: u32, limit: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, came) = (client?, came.clone());
            let server = TcpStream::connect(target)?;
            let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
            thread::spawn(move || io::copy(&mut from, &mut to));
            thread::spawn(move || forward(server, client, &came, (process, limit)));
        }
        io::Result::Ok(())
    });
    address
}

fn forward(mut from: TcpStream, mut to: TcpStream, came: &AtomicU64, (process, limit): (u32, u64)) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        to.write_all(&buffer[..len])?;
        let before = came.fetch_add(len as u64, Ordering::Relaxed);
        if (before..before + len as u64).contains(&limit) {
            signal(process, Signal::STOP);
        }
    }
}

#[test]
fn b70_a_download_that_was_killed_goes_on_at_its_checkpoint() {
    let (a, b) = (Machine::new(), Machine::new());
    let len = 40 * MIB;
    let mut random = sync_core::testing::random::Random::new(70);
    a.save("large", (0..len / 8).flat_map(|_| random.bits().to_le_bytes()).collect::<Vec<u8>>());
    let up_a = a.share(&["--listen", "http://127.0.0.1:0"]);
    let mut ticket: Ticket = up_a.field("ticket").parse().unwrap();
    let real = ticket.addresses[0].to_string();
    let target: SocketAddr = real.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    ticket.addresses = vec![format!("http://{}", proxy(target, up_a.child.id(), 20 * MIB)).parse().unwrap()];
    let up_b = b.join(&ticket.to_string(), &["--listen", "http://127.0.0.1:0"]);
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
