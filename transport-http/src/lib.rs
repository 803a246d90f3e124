//! Syncline over HTTP: one WebSocket a connection, and REST for people and tools.
//!
//! [`HttpTransport`] dials and listens at `http://host:port/path` and `https://host/path`. It passes reverse proxies and
//! corporate firewalls, and they see only ciphertext: inside the WebSocket the bytes are encrypted from node to node
//! (`sync_core::transport::upgrade`), whoever ends TLS on the way.
//!
//! ```
//! use std::sync::Arc;
//! use sync_core::{
//!     model::SecretKey,
//!     transport::{Incoming, SyncTransport, TransportBuilder, TransportContext},
//! };
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use transport_http::HttpTransport;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let builder = HttpTransport::builder().bind("127.0.0.1:0".parse()?);
//! let context = TransportContext { node_key: SecretKey::generate(), state: None };
//! let transport: Arc<dyn SyncTransport> = Box::new(builder).build(context).await?;
//!
//! let (incoming, mut accepted) = Incoming::channel();
//! let addresses = transport.listen(incoming).await?;
//! let dialled = transport.dial(&addresses[0]).await?;
//!
//! let mut stream = dialled.open().await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//!
//! let connection = accepted.recv().await.expect("the transport listens");
//! let mut text = String::new();
//! connection.accept().await?.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//!
//! transport.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Proxies
//!
//! Dialling goes through the proxy that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). A reverse proxy in
//! front of a listener must pass the upgrade on; nginx does it with
//!
//! ```text
//! location /notes/ {
//!     proxy_pass http://127.0.0.1:8080/;
//!     proxy_http_version 1.1;
//!     proxy_set_header Upgrade $http_upgrade;
//!     proxy_set_header Connection upgrade;
//!     proxy_read_timeout 1h;
//! }
//! ```
//!
//! and the listener says under which address it is reached: [`HttpBuilder::advertise`].
//!
//! # Routes
//!
//! They are below the path of the address, and answer while the transport listens.
//!
//! | route | who | what |
//! |---|---|---|
//! | `/v1/sync` | anyone | the WebSocket; who it is, the handshake inside says |
//! | `GET /v1/health`, `/v1/node` | anyone | that it is up; its node id |
//! | `GET /v1/replicas`, `/v1/status` | a bearer token | see [`rest`] |
//! | `GET /v1/replicas/{id}/keys`, `.../values/{key}` | a bearer token, or anyone where the replica is public | see [`rest`] |
//!
//! # Files
//!
//! | file | what is in it |
//! |---|---|
//! | `builder.rs` | [`HttpBuilder`], [`HttpTransport`] |
//! | `address.rs` | where the WebSocket of an address is, and which addresses a listener advertises |
//! | `dial.rs` | dialling: the request, and whether the answer is one to it |
//! | `listen.rs` | the listener's task: caps, deadlines |
//! | `hub.rs` | what routes and transport share; from a request to a connection |
//! | `websocket.rs` | a WebSocket as a pipe of bytes |
//! | `connection.rs` | the connections that end with the transport |
//! | `tls.rs` | what a dialler trusts, and what a server shows |
//! | `rest/` | the REST surface, and the trait that answers it |
//! | `limits.rs` | every limit with its reason |
//! | `state.rs` | what is kept between starts: the port |
//! | `testing/` | fuzz targets, and a node to be asked (feature `testing`) |
//! | `error.rs` | from the errors of reqwest and rustls to the contract's |
//!
//! Deliberately absent: HTTP/2 and 3 (a WebSocket is one TCP connection anyway), compression (it is ciphertext), cookies,
//! redirects, writing by REST.

mod address;
mod builder;
mod connection;
mod dial;
mod error;
mod hub;
pub mod limits;
mod listen;
pub mod rest;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod websocket;

pub use builder::{HttpBuilder, HttpTransport};
pub use state::STATE_KIND;

#[cfg(test)]
#[path = "../../vectors/golden.rs"]
mod golden;
#[cfg(test)]
mod vectors;
