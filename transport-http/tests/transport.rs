//! What is particular to HTTP as a transport: addresses, state, mounting, hostile and slow callers.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Certificate, build, client, context, echo, free_port, listen, socket, soon};
use sync_core::{
    PeerAddress,
    testing::{skipped, tap::Tap},
    transport::{CloseReason, Incoming, SyncTransport, TransportBuilder, TransportErrorKind, TransportState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use transport_http::{HttpTransport, limits};

fn any_port() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// What a server says to `request`, until it closes.
async fn ask(socket: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(socket).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    soon(stream.read_to_end(&mut answer)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn b3_a_listener_on_all_interfaces_tells_addresses_that_can_be_dialled() {
    let transport =
        HttpTransport::builder().bind("[::]:0".parse().unwrap()).build_transport(&context(1, None)).unwrap();
    let (addresses, mut accepted) = listen(&transport).await;
    assert!(!addresses.is_empty() && addresses.len() <= limits::MAX_ADVERTISED);
    let dialler = build(HttpTransport::builder());
    for address in &addresses {
        assert!(!socket(address).ip().is_unspecified(), "{address}");
        echo(&dialler, address, &mut accepted).await;
    }
}

#[tokio::test]
async fn b6_the_port_persists_over_drop_and_rebuild() {
    let first = build(HttpTransport::builder());
    assert_eq!(first.state(), None);
    let (before, accepted) = listen(&first).await;
    let state = first.state().unwrap();
    assert_eq!(state.kind, "http/1");
    first.close().await;
    drop((first, accepted));
    let again = HttpTransport::builder().bind(any_port()).build_transport(&context(1, Some(state))).unwrap();
    let (after, _accepted) = listen(&again).await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn b6_a_remembered_port_that_is_taken_gives_way_to_another() {
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let state = TransportState { kind: "http/1".into(), bytes: format!("{{\"port\":{port}}}").into_bytes() };
    let transport = HttpTransport::builder().bind(any_port()).build_transport(&context(1, Some(state))).unwrap();
    let (addresses, _accepted) = listen(&transport).await;
    assert_ne!(addresses[0].url().port(), Some(port));
}

#[tokio::test]
async fn b6_state_of_another_kind_or_unreadable_is_a_typed_mismatch() {
    for (kind, bytes) in [("quic/1", &b"{\"port\":1}"[..]), ("http/2", b"{\"port\":1}"), ("http/1", b"garbage")] {
        let state = Some(TransportState { kind: kind.into(), bytes: bytes.to_vec() });
        let error = Box::new(HttpTransport::builder()).build(context(1, state)).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::StateMismatch, "{error}");
    }
}

#[tokio::test]
async fn b7_a_client_only_transport_listens_nowhere_and_dials() {
    let server = build(HttpTransport::builder());
    let (addresses, mut accepted) = listen(&server).await;
    let client = build(HttpTransport::builder().client_only());
    let (none, _never) = listen(&client).await;
    assert_eq!((none.len(), client.state()), (0, None));
    echo(&client, &addresses[0], &mut accepted).await;
    client.stop_listening().await.unwrap();
}

#[tokio::test]
async fn b5_what_is_advertised_replaces_the_interfaces() {
    let public = "https://hub.example/notes".parse().unwrap();
    let transport = build(HttpTransport::builder().advertise(public));
    let (addresses, _accepted) = listen(&transport).await;
    assert_eq!(addresses, ["https://hub.example/notes".parse().unwrap()]);
}

#[tokio::test]
async fn b14_mounted_in_an_application_it_serves_below_its_path_while_it_listens() {
    let server = TcpListener::bind(any_port()).await.unwrap();
    let local = server.local_addr().unwrap();
    let builder = HttpTransport::builder().mounted([format!("http://{local}/notes").parse().unwrap()]);
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "the application's own" }))
        .nest("/notes", builder.router());
    tokio::spawn(async move { axum::serve(server, app).await });
    let transport = builder.build_transport(&context(1, None)).unwrap();

    let web = client();
    let own = web.get(format!("http://{local}/")).send().await.unwrap().text().await.unwrap();
    assert_eq!(own, "the application's own");
    let health = format!("http://{local}/notes/v1/health");
    assert_eq!(web.get(&health).send().await.unwrap().status(), 503);
    let (addresses, mut accepted) = listen(&transport).await;
    assert_eq!(addresses[0].as_str(), format!("http://{local}/notes"));
    assert_eq!(web.get(&health).send().await.unwrap().status(), 200);
    let dialler = build(HttpTransport::builder());
    echo(&dialler, &addresses[0], &mut accepted).await;
    transport.stop_listening().await.unwrap();
    assert_eq!(dialler.dial(&addresses[0]).await.unwrap_err().kind, TransportErrorKind::Refused);
}

#[tokio::test]
async fn b9_each_way_of_not_being_a_node_is_a_typed_error() {
    let answers: [(&str, TransportErrorKind); 6] = [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", TransportErrorKind::Refused),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", TransportErrorKind::Refused),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            TransportErrorKind::Refused,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: c2FtZQ==\r\n\r\n",
            TransportErrorKind::Refused,
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", TransportErrorKind::Refused),
        ("", TransportErrorKind::Refused),
    ];
    let dialler = build(HttpTransport::builder());
    for (answer, kind) in answers {
        let server = TcpListener::bind(any_port()).await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = soon(dialler.dial(&address)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn b9_an_untrusted_certificate_is_refused_with_advice() {
    let tls = Certificate::new();
    let server = build(HttpTransport::builder().tls(&*tls.certificate, &*tls.key));
    let (addresses, _accepted) = listen(&server).await;
    assert_eq!(addresses[0].scheme(), "https");
    let error = build(HttpTransport::builder()).dial(&addresses[0]).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Refused);
    assert!(error.context.contains("root certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_none_is_an_error_of_the_builder() {
    let tls = Certificate::new();
    for builder in [
        HttpTransport::builder().tls("no PEM", &*tls.key),
        HttpTransport::builder().tls(&*tls.certificate, "no PEM"),
        HttpTransport::builder().tls(&*tls.certificate, &*Certificate::new().key),
    ] {
        let error = builder.build_transport(&context(1, None)).unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::CannotListen, "{error}");
    }
}

#[tokio::test]
async fn b3_a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let wanted = taken.local_addr().unwrap();
    let transport = HttpTransport::builder().bind(wanted).build_transport(&context(1, None)).unwrap();
    let error = transport.listen(Incoming::channel().0).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::CannotListen);
    assert!(error.context.contains(&wanted.to_string()), "{error}");
    drop(taken);
    listen(&transport).await;
}

#[tokio::test]
async fn b78_a_caller_that_drips_its_request_is_dropped_within_the_deadline() {
    let transport = build(HttpTransport::builder());
    let (addresses, mut accepted) = listen(&transport).await;
    let started = Instant::now();
    let mut drips = tokio::task::JoinSet::new();
    for silent in [true, false] {
        let mut stream = TcpStream::connect(socket(&addresses[0])).await.unwrap();
        drips.spawn(async move {
            stream.write_all(b"GET /v1/health HTTP/1.1\r\nx: ").await.unwrap();
            let (mut read, mut write) = stream.split();
            let mut nothing = Vec::new();
            let drip = async {
                while !silent && write.write_all(b"y").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = read.read_to_end(&mut nothing) => {}
                () = drip => {}
            }
            nothing
        });
    }
    // Others are served meanwhile.
    echo(&build(HttpTransport::builder()), &addresses[0], &mut accepted).await;
    for answer in drips.join_all().await {
        assert_eq!(answer, b"");
    }
    let took = started.elapsed();
    assert!(took >= limits::REQUEST_DEADLINE && took < limits::REQUEST_DEADLINE + Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn b77_a_head_without_end_is_refused() {
    let transport = build(HttpTransport::builder());
    let (addresses, _accepted) = listen(&transport).await;
    let mut request = b"GET /v1/health HTTP/1.1\r\n".to_vec();
    request.resize(limits::MAX_HEAD_LEN + 10_000, b'a');
    let answer = ask(socket(&addresses[0]), &request).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn b77_garbage_gets_no_connection_and_harms_nobody() {
    let transport = build(HttpTransport::builder());
    let (addresses, mut accepted) = listen(&transport).await;
    let upgrade = b"GET /v1/sync HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut text_frame = upgrade.to_vec();
    text_frame.extend_from_slice(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    let mut giant_frame = upgrade.to_vec();
    giant_frame.extend_from_slice(&[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
    let mut noise = upgrade.to_vec();
    noise.extend_from_slice(&[0x82, 0xA2, 0, 0, 0, 0, 0, 32]);
    noise.extend_from_slice(&[9; 32]);
    noise.extend_from_slice(&[0x82, 0x84, 0, 0, 0, 0, 0, 2, 1, 1]);
    let requests: [&[u8]; 6] = [
        b"\x16\x03\x01\x00\x05hello",
        b"GET /v1/sync HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        &text_frame,
        &giant_frame,
        &noise,
        b"\n\n\n",
    ];
    for request in requests {
        let mut stream = TcpStream::connect(socket(&addresses[0])).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.ok();
    }
    assert!(accepted.try_recv().is_err());
    echo(&build(HttpTransport::builder()), &addresses[0], &mut accepted).await;
}

#[tokio::test]
async fn b35_connections_beyond_the_cap_are_refused_and_places_come_back() {
    let server = build(HttpTransport::builder().max_connections(2));
    let (addresses, mut accepted) = listen(&server).await;
    let dialler = build(HttpTransport::builder());
    let first = dialler.dial(&addresses[0]).await.unwrap();
    let first_accepted = accepted.recv().await.unwrap();
    let _second = (dialler.dial(&addresses[0]).await.unwrap(), accepted.recv().await.unwrap());
    assert_eq!(dialler.dial(&addresses[0]).await.unwrap_err().kind, TransportErrorKind::Refused);
    first.close(CloseReason::Done);
    first_accepted.closed().await;
    drop(first_accepted);
    soon(dialler.dial(&addresses[0])).await.unwrap();
}

/// Proxies on this machine come from loopback, for many others: it has no bound of its own. So this needs an interface.
#[tokio::test]
async fn b35_one_address_has_so_many_connections_and_leaves_the_others_their_places() {
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let server = HttpTransport::builder().bind(everywhere).build_transport(&context(1, None)).unwrap();
    let (addresses, mut accepted) = listen(&server).await;
    let is_loopback = |address: &&PeerAddress| socket(address).ip().is_loopback();
    let loopback = addresses.iter().find(is_loopback).unwrap();
    let Some(own) = addresses.iter().find(|address| !is_loopback(address)) else {
        return skipped("this machine has no interface but loopback");
    };
    let dialler = build(HttpTransport::builder());
    let mut held = Vec::new();
    for _ in 0..limits::MAX_PER_ADDRESS {
        let here = soon(dialler.dial(own)).await.unwrap();
        held.push((here, soon(accepted.recv()).await.unwrap()));
    }
    let refused = soon(dialler.dial(own)).await.unwrap_err();
    assert_ne!(refused.kind, TransportErrorKind::TimedOut, "{refused}");
    echo(&dialler, loopback, &mut accepted).await;
    // The place of one that ends is free.
    let (here, there) = held.pop().unwrap();
    here.close(CloseReason::Done);
    there.closed().await;
    drop(there);
    let is_free = async {
        while dialler.dial(own).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(is_free).await;
}

#[tokio::test]
async fn a_closed_transport_stops_a_dial_that_is_under_way() {
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let dialler = std::sync::Arc::new(build(HttpTransport::builder()));
    let dial = tokio::spawn({
        let dialler = dialler.clone();
        async move { dialler.dial(&address).await.map(|_| ()) }
    });
    silent.accept().await.unwrap();
    dialler.close().await;
    assert_eq!(dial.await.unwrap().unwrap_err().kind, TransportErrorKind::Closed);
}

#[tokio::test]
async fn b16_a_closed_transport_frees_its_port_for_another_in_the_same_process() {
    let port = free_port();
    let bind = format!("127.0.0.1:{port}").parse().unwrap();
    for _ in 0..5 {
        let transport = HttpTransport::builder().bind(bind).build_transport(&context(1, None)).unwrap();
        let (addresses, mut accepted) = listen(&transport).await;
        let dialler = build(HttpTransport::builder());
        echo(&dialler, &addresses[0], &mut accepted).await;
        let _still_held = dialler.dial(&addresses[0]).await.unwrap();
        transport.close().await;
    }
}

#[tokio::test]
async fn b37_a_value_of_64_mib_passes() {
    let server = build(HttpTransport::builder());
    let (addresses, mut accepted) = listen(&server).await;
    let dialler = build(HttpTransport::builder());
    let here = dialler.dial(&addresses[0]).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let mut out = here.open().await.unwrap();
    let writer = tokio::spawn(async move {
        let chunk = vec![7; 1 << 20];
        for _ in 0..64 {
            out.write_all(&chunk).await.unwrap();
        }
        out.shutdown().await.unwrap();
    });
    let mut stream = there.accept().await.unwrap();
    let read = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    writer.await.unwrap();
    assert_eq!(read, 64 << 20);
}

/// The story: what a node once said is known to whoever sat on the path. Said again it is an opening like any other, and
/// ends there: the listener's part of the Noise handshake is fresh, and what followed was encrypted for another.
#[tokio::test]
async fn b61_an_opening_that_was_recorded_is_no_connection_when_it_is_said_again() {
    let (server, client) = (build(HttpTransport::builder()), build(HttpTransport::builder()));
    let (addresses, mut accepted) = listen(&server).await;
    let tap = Tap::tcp(socket(&addresses[0])).await.unwrap();
    echo(&client, &format!("http://{}", tap.address()).parse().unwrap(), &mut accepted).await;
    let opening = tap.said().concat();
    drop(tap);
    let answer = ask(socket(&addresses[0]), &opening).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "it is answered as an opening: {answer}");
    // The next that is accepted is who dials, and nobody came beside it.
    echo(&client, &addresses[0], &mut accepted).await;
    server.close().await;
    assert!(accepted.recv().await.is_none());
}
