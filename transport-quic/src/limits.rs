//! Every limit of this transport, with its reason.

use std::time::Duration;

use sync_core::transport::{DIAL_DEADLINE, IDLE_DEADLINE};

/// A dial gives up after this: one second before the contract's deadline, so that the answer is
/// there in time on a busy machine too.
pub const DIAL_TIMEOUT: Duration = DIAL_DEADLINE.saturating_sub(Duration::from_secs(1));

/// The next of several addresses of one host name is tried after this (RFC 8305 recommends 250 ms).
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);

/// At most this many addresses of one host name are tried.
pub const MAX_RESOLVED: usize = 8;

/// A listener advertises at most this many addresses: what a peer may claim in its hello.
pub const MAX_ADVERTISED: usize = 8;

/// Silence is broken after this, so that six keep-alives fit the idle deadline and NAT mappings stay.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A connection ends when nothing arrived for this long. The count begins anew with the first thing sent after the
/// last arrival (RFC 9000, section 10.1), and that is a keep-alive at the latest; together they keep the contract's deadline.
pub const IDLE_TIMEOUT: Duration = IDLE_DEADLINE.saturating_sub(KEEP_ALIVE);

/// How many bytes may be on their way before the first is acknowledged: 32 packets of 1,452 bytes, as large senders of
/// the web do. RFC 9002 has 10 packets, quinn 12,000 bytes; a difference of a hundred entries is 23 KB, and waits for a
/// round trip of acknowledgements then, or for the 25 ms that a receiver may take to acknowledge a last packet.
pub const INITIAL_WINDOW: u64 = 32 * 1_452;

/// Streams that the other end may have open at a time: ten replicas with a session and blobs
/// each fit many times over. No one-way streams, no datagrams.
pub const MAX_STREAMS: u32 = 256;

/// Accepted connections that may be open at a time, unless the builder says otherwise. Each
/// costs some tens of KiB when idle.
pub const MAX_CONNECTIONS: usize = 1024;

/// TLS handshakes that may be under way at a time. Beyond it new ones are refused.
pub const MAX_HANDSHAKES: usize = 128;

/// From this many handshakes under way on, whoever comes must first show that it receives at its
/// address (RFC 9000, section 8.1.2), so that spoofed packets cost us next to nothing.
pub const VALIDATE_FROM: usize = 32;

/// A handshake that was accepted takes no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// First packets that may wait in quinn's queue to be admitted, and the bytes kept for each of them and for all.
pub const MAX_QUEUED: usize = 256;
/// See [`MAX_QUEUED`].
pub const MAX_QUEUED_BYTES: u64 = 64 << 10;
/// See [`MAX_QUEUED`].
pub const MAX_QUEUED_BYTES_TOTAL: u64 = 4 << 20;

/// How long `stop_listening` waits for connections that are just ending before it leaves the rest to go on.
pub const STOP_GRACE: Duration = Duration::from_millis(500);

/// How long `close` stays to tell the other ends. Each is told at once; the rest of the time is for those that
/// did not hear it and send again. A dial under way to a dead address would take 3 s.
pub const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// The socket buffers that are asked for, in bytes; the kernel may give less. QUIC arrives in bursts
/// of 64 KiB, and what finds no place is sent again.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// The largest datagram that path MTU discovery tries. On loopback and on networks with jumbo frames it
/// doubles the throughput; elsewhere discovery settles at what the path takes, some 1,450 bytes. quinn hands
/// the kernel ten at a time, which together must stay below 64 KiB.
pub const MAX_DATAGRAM: u16 = 6400;
