//! What the conformance suite does not see: the pipe beneath, hostile ends, and speed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::transport::{ByteStream, CloseReason, TransportErrorKind};

async fn pair() -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (here, there) = duplex(64 * 1024);
    let (here, there) = tokio::join!(upgrade(here, Role::Dialer), upgrade(there, Role::Listener));
    (here.unwrap(), there.unwrap())
}

/// Everything that passes from one end of a pipe to the other, seen in the middle.
async fn tapped() -> (Box<dyn Connection>, Box<dyn Connection>, tokio::task::JoinHandle<Vec<u8>>) {
    let (here, middle_here) = duplex(64 * 1024);
    let (there, middle_there) = duplex(64 * 1024);
    let (mut from, mut back_to) = tokio::io::split(middle_here);
    let (mut back_from, mut to) = tokio::io::split(middle_there);
    tokio::spawn(async move { tokio::io::copy(&mut back_from, &mut back_to).await.ok() });
    let tap = tokio::spawn(async move {
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..len]);
            if to.write_all(&buffer[..len]).await.is_err() {
                break;
            }
        }
        seen
    });
    let (here, there) = tokio::join!(upgrade(here, Role::Dialer), upgrade(there, Role::Listener));
    (here.unwrap(), there.unwrap(), tap)
}

#[tokio::test]
async fn nothing_readable_passes_through_the_pipe() {
    let (here, there, tap) = tapped().await;
    let secret = b"attack at dawn, by the northern gate".repeat(100);
    let mut ours = here.open().await.unwrap();
    ours.write_all(&secret).await.unwrap();
    let mut heard = vec![0; secret.len()];
    there.accept().await.unwrap().read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, secret);
    drop((here, there, ours));
    let seen = tap.await.unwrap();
    assert!(seen.len() > secret.len());
    assert!(!seen.windows(6).any(|window| window == b"attack"));
}

#[tokio::test]
async fn many_small_writes_share_messages() {
    let (here, there, tap) = tapped().await;
    let mut ours = here.open().await.unwrap();
    let mut theirs = None;
    for _ in 0..100 {
        ours.write_all(&[7; 10_000]).await.unwrap();
        if theirs.is_none() {
            theirs = Some(there.accept().await.unwrap());
        }
        theirs.as_mut().unwrap().read_exact(&mut [0; 10_000]).await.unwrap();
    }
    drop((here, there, ours, theirs));
    // 12 bytes of yamux and 19 of Noise for each write, and a little for opening and closing.
    let overhead = tap.await.unwrap().len() - 1_000_000;
    assert!(overhead < 100 * (12 + 19) + 1_000, "{overhead} bytes beside a million");
}

#[tokio::test(start_paused = true)]
async fn b78_a_silent_dialler_is_dropped_after_the_handshake_deadline() {
    let (_here, there) = duplex(1024);
    let started = tokio::time::Instant::now();
    let error = upgrade(there, Role::Listener).await.unwrap_err();
    assert_eq!((error.kind, started.elapsed()), (TransportErrorKind::TimedOut, HANDSHAKE_DEADLINE));
}

#[tokio::test]
async fn b77_garbage_instead_of_a_handshake_is_a_typed_error() {
    let everything_else: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n",
        &[0xFF; 70_000],
        &[0, 0, 0, 0],
        &[0, 31, 1, 2, 3],
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03],
    ];
    for garbage in everything_else {
        let (mut here, there) = duplex(128 * 1024);
        here.write_all(garbage).await.unwrap();
        here.shutdown().await.unwrap();
        let error = upgrade(there, Role::Listener).await.unwrap_err();
        assert!(matches!(error.kind, TransportErrorKind::Protocol | TransportErrorKind::ConnectionLost), "{error}");
    }
}

#[tokio::test]
async fn two_ends_in_the_same_role_do_not_connect() {
    let (here, there) = duplex(1024);
    let (here, there) = tokio::join!(upgrade(here, Role::Dialer), upgrade(there, Role::Dialer));
    assert_eq!((here.unwrap_err().kind, there.unwrap_err().kind), {
        (TransportErrorKind::Protocol, TransportErrorKind::Protocol)
    });
}

/// Shakes hands as a dialler and then has the keys to seal whatever it likes.
async fn insider() -> (DuplexStream, snow::TransportState, Box<dyn Connection>) {
    let (mut here, there) = duplex(64 * 1024);
    let (secured, there) = tokio::join!(handshake::perform(&mut here, Role::Dialer), upgrade(there, Role::Listener));
    (here, secured.unwrap().noise, there.unwrap())
}

async fn say(pipe: &mut DuplexStream, noise: &mut snow::TransportState, plain: &[u8]) {
    let mut message = vec![0; 65_535];
    let len = noise.write_message(plain, &mut message).unwrap();
    pipe.write_u16(len as u16).await.unwrap();
    pipe.write_all(&message[..len]).await.unwrap();
}

#[tokio::test]
async fn b77_a_flipped_bit_ends_the_connection() {
    let (mut pipe, mut noise, there) = insider().await;
    let mut message = vec![0; 64];
    let len = noise.write_message(&[0, 1, 2, 3], &mut message).unwrap();
    message[2] ^= 1;
    pipe.write_u16(len as u16).await.unwrap();
    pipe.write_all(&message[..len]).await.unwrap();
    assert_eq!(there.closed().await.kind, TransportErrorKind::ConnectionLost);
}

#[tokio::test]
async fn b79_messages_of_unknown_kinds_are_skipped() {
    let (mut pipe, mut noise, there) = insider().await;
    say(&mut pipe, &mut noise, &[77, 1, 2, 3]).await;
    // yamux: version 0, data, SYN, stream 1, 5 bytes.
    say(&mut pipe, &mut noise, b"\0\0\0\0\x01\0\0\0\x01\0\0\0\x05hello").await;
    let mut heard = [0; 5];
    there.accept().await.unwrap().read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// The numbers on the wire, which other implementations rely on.
#[tokio::test]
async fn keep_alives_and_farewells_are_understood_by_their_numbers() {
    let cases = [
        (0u32, TransportErrorKind::ConnectionLost, "not needed any more"),
        (1, TransportErrorKind::ConnectionLost, "protocol"),
        (2, TransportErrorKind::ConnectionLost, "another connection"),
        (3, TransportErrorKind::Refused, "refused"),
        (4, TransportErrorKind::ConnectionLost, "not needed any more"),
    ];
    for (reason, kind, text) in cases {
        let (mut pipe, mut noise, there) = insider().await;
        say(&mut pipe, &mut noise, &[1]).await;
        let mut farewell = vec![2];
        farewell.extend_from_slice(&reason.to_be_bytes());
        say(&mut pipe, &mut noise, &farewell).await;
        let error = there.closed().await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.context.contains(text), "{error}");
    }
}

#[tokio::test]
async fn b77_more_streams_than_wait_for_accept_are_held_back() {
    let (mut pipe, mut noise, there) = insider().await;
    let flood = async {
        for stream in 0..10_000u32 {
            // Kind data; then yamux: version 0, data, SYN, the stream, the length.
            let mut plain = vec![0, 0, 0, 0, 1];
            plain.extend_from_slice(&(2 * stream + 1).to_be_bytes());
            plain.extend_from_slice(&60_000u32.to_be_bytes());
            plain.extend_from_slice(&[0; 60_000]);
            say(&mut pipe, &mut noise, &plain).await;
        }
    };
    // The pipe fills and the flood stands still.
    assert!(tokio::time::timeout(Duration::from_millis(300), flood).await.is_err());
    drop(there);
}

#[tokio::test]
async fn the_reason_of_a_close_reaches_the_other_end() {
    let (here, there) = pair().await;
    here.close(CloseReason::Duplicate);
    let error = there.closed().await;
    assert_eq!(error.kind, TransportErrorKind::ConnectionLost);
    assert!(error.context.contains("another connection"), "{error}");

    let (here, there) = pair().await;
    there.close(CloseReason::Refused);
    assert_eq!(here.closed().await.kind, TransportErrorKind::Refused);
}

#[tokio::test]
async fn what_was_written_before_a_close_is_flushed_with_it() {
    let (here, there) = pair().await;
    let mut ours = here.open().await.unwrap();
    ours.write_all(b"before the end").await.unwrap();
    let mut theirs = there.accept().await.unwrap();
    let mut heard = [0; 14];
    theirs.read_exact(&mut heard).await.unwrap();
    here.close(CloseReason::Done);
    assert_eq!(&heard, b"before the end");
    assert!(theirs.read(&mut heard).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_for_an_hour() {
    let (here, there) = pair().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut ours = here.open().await.unwrap();
    ours.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    there.accept().await.unwrap().read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_stream_dropped_unfinished_is_an_error_for_its_reader() {
    let (here, there) = pair().await;
    let mut ours = here.open().await.unwrap();
    ours.write_all(b"half a mess").await.unwrap();
    let mut theirs = there.accept().await.unwrap();
    theirs.read_exact(&mut [0; 11]).await.unwrap();
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// yamux forgets a stream that was finished here and dropped unread, and grants it no window any more:
/// without the draining task the other end would wait for ever.
#[tokio::test]
async fn a_writer_whose_reader_finished_and_left_is_not_left_waiting() {
    let (here, there) = pair().await;
    let mut ours = here.open().await.unwrap();
    ours.write_all(b"send me a lot").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut theirs = there.accept().await.unwrap();
    theirs.read_exact(&mut [0; 13]).await.unwrap();
    drop(ours);
    let all = theirs.write_all(&[0; 4 * 1024 * 1024]);
    // An error would do as well; waiting would not.
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().ok();
}

#[tokio::test]
async fn a_reader_goes_on_when_the_writing_half_is_dropped() {
    let (here, there) = pair().await;
    let mut ours = here.open().await.unwrap();
    ours.write_all(b"?").await.unwrap();
    let ByteStream { mut read, write } = ours;
    drop(write);
    let mut theirs = there.accept().await.unwrap();
    let mut question = Vec::new();
    theirs.read_to_end(&mut question).await.unwrap();
    theirs.write_all(b"!").await.unwrap();
    assert_eq!((question.as_slice(), read.read_u8().await.unwrap()), (&b"?"[..], b'!'));
}

#[tokio::test]
async fn open_waits_for_a_place_beyond_the_limit_of_open_streams() {
    let (here, there) = pair().await;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(stream) = there.accept().await {
            kept.push(stream);
        }
    });
    let mut open = Vec::new();
    for _ in 0..MAX_OPEN_STREAMS {
        let mut stream = here.open().await.unwrap();
        stream.write_all(b"!").await.unwrap();
        open.push(stream);
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), here.open()).await.is_err());
    open.pop();
    here.open().await.unwrap();
}

#[test]
fn a_runtime_that_ends_with_open_streams_does_not_hang() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let streams = runtime.block_on(async {
        let (here, there) = pair().await;
        let mut ours = here.open().await.unwrap();
        ours.write_all(b"!").await.unwrap();
        ours.shutdown().await.unwrap();
        let theirs = there.accept().await.unwrap();
        tokio::spawn(async move { (here, there, std::future::pending::<()>().await) });
        (ours, theirs)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let (done, dropped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(streams);
        let _ = done.send(());
    });
    dropped.recv_timeout(Duration::from_secs(20)).expect("dropping them does not hang");
}
