//! Every limit of this transport, with its reason.

use std::time::Duration;

use sync_core::transport::{DIAL_DEADLINE, IDLE_DEADLINE};

/// A dial gives up after this: one second before the contract's deadline, so that the answer is
/// there in time on a busy machine too.
pub const DIAL_TIMEOUT: Duration = DIAL_DEADLINE.saturating_sub(Duration::from_secs(1));

/// How long `listen` waits for the endpoint to know its addresses. Without a relay it takes milliseconds;
/// with one that cannot be reached it would take for ever.
pub const ADDRESS_WAIT: Duration = Duration::from_secs(3);

/// A listener tells at most this many IP addresses, and of an address to be dialled at most this many are tried.
pub const MAX_IP_ADDRESSES: usize = 8;

/// Of an address to be dialled at most this many relays are tried; a node has one home relay.
pub const MAX_RELAYS: usize = 2;

/// A connection ends when nothing arrived for this long. The count begins anew with the first thing sent after the
/// last arrival (RFC 9000, section 10.1), and that is iroh's keep-alive after 5 s at the latest; together they keep the
/// contract's deadline. (A mounted endpoint has the application's timeout.)
pub const IDLE_TIMEOUT: Duration = IDLE_DEADLINE.saturating_sub(Duration::from_secs(5));

/// Streams that the other end may have open at a time: ten replicas with a session and blobs
/// each fit many times over.
pub const MAX_STREAMS: u32 = 256;

/// Bytes that the other end may send ahead on one stream: 60 MB/s at 20 ms. noq ends a connection when more than 1,024
/// pieces of a stream lie apart, and begins to count at 2,048 that were not read: with 4 MiB connections on loopback ended
/// again and again. This is its own default.
pub const STREAM_WINDOW: u32 = 1_250_000;

/// Bytes that the other end may send ahead on all streams of a connection: sixteen unread streams.
pub const CONNECTION_WINDOW: u32 = 32 << 20;

/// Connections that may be open before new ones are refused. Each costs some tens of KiB when idle.
pub const MAX_CONNECTIONS: usize = 1024;

/// TLS handshakes that may be under way at a time. Beyond it new ones are refused.
pub const MAX_HANDSHAKES: usize = 128;

/// From this many handshakes under way on, whoever comes must first show that it receives at its
/// address (RFC 9000, section 8.1.2), so that spoofed packets cost us next to nothing.
pub const VALIDATE_FROM: usize = 32;

/// A handshake that was accepted takes no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of an endpoint may take: iroh needs 3 s when the other ends are gone.
pub const CLOSE_GRACE: Duration = Duration::from_secs(4);

/// How long a port that is taken is tried again. iroh's last tasks let go of a socket some milliseconds after its
/// endpoint was closed, and whoever closed it may want the same port again at once.
pub const BIND_PATIENCE: Duration = Duration::from_millis(300);

/// How often within [`BIND_PATIENCE`].
pub const BIND_RETRY: Duration = Duration::from_millis(20);
