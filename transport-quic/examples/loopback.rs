//! How fast one stream is on loopback, next to quinn with its defaults: MB/s, and the ratio.
//!
//! `cargo run --release -p transport-quic --example loopback [MiB] [rounds]`

use std::{error::Error, sync::Arc, time::Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use sync_core::transport::{Incoming, SyncTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transport_quic::QuicTransport;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CHUNK: usize = 256 << 10;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(quinn_alone(mebibytes << 20).await?);
        ours.push(transport(mebibytes << 20).await?);
    }
    let (raw, ours) = (median(raw), median(ours));
    println!("quinn alone     {raw:6.0} MB/s");
    println!("transport-quic  {ours:6.0} MB/s");
    println!("ratio           {:6.2}", ours / raw);
    Ok(())
}

/// MB/s of `len` bytes through the transport.
async fn transport(len: u64) -> Outcome<f64> {
    let node = || QuicTransport::builder().bind(([127, 0, 0, 1], 0).into()).build_transport(None);
    let (here, there) = (node()?, node()?);
    let (incoming, mut accepted) = Incoming::channel();
    let address = there.listen(incoming).await?.remove(0);
    let dialled = here.dial(&address).await?;
    let connection = accepted.recv().await.ok_or("the listener ended")?;
    let reader = tokio::spawn(async move {
        let mut stream = connection.accept().await?;
        drain(&mut stream).await
    });
    let begun = Instant::now();
    let mut stream = dialled.open().await?;
    fill(&mut stream, len).await?;
    let received = reader.await??;
    let rate = rate(received, begun);
    here.close().await;
    there.close().await;
    Ok(rate)
}

/// MB/s of `len` bytes through quinn with its default settings.
async fn quinn_alone(len: u64) -> Outcome<f64> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
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
    let begun = Instant::now();
    let (mut stream, _keep) = connection.open_bi().await?;
    fill(&mut stream, len).await?;
    let received = reader.await??;
    Ok(rate(received, begun))
}

async fn fill(stream: &mut (impl tokio::io::AsyncWrite + Unpin), len: u64) -> Outcome<()> {
    let chunk = vec![7; CHUNK];
    let mut left = len;
    while left > 0 {
        let next = left.min(CHUNK as u64);
        stream.write_all(&chunk[..next as usize]).await?;
        left -= next;
    }
    Ok(stream.shutdown().await?)
}

async fn drain(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Outcome<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(received),
            read => received += read as u64,
        }
    }
}

fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
