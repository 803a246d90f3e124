//! Every limit of this transport, with its reason.

use std::time::Duration;

use sync_core::transport::DIAL_DEADLINE;

/// A dial gives up after this: one second before the contract's deadline, so that the answer is
/// there in time on a busy machine too.
pub const DIAL_TIMEOUT: Duration = DIAL_DEADLINE.saturating_sub(Duration::from_secs(1));

/// The TCP and TLS part of a dial gives up after this, so that the other addresses of a name get their turn.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// From the accepted connection to the first complete request, and from each answer to the next request. It
/// bounds what drips one byte a second; hyper's own timer starts too late for that (hyper#3962).
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// An answer of which the client takes nothing for this long is given up.
pub const ANSWER_STALL: Duration = Duration::from_secs(30);

/// How often a connection is looked at for the two deadlines above.
pub const WATCH_TICK: Duration = Duration::from_secs(1);

/// Plain HTTP connections at a time, before they become WebSockets. Each costs about 10 KiB.
pub const MAX_REQUESTING: usize = 512;

/// Connections from one address, before and after they become WebSockets, so that one host cannot take all.
/// Loopback is exempt: a reverse proxy on the machine brings everybody from there.
pub const MAX_PER_ADDRESS: usize = 128;

/// The head of a request. Ours have a few hundred bytes.
pub const MAX_HEAD_LEN: usize = 16 * 1024;

/// WebSockets at a time, unless the builder says otherwise. Each costs about 1 MiB of buffers at most.
pub const MAX_CONNECTIONS: usize = 256;

/// The longest WebSocket frame: two Noise messages with their lengths, which is what the layer above
/// writes at a time, rounded up.
pub const MAX_FRAME_LEN: usize = 144 * 1024;

/// The longest frame that is sent: half of what the layer above writes at a time, and less than what makes
/// the allocator ask the kernel for each (128 KiB).
pub const FRAME_LEN: usize = 72 * 1024;

/// What a WebSocket reads, and writes, at a time.
pub const SOCKET_BUFFER: usize = 64 * 1024;

/// A listener advertises at most this many addresses: what a peer may claim in its hello.
pub const MAX_ADVERTISED: usize = 8;

/// The longest bearer token that is looked at.
pub const MAX_TOKEN_LEN: usize = 1024;

/// Keys in an answer when the request does not say, and at most.
pub const DEFAULT_KEYS: usize = 100;
/// See [`DEFAULT_KEYS`].
pub const MAX_KEYS: usize = 1000;

/// What is read of a value at a time while it is sent.
pub const VALUE_CHUNK: usize = 64 * 1024;
