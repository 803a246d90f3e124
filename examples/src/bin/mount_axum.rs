//! Syncline beside the routes of an axum application, on the application's own listener.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use examples::{Outcome, loopback, wait_for};
use sync_core::manager::{Access, SyncManager};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use transport_http::HttpTransport;

#[tokio::main]
async fn main() -> Outcome {
    // The application: its listener, its routes, and Syncline below a path of its choice.
    let listener = TcpListener::bind(loopback()).await?;
    let here = listener.local_addr()?;
    let builder = HttpTransport::builder().mounted([format!("http://{here}/sync").parse()?]);
    let app = Router::new().route("/", get(async || "the application")).nest("/sync", builder.router());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let server = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    server.register_transport("web", builder).await?;
    server.accept_connections().await?;
    let replica = server.create_replica().await?;
    replica.put("key", "from the server").await?;
    let ticket = replica.share(Access::WRITE).await?;
    println!("one port for both: {}", ticket.addresses[0]);

    let visitor = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    visitor.register_transport("web", HttpTransport::builder().client_only()).await?;
    let copy = visitor.join(ticket).await?;
    wait_for(&copy, "key", "from the server").await?;
    copy.put("key", "from the visitor").await?;
    wait_for(&replica, "key", "from the visitor").await?;

    // The application's own route answers as before, and Syncline's for people do too.
    assert!(ask(here, "/").await?.ends_with("the application"));
    assert!(ask(here, "/sync/v1/health").await?.starts_with("HTTP/1.1 200"));

    // Syncline ends; the application goes on.
    visitor.shutdown(Duration::from_secs(30)).await?;
    server.shutdown(Duration::from_secs(30)).await?;
    assert!(ask(here, "/").await?.ends_with("the application"));
    assert!(ask(here, "/sync/v1/health").await?.starts_with("HTTP/1.1 503"));
    serving.abort();
    Ok(())
}

/// The answer to a GET, head and body.
async fn ask(server: std::net::SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
