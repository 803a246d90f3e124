//! Syncline over iroh: peer-to-peer QUIC that finds its way through NATs, over relays if need be.
//!
//! [`IrohTransport`] builds an iroh endpoint of its own with the node's key, so that the node's
//! id is its iroh endpoint id, or is mounted on the application's:
//!
//! ```
//! use std::sync::Arc;
//! use sync_core::{
//!     model::SecretKey,
//!     transport::{Incoming, SyncTransport, TransportBuilder, TransportContext},
//! };
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use transport_iroh::IrohTransport;
//!
//! async fn build() -> Result<Arc<dyn SyncTransport>, Box<dyn std::error::Error>> {
//!     let builder = IrohTransport::builder().bind("127.0.0.1:0".parse()?);
//!     let context = TransportContext { node_key: SecretKey::generate(), state: None };
//!     Ok(Box::new(builder).build(context).await?)
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (here, there) = (build().await?, build().await?);
//! let (incoming, mut accepted) = Incoming::channel();
//! let addresses = there.listen(incoming).await?;
//! let dialled = here.dial(&addresses[0]).await?;
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
//! here.close().await;
//! there.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Without internet, and with
//!
//! By default there is no relay and no lookup: nothing outside the local network is ever asked,
//! and an address must say where its node is: `iroh:<endpoint id>?ip=192.0.2.1:1234&ip=...&relay=https://...`.
//! [`IrohBuilder::relay`] adds relays of your own, [`IrohBuilder::n0`] the public ones of Number 0 with their
//! lookup. Even then nothing waits to be "online": a relay that cannot be reached delays `listen` by
//! [`limits::ADDRESS_WAIT`] at most.
//!
//! # Mounted
//!
//! [`IrohTransport::mount`] gives a builder and a [`Protocol`] for the application's `Router`, under [`ALPN`]. The
//! endpoint stays the application's: closing the transport ends Syncline's connections only.
//!
//! # The socket
//!
//! An endpoint of iroh is one node on the network, so dialling and listening share it: it is bound
//! at the first of the two, and refuses everyone until `listen`. `stop_listening` refuses who comes new; when no
//! connection is open it closes the endpoint too, which frees the port, and the next dial binds it again. With
//! connections open the endpoint stays, because they would end with it. `close` ends it in any case;
//! iroh's last tasks let go of the socket some milliseconds after that.
//!
//! # Who is at the other end
//!
//! iroh proves the endpoint id. Syncline does not rely on it: its own handshake proves the peer id
//! over the connection's channel binding, the same way on every transport.
//!
//! | file | what is in it |
//! |---|---|
//! | `builder.rs` | [`IrohBuilder`], [`IrohTransport`] |
//! | `address.rs` | `iroh:<id>?ip=...&relay=...` |
//! | `endpoint.rs` | the endpoint of one's own: when it is bound, and when it ends |
//! | `dial.rs` | dialling |
//! | `listen.rs` | the gate that every accepted connection passes, and admission to it |
//! | `mount.rs` | [`Protocol`], the handler for a `Router` |
//! | `connection.rs` | a connection and its streams |
//! | `open.rs` | what the application holds, and how it is taken from it |
//! | `state.rs` | what is kept between starts: the port |
//! | `error.rs` | from iroh's errors to the contract's |
//! | `limits.rs` | every limit, with its reason |
//!
//! Deliberately absent: 0-RTT (what it carries can be replayed), custom transports of iroh (unstable).

mod address;
mod builder;
mod connection;
mod dial;
mod endpoint;
mod error;
pub mod limits;
mod listen;
mod mount;
mod open;
mod state;

pub use builder::{IrohBuilder, IrohTransport, MountedBuilder};
pub use iroh;
pub use mount::Protocol;
pub use state::STATE_KIND;

/// The application protocol that both ends must name in the TLS handshake.
pub const ALPN: &[u8] = b"syncline/1";

#[cfg(test)]
#[path = "../../vectors/golden.rs"]
mod golden;
#[cfg(test)]
mod vectors;
