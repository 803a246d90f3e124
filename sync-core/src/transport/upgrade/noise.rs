//! The encrypted pipe: bytes in, Noise messages behind their lengths out, and back.
//!
//! yamux flushes after every frame, which would make a message, and a system call, of each. So its
//! flush does nothing here; the driver calls [`NoisePipe::poll_drain`] when yamux has nothing more to do,
//! and many frames share a message of up to 64 KiB.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::CloseReason;

/// The longest Noise message.
const MAX_MESSAGE_LEN: usize = 65_535;
/// The authentication tag of each message.
const TAG_LEN: usize = 16;
/// The longest plaintext, its kind included.
const MAX_PLAIN_LEN: usize = MAX_MESSAGE_LEN - TAG_LEN;
/// The length before each message.
const PREFIX_LEN: usize = 2;

/// What a message is: the first byte of its plaintext. Others are skipped, for later versions.
mod kind {
    pub const DATA: u8 = 0;
    pub const KEEP_ALIVE: u8 = 1;
    pub const FAREWELL: u8 = 2;
}

/// The encrypted pipe. yamux has one reference, the driver the other; both are in the same task,
/// so that the lock is never contended.
pub(super) struct NoisePipe<P>(Mutex<Inner<P>>);

struct Inner<P> {
    pipe: P,
    noise: snow::TransportState,
    out: Outgoing,
    incoming: Incoming,
}

struct Outgoing {
    /// The message being filled: its kind, then data.
    plain: Box<[u8]>,
    plain_len: usize,
    /// Sealed messages that the pipe has not yet taken: two fit.
    sealed: Box<[u8]>,
    sealed_start: usize,
    sealed_end: usize,
    /// The pipe took bytes that it was not yet told to flush.
    unflushed: bool,
    /// yamux had to wait for room.
    blocked: bool,
    /// Something was sent since the last look.
    spoke: bool,
}

struct Incoming {
    /// What came from the pipe and is not yet opened.
    sealed: Box<[u8]>,
    sealed_start: usize,
    sealed_end: usize,
    /// The plaintext of the current message.
    plain: Box<[u8]>,
    plain_start: usize,
    plain_end: usize,
    /// Something was received since the last look.
    heard: bool,
    /// The other end said why it closes.
    farewell: Option<CloseReason>,
}

fn buffer(len: usize) -> Box<[u8]> {
    vec![0; len].into_boxed_slice()
}

impl<P> NoisePipe<P> {
    pub fn new(pipe: P, noise: snow::TransportState) -> Self {
        let two_messages = 2 * (PREFIX_LEN + MAX_MESSAGE_LEN);
        let out = Outgoing {
            plain: buffer(MAX_PLAIN_LEN),
            plain_len: 1,
            sealed: buffer(two_messages),
            sealed_start: 0,
            sealed_end: 0,
            unflushed: false,
            blocked: false,
            spoke: false,
        };
        let incoming = Incoming {
            sealed: buffer(two_messages),
            sealed_start: 0,
            sealed_end: 0,
            plain: buffer(MAX_MESSAGE_LEN),
            plain_start: 0,
            plain_end: 0,
            heard: false,
            farewell: None,
        };
        Self(Mutex::new(Inner { pipe, noise, out, incoming }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<P>> {
        self.0.lock().expect("nothing panics while it holds the pipe")
    }

    /// Whether anything came since the last call.
    pub fn take_heard(&self) -> bool {
        std::mem::take(&mut self.inner().incoming.heard)
    }

    /// Whether anything was sent since the last call.
    pub fn take_spoke(&self) -> bool {
        std::mem::take(&mut self.inner().out.spoke)
    }

    /// Why the other end closed, if it said so.
    pub fn farewell(&self) -> Option<CloseReason> {
        self.inner().incoming.farewell
    }
}

impl<P: AsyncRead + AsyncWrite + Unpin> NoisePipe<P> {
    /// Gives all that was written to the pipe, and flushes it. True when yamux waited for room
    /// and has it now.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.inner().poll_drain(cx)
    }

    /// Puts a keep-alive in the way of the data. Nothing happens when data waits anyway.
    pub fn keep_alive(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.out.plain_len > 1 || !inner.out.has_room() {
            return Ok(());
        }
        inner.seal(kind::KEEP_ALIVE, &[])
    }

    /// Tells the other end why the connection ends, after all that was written, and ends the pipe.
    pub fn poll_farewell(&self, cx: &mut Context<'_>, reason: &mut Option<CloseReason>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if let Some(why) = *reason {
            ready!(inner.poll_room(cx))?;
            inner.seal_data()?;
            ready!(inner.poll_room(cx))?;
            inner.seal(kind::FAREWELL, &(why as u32).to_be_bytes())?;
            *reason = None;
        }
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.pipe).poll_shutdown(cx)
    }
}

impl Outgoing {
    /// Whether one more message of any length fits.
    fn has_room(&self) -> bool {
        self.sealed.len() - self.sealed_end >= PREFIX_LEN + MAX_MESSAGE_LEN
    }
}

impl<P: AsyncRead + AsyncWrite + Unpin> Inner<P> {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.plain_len == MAX_PLAIN_LEN {
            if self.poll_room(cx)?.is_pending() {
                self.out.blocked = true;
                return Poll::Pending;
            }
            self.seal_data()?;
        }
        let out = &mut self.out;
        let len = bytes.len().min(MAX_PLAIN_LEN - out.plain_len);
        out.plain[out.plain_len..out.plain_len + len].copy_from_slice(&bytes[..len]);
        out.plain_len += len;
        Poll::Ready(Ok(len))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.out.plain_len > 1 && self.out.has_room() {
                self.seal_data()?;
            }
            if self.out.sealed_start < self.out.sealed_end {
                ready!(self.poll_send(cx))?;
            } else if self.out.plain_len == 1 {
                break;
            }
        }
        if self.out.unflushed {
            ready!(Pin::new(&mut self.pipe).poll_flush(cx))?;
            self.out.unflushed = false;
        }
        Poll::Ready(Ok(std::mem::take(&mut self.out.blocked)))
    }

    /// Waits until one more message fits.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.has_room() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives sealed bytes to the pipe, until it has all.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = &mut self.out;
        while out.sealed_start < out.sealed_end {
            let sealed = &out.sealed[out.sealed_start..out.sealed_end];
            match ready!(Pin::new(&mut self.pipe).poll_write(cx, sealed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => out.sealed_start += len,
            }
            out.unflushed = true;
            out.spoke = true;
        }
        (out.sealed_start, out.sealed_end) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Seals what was written since the last message, if anything was. There must be room.
    fn seal_data(&mut self) -> io::Result<()> {
        if self.out.plain_len == 1 {
            return Ok(());
        }
        let Outgoing { plain, plain_len, sealed, sealed_end, .. } = &mut self.out;
        plain[0] = kind::DATA;
        *sealed_end = seal(&mut self.noise, &plain[..*plain_len], sealed, *sealed_end)?;
        *plain_len = 1;
        Ok(())
    }

    /// Seals a message that is not data. There must be room.
    fn seal(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut plain = Vec::with_capacity(1 + body.len());
        plain.push(kind);
        plain.extend_from_slice(body);
        self.out.sealed_end = seal(&mut self.noise, &plain, &mut self.out.sealed, self.out.sealed_end)?;
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let from = &mut self.incoming;
            if from.plain_start < from.plain_end {
                let len = bytes.len().min(from.plain_end - from.plain_start);
                bytes[..len].copy_from_slice(&from.plain[from.plain_start..from.plain_start + len]);
                from.plain_start += len;
                return Poll::Ready(Ok(len));
            }
            if !self.open_message()? && ready!(self.poll_receive(cx))? == 0 {
                return match self.incoming.sealed_start == self.incoming.sealed_end {
                    true => Poll::Ready(Ok(0)),
                    false => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }

    /// Reads from the pipe behind what is there already.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let from = &mut self.incoming;
        if from.sealed.len() - from.sealed_start < PREFIX_LEN + MAX_MESSAGE_LEN || from.sealed_start == from.sealed_end
        {
            from.sealed.copy_within(from.sealed_start..from.sealed_end, 0);
            from.sealed_end -= from.sealed_start;
            from.sealed_start = 0;
        }
        let mut room = ReadBuf::new(&mut from.sealed[from.sealed_end..]);
        ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut room))?;
        let len = room.filled().len();
        from.sealed_end += len;
        from.heard |= len > 0;
        Poll::Ready(Ok(len))
    }

    /// Opens the next message, if all of it is here.
    fn open_message(&mut self) -> io::Result<bool> {
        let from = &mut self.incoming;
        let Some((prefix, rest)) = from.sealed[from.sealed_start..from.sealed_end].split_first_chunk::<PREFIX_LEN>()
        else {
            return Ok(false);
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len <= TAG_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a Noise message of {len} bytes")));
        }
        let Some(message) = rest.get(..len) else { return Ok(false) };
        let plain_len = self.noise.read_message(message, &mut from.plain).map_err(unsealed)?;
        from.sealed_start += PREFIX_LEN + len;
        match from.plain[0] {
            kind::DATA => (from.plain_start, from.plain_end) = (1, plain_len),
            kind::FAREWELL => {
                from.farewell = Some(farewell(&from.plain[1..plain_len]));
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Seals `plain` behind its length at `at` in `sealed`; gives the place behind it.
fn seal(noise: &mut snow::TransportState, plain: &[u8], sealed: &mut [u8], at: usize) -> io::Result<usize> {
    let body = at + PREFIX_LEN;
    let len = noise.write_message(plain, &mut sealed[body..]).map_err(unsealed)?;
    let prefix = u16::try_from(len).expect("a Noise message has at most 65,535 bytes").to_be_bytes();
    sealed[at..body].copy_from_slice(&prefix);
    Ok(body + len)
}

fn farewell(body: &[u8]) -> CloseReason {
    let known = [CloseReason::Done, CloseReason::Protocol, CloseReason::Duplicate, CloseReason::Refused];
    known.into_iter().find(|reason| (*reason as u32).to_be_bytes() == body).unwrap_or(CloseReason::Done)
}

fn unsealed(error: snow::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a Noise message is not authentic: {error}"))
}

/// What yamux reads and writes.
pub(super) struct Data<P>(pub Arc<NoisePipe<P>>);

impl<P: AsyncRead + AsyncWrite + Unpin> futures_util::io::AsyncRead for Data<P> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.inner().poll_read(cx, bytes)
    }
}

impl<P: AsyncRead + AsyncWrite + Unpin> futures_util::io::AsyncWrite for Data<P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.inner().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
