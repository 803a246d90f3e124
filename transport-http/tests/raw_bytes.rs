//! Raw bytes into a connection of the listener: requests, upgrades and WebSocket frames, mutated. Nothing panics, and
//! whoever comes next is served.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use common::{build, listen, socket};
use sync_core::testing::fuzz::replay;
use transport_http::HttpTransport;

/// How many panics there were in this process.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn say(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may be cut off in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn b77_whatever_bytes_come_the_listener_serves_the_next() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        default(panic);
    }));
    let upgrade = b"GET /v1/sync HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let framed = |frames: &[&[u8]]| [&upgrade[..], &frames.concat()].concat();
    // A masked binary frame with the length of the first Noise message, and what follows it.
    let noise = [&[0x82, 0xa2, 0, 0, 0, 0, 0, 32][..], &[9; 32]].concat();
    let inputs: Vec<Vec<u8>> = vec![
        b"GET /v1/health HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"GET /v1/replicas/00/keys?prefix=a&limit=3 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\n\r\n".to_vec(),
        b"GET /v1/replicas/00/values/a%2fb HTTP/1.1\r\nhost: a\r\nrange: bytes=0-5,7-\r\nif-none-match: \"x\"\r\n\r\n"
            .to_vec(),
        b"POST /v1/sync HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
        framed(&[&noise]),
        framed(&[&noise, &[0x82, 0x84, 0, 0, 0, 0, 0, 2, 1, 1], &[0x88, 0x80, 0, 0, 0, 0]]),
        framed(&[&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']]),
        framed(&[&[0x02, 0x81, 0, 0, 0, 0, 1], &[0x80, 0x81, 0, 0, 0, 0, 2], &[0x89, 0x80, 1, 2, 3, 4]]),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let transport = build(HttpTransport::builder());
    let (addresses, _accepted) = runtime.block_on(listen(&transport));
    let address = socket(&addresses[0]);
    let (seed, mut said) = (1, 0);
    println!("seed {seed}");
    replay(&inputs, seed, 600, |input| {
        say(address, input);
        said += 1;
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "it panics: {}", input.escape_ascii());
    });
    // Who says that nothing follows may be gone: only who waits is sure of an answer.
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    waiting.write_all(b"GET /v1/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut health = Vec::new();
    waiting.read_to_end(&mut health).unwrap();
    assert!(health.starts_with(b"HTTP/1.1 200"), "{}", health.escape_ascii());
    println!("{said} inputs");
}
