//! Syncline over raw QUIC: for the LAN, the data centre, and wherever a UDP port can be reached.
//!
//! [`QuicTransport`] dials and listens at `quic://host:port`, where the host is a DNS name, an
//! IPv4 address or an IPv6 address in brackets. A stream of the connection is a stream of QUIC, so nothing
//! is multiplexed twice and no stream waits for another's lost packet.
//!
//! ```
//! use std::sync::Arc;
//! use sync_core::{
//!     model::SecretKey,
//!     transport::{Incoming, SyncTransport, TransportBuilder, TransportContext},
//! };
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use transport_quic::QuicTransport;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let builder = QuicTransport::builder().bind("127.0.0.1:0".parse()?);
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
//! # Who is at the other end
//!
//! **This crate does not know, on purpose.** The certificate is self-signed and the dialler
//! accepts any. That protects against who only listens; against a man in the middle protects
//! the handshake above, in which both nodes sign the connection's channel binding (the TLS
//! exporter, which differs on the two sides of whoever sits in between). Do not use a
//! [`Connection`](sync_core::transport::Connection) of this crate for anything without that handshake.
//!
//! # Sockets
//!
//! Dialling has a socket of its own, on an ephemeral port of every interface, made at the first dial.
//! The listener's socket exists from `listen` until `stop_listening`. Apart they are simple: a
//! listener bound to one interface does not limit where one can dial, and stopping it harms no
//! connection that was dialled.
//!
//! Connections that were *accepted* live on the listener's socket, because QUIC servers cannot
//! move (RFC 9000, section 9). So `stop_listening` refuses who comes new, and frees the port
//! at once when no accepted connection is left, otherwise when the last of them ends. `listen` before that
//! takes the same socket up again. `close` frees it in any case.
//!
//! # Limits
//!
//! They are constants of [`limits`], each with its reason.
//!
//! | file | what is in it |
//! |---|---|
//! | `builder.rs` | [`QuicBuilder`], [`QuicTransport`] |
//! | `address.rs` | `quic://host:port`, and which addresses a listener advertises |
//! | `dial.rs` | dialling: name resolution, racing the answers, the dialling socket |
//! | `listen.rs` | the listener's task: admission, refusal, the end |
//! | `connection.rs` | a connection and its streams |
//! | `config.rs` | TLS and QUIC settings |
//! | `socket.rs` | a UDP socket that can be let go while connections still hold it |
//! | `state.rs` | what is kept between starts: key and port |
//! | `error.rs` | from quinn's errors to the contract's |
//!
//! Deliberately absent: 0-RTT (what it carries can be replayed), session resumption (a handshake
//! costs half a millisecond, and a fresh one gives a fresh channel binding), datagrams, client certificates.

mod address;
mod builder;
mod config;
mod connection;
mod dial;
mod error;
pub mod limits;
mod listen;
mod socket;
mod state;

pub use builder::{QuicBuilder, QuicTransport};
pub use config::{ALPN, Windows};
pub use state::STATE_KIND;

#[cfg(test)]
#[path = "../../vectors/golden.rs"]
mod golden;
#[cfg(test)]
mod vectors;
