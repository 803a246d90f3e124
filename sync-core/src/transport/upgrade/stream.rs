//! One stream of yamux as a [`ByteStream`] of two halves.
//!
//! yamux 0.13 leaves three things to whoever uses it, and they are settled here:
//! - its stream wakes only the task that polled last, so both halves poll with a waker that wakes both;
//! - it reports a reset, and the end of the connection, as end of file;
//! - a stream that was finished and then dropped unread leaves the other end's writer waiting for ever, so it
//!   is read to its end first.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_util::{
    io::{AsyncRead as _, AsyncWrite as _},
    task::AtomicWaker,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, watch},
};

use super::connection::End;
use crate::transport::{ByteStream, StreamWrite};

/// Splits `stream` into a `ByteStream`.
pub(super) fn wrap(
    stream: yamux::Stream,
    end: watch::Receiver<Option<End>>,
    permit: Option<OwnedSemaphorePermit>,
) -> ByteStream {
    let wakers = Arc::new(Wakers::default());
    let waker = Waker::from(wakers.clone());
    let both = Arc::new(Both {
        stream: Mutex::new(stream),
        wakers,
        waker,
        end,
        ended: AtomicBool::new(false),
        finished: AtomicBool::new(false),
        finishing: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        runtime: Handle::current(),
        _permit: permit,
    });
    ByteStream { read: Box::new(ReadHalf(both.clone())), write: Box::new(WriteHalf(both)) }
}

struct Both {
    stream: Mutex<yamux::Stream>,
    wakers: Arc<Wakers>,
    waker: Waker,
    end: watch::Receiver<Option<End>>,
    /// The reader has seen the end of file.
    ended: AtomicBool,
    /// The writer has sent the end of file.
    finished: AtomicBool,
    /// A task was spawned that ends the stream on behalf of the dropped half. At most one of each: a
    /// runtime that shuts down drops the task at once, and its half must not spawn another.
    finishing: AtomicBool,
    draining: AtomicBool,
    runtime: Handle,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Wakes both halves.
#[derive(Default)]
struct Wakers {
    read: AtomicWaker,
    write: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.read.wake();
        self.write.wake();
    }
}

impl Both {
    fn stream(&self) -> MutexGuard<'_, yamux::Stream> {
        self.stream.lock().expect("nothing panics while it holds the stream")
    }

    /// What yamux's end of file is: the other end's, or a loss.
    fn end_of_file(&self, stream: &yamux::Stream) -> io::Result<()> {
        let connection_ended = self.end.borrow().is_some() || self.end.has_changed().is_err();
        if connection_ended {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection ended before the stream"));
        }
        // After both ends have finished yamux's stream is closed too, so a reset can be told only before.
        if stream.is_closed() && !self.finished.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other end dropped the stream unfinished"));
        }
        self.ended.store(true, Ordering::Release);
        Ok(())
    }
}

struct ReadHalf(Arc<Both>);

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let both = &*self.0;
        if both.ended.load(Ordering::Acquire) || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        both.wakers.read.register(cx.waker());
        let mut stream = both.stream();
        let read = Pin::new(&mut *stream).poll_read(&mut Context::from_waker(&both.waker), buf.initialize_unfilled());
        match ready!(read)? {
            0 => Poll::Ready(both.end_of_file(&stream)),
            len => {
                buf.advance(len);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        if self.0.finished.load(Ordering::Acquire) {
            drain(&self.0);
        }
    }
}

struct WriteHalf(Arc<Both>);

impl WriteHalf {
    fn poll(
        &self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut yamux::Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let both = &*self.0;
        both.wakers.write.register(cx.waker());
        act(Pin::new(&mut *both.stream()), &mut Context::from_waker(&both.waker))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx).map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.finished.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll(cx, |stream, cx| stream.poll_close(cx).map_ok(|()| 0)))?;
        self.0.finished.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl StreamWrite for WriteHalf {}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let alone = Arc::strong_count(&self.0) == 1;
        match self.0.finished.load(Ordering::Acquire) {
            true if alone => drain(&self.0),
            true => {}
            // yamux resets a stream that is dropped unfinished.
            false if alone => {}
            // The reader goes on; the other end learns that nothing more comes.
            false => {
                if !self.0.finishing.swap(true, Ordering::AcqRel) {
                    let mut write = Self(self.0.clone());
                    self.0.runtime.spawn(async move { write.shutdown().await.ok() });
                }
            }
        }
    }
}

/// Reads what nobody wants, so that the other end's writer is not left waiting.
fn drain(both: &Arc<Both>) {
    let over = both.ended.load(Ordering::Acquire) || both.end.borrow().is_some();
    if over || Arc::strong_count(both) > 1 || both.draining.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut read = ReadHalf(both.clone());
    both.runtime.spawn(async move {
        let mut unwanted = vec![0; 16 * 1024];
        while matches!(read.read(&mut unwanted).await, Ok(len) if len > 0) {}
    });
}
