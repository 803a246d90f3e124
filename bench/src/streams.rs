//! Raw streams on loopback, both ends in this process: what a transport can carry at best.

use std::{sync::Arc, time::Instant};

use futures_util::{SinkExt, StreamExt};
use iroh::endpoint::{Endpoint, PortmapperConfig, presets};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use crate::Result;

const CHUNK: usize = 256 << 10;

pub async fn stream(mebibytes: u64, kind: String) -> Result<()> {
    let len = mebibytes << 20;
    while contest::next_round().is_some() {
        let seconds = match kind.as_str() {
            "quic" => quic(len).await?,
            "iroh" => iroh(len).await?,
            "websocket" => websocket(len).await?,
            other => return Err(format!("no such stream: {other}").into()),
        };
        contest::report(&[("seconds", seconds), ("mb_per_s", len as f64 / 1e6 / seconds)]);
    }
    Ok(())
}

/// quinn with its defaults.
async fn quic(len: u64) -> Result<f64> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));

    let there = quinn::Endpoint::server(server, ([127, 0, 0, 1], 0).into())?;
    let here = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
    let address = there.local_addr()?;
    let reader = tokio::spawn(async move {
        let connection = there.accept().await.ok_or("the endpoint ended")?.await?;
        let (_, mut stream) = connection.accept_bi().await?;
        drain(&mut stream).await
    });
    let connection = here.connect_with(client, address, "localhost")?.await?;
    let started = Instant::now();
    let (mut stream, _keep) = connection.open_bi().await?;
    fill(&mut stream, len).await?;
    check(len, reader.await??)?;
    Ok(started.elapsed().as_secs_f64())
}

/// iroh with its defaults, no relay, no lookup.
async fn iroh(len: u64) -> Result<f64> {
    let endpoint = || -> Result<_> {
        Ok(Endpoint::builder(presets::Minimal)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .portmapper_config(PortmapperConfig::Disabled)
            .alpns(vec![b"bench".to_vec()]))
    };
    let (here, there) = (endpoint()?.bind().await?, endpoint()?.bind().await?);
    let address = there.addr();
    let accepting = there.clone();
    let reader = tokio::spawn(async move {
        let connection = accepting.accept().await.ok_or("the endpoint ended")?.await?;
        let (_, mut stream) = connection.accept_bi().await?;
        drain(&mut stream).await
    });
    let connection = here.connect(address, b"bench").await?;
    let started = Instant::now();
    let (mut stream, _keep) = connection.open_bi().await?;
    fill(&mut stream, len).await?;
    check(len, reader.await??)?;
    let seconds = started.elapsed().as_secs_f64();
    here.close().await;
    there.close().await;
    Ok(seconds)
}

/// A WebSocket over TCP: neither encrypted nor divided into streams.
async fn websocket(len: u64) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let reader = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let mut socket = tokio_tungstenite::accept_async(socket).await?;
        let mut received = 0;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Binary(bytes) => received += bytes.len() as u64,
                _ => break,
            }
        }
        Result::Ok(received)
    });
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), socket).await?;
    let started = Instant::now();
    let chunk = tokio_tungstenite::tungstenite::Bytes::from(vec![7; 64 << 10]);
    for _ in 0..len / chunk.len() as u64 {
        socket.send(Message::Binary(chunk.clone())).await?;
    }
    socket.send(Message::Close(None)).await?;
    check(len, reader.await??)?;
    Ok(started.elapsed().as_secs_f64())
}

fn check(sent: u64, received: u64) -> Result<()> {
    if sent == received { Ok(()) } else { Err(format!("{received} of {sent} bytes came").into()) }
}

async fn fill(stream: &mut (impl AsyncWrite + Unpin), len: u64) -> Result<()> {
    let chunk = vec![7; CHUNK];
    let mut left = len;
    while left > 0 {
        let next = left.min(CHUNK as u64);
        stream.write_all(&chunk[..next as usize]).await?;
        left -= next;
    }
    Ok(stream.shutdown().await?)
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(received),
            read => received += read as u64,
        }
    }
}
