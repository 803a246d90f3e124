//! Syncline on the endpoint and router of an iroh application, beside its own protocol.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, wait_for};
use iroh::{
    Endpoint,
    endpoint::{Connection, PortmapperConfig, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use sync_core::manager::{Access, SyncManager};
use transport_iroh::{ALPN, IrohTransport};

const GREETING: &[u8] = b"greeting/1";

/// The application's protocol.
#[derive(Debug, Clone)]
struct Greeter;

impl ProtocolHandler for Greeter {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let mut stream = connection.open_uni().await?;
        stream.write_all(b"welcome").await.map_err(AcceptError::from_err)?;
        stream.finish()?;
        connection.closed().await;
        Ok(())
    }
}

/// An endpoint that stays on this machine.
async fn endpoint() -> Result<Endpoint, Box<dyn std::error::Error>> {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports().bind_addr("127.0.0.1:0")?;
    Ok(builder.portmapper_config(PortmapperConfig::Disabled).bind().await?)
}

/// A node on an application's endpoint, and the router that serves both.
async fn mounted(endpoint: &Endpoint) -> Result<(SyncManager, Router), Box<dyn std::error::Error>> {
    let (builder, protocol) = IrohTransport::mount(endpoint.clone());
    let router = Router::builder(endpoint.clone()).accept(ALPN, protocol).accept(GREETING, Greeter).spawn();
    let node = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    node.register_transport("the application's", builder).await?;
    node.accept_connections().await?;
    Ok((node, router))
}

#[tokio::main]
async fn main() -> Outcome {
    let (here, there) = (endpoint().await?, endpoint().await?);
    let (alice, alices_router) = mounted(&here).await?;
    let (bob, bobs_router) = mounted(&there).await?;

    let replica = alice.create_replica().await?;
    replica.put("key", "value").await?;
    let copy = bob.join(replica.share(Access::WRITE).await?).await?;
    wait_for(&copy, "key", "value").await?;
    println!("equal over the application's endpoints");

    // The nodes end; the endpoints are the application's and go on.
    alice.shutdown(Duration::from_secs(30)).await?;
    bob.shutdown(Duration::from_secs(30)).await?;
    let connection = there.connect(here.addr(), GREETING).await?;
    let greeting = connection.accept_uni().await?.read_to_end(64).await?;
    assert_eq!(greeting, b"welcome");
    println!("and its own protocol still greets");
    drop(connection);

    alices_router.shutdown().await?;
    bobs_router.shutdown().await?;
    Ok(())
}
