//! The listener: a socket, and a task for each HTTP connection until it becomes a WebSocket or ends.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body, response::Response};
use hyper::{
    body::{Frame, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::limits::{ANSWER_STALL, MAX_HEAD_LEN, MAX_PER_ADDRESS, MAX_REQUESTING, REQUEST_DEADLINE, WATCH_TICK};

/// A running listener. Dropping it without [`Listener::stop`] leaves its end to the token.
#[derive(Debug)]
pub(crate) struct Listener {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    /// Serves `router` on `socket`, until stopped or until the parent of `stop` is cancelled.
    pub fn start(socket: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router, stop: CancellationToken) -> Self {
        let server = Server { router, tls: tls.map(TlsAcceptor::from), callers: Callers::default() };
        let task = tokio::spawn(serve(socket, Arc::new(server), stop.clone()));
        Self { stop, task }
    }

    /// Frees the port, and ends connections that have not become WebSockets.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the listener's task ended badly");
        }
    }
}

/// What the tasks of a listener share.
struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    callers: Callers,
}

async fn serve(socket: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_REQUESTING));
    let mut requesting = JoinSet::new();
    loop {
        // Without a place nobody is accepted: the kernel's queue holds them, and each place is free
        // again within a deadline.
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        while requesting.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                if let Some(caller) = server.callers.admit(address.ip()) {
                    requesting.spawn(converse(server.clone(), stream, Arc::new(caller), place));
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: others must close some first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(WATCH_TICK).await;
            }
        }
    }
}

/// One HTTP connection, to its end, its upgrade or its deadline.
async fn converse(server: Arc<Server>, stream: TcpStream, caller: Arc<Caller>, place: OwnedSemaphorePermit) {
    let activity = Arc::new(Activity::default());
    let conversation = async {
        stream.set_nodelay(true).ok();
        let stream = Counted { inner: stream, activity: activity.clone() };
        match &server.tls {
            None => answer(&server.router, stream, &activity, &caller).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => answer(&server.router, stream, &activity, &caller).await,
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            },
        }
    };
    tokio::select! {
        () = conversation => {}
        () = activity.overdue() => tracing::debug!("an HTTP connection was too slow"),
    }
    drop(place);
}

async fn answer<S>(router: &Router, stream: S, activity: &Arc<Activity>, caller: &Arc<Caller>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        // A WebSocket keeps it, so that one address cannot have them all.
        request.extensions_mut().insert(caller.clone());
        let request_in_work = InWork::begin(activity);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            answer.await.map(|response: Response| response.map(|body| Answered { body, _in_work: request_in_work }))
        }
    });
    let connection = http1::Builder::new()
        // Our own deadlines are stricter: see `limits::REQUEST_DEADLINE`.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_LEN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

/// One HTTP connection over any pipe, from this machine.
#[cfg(feature = "testing")]
pub(crate) async fn answer_pipe<S>(router: &Router, pipe: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let caller = Callers::default().admit(IpAddr::from([127, 0, 0, 1])).expect("it is the only one");
    answer(router, pipe, &Arc::default(), &Arc::new(caller)).await;
}

/// How many connections each address has.
#[derive(Debug, Default, Clone)]
struct Callers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, counted until dropped.
#[derive(Debug)]
pub(crate) struct Caller(Callers, IpAddr);

impl Callers {
    fn admit(&self, address: IpAddr) -> Option<Caller> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_PER_ADDRESS && !address.to_canonical().is_loopback() {
            return None;
        }
        *count += 1;
        Some(Caller(self.clone(), address))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// What happens on an HTTP connection.
#[derive(Debug, Default)]
struct Activity {
    in_work: AtomicUsize,
    answered: AtomicU64,
    written: AtomicU64,
}

impl Activity {
    /// Resolves when the next request, or the client's reading of an answer, takes too long.
    async fn overdue(&self) {
        let mut since = tokio::time::Instant::now();
        let mut seen = (0, 0, false);
        loop {
            tokio::time::sleep(WATCH_TICK).await;
            let in_work = self.in_work.load(Ordering::Acquire) > 0;
            // Bytes count only while a request is in work: what drips does not buy time.
            let written = if in_work { self.written.load(Ordering::Relaxed) } else { 0 };
            let now = (self.answered.load(Ordering::Acquire), written, in_work);
            if now != seen {
                (seen, since) = (now, tokio::time::Instant::now());
                continue;
            }
            if since.elapsed() >= if in_work { ANSWER_STALL } else { REQUEST_DEADLINE } {
                return;
            }
        }
    }
}

/// A request from its head to the end of its answer.
struct InWork(Arc<Activity>);

impl InWork {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.in_work.fetch_add(1, Ordering::AcqRel);
        Self(activity.clone())
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Ordering::AcqRel);
        self.0.answered.fetch_add(1, Ordering::AcqRel);
    }
}

/// An answer's body.
struct Answered {
    body: Body,
    _in_work: InWork,
}

impl hyper::body::Body for Answered {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that counts what is written to it.
struct Counted {
    inner: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = written {
            self.activity.written.fetch_add(len as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(len)) = written {
            self.activity.written.fetch_add(len as u64, Ordering::Relaxed);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Binds where it is told; with port 0 first where it listened last.
pub(crate) async fn bind(wanted: Option<SocketAddr>, remembered: Option<u16>) -> io::Result<TcpListener> {
    let Some(wanted) = wanted else {
        // A machine without IPv6 has no [::].
        return match bind_at(SocketAddr::from(([0u16; 8], 0)), remembered).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind_at(SocketAddr::from(([0u8; 4], 0)), remembered).await,
        };
    };
    bind_at(wanted, remembered).await
}

async fn bind_at(wanted: SocketAddr, remembered: Option<u16>) -> io::Result<TcpListener> {
    if let Some(port) = remembered.filter(|_| wanted.port() == 0) {
        match TcpListener::bind(SocketAddr::new(wanted.ip(), port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => tracing::warn!(%error, port, "the port of the last start is not free; choosing another"),
        }
    }
    TcpListener::bind(wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b35_one_address_cannot_take_all_places() {
        let callers = Callers::default();
        let (greedy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut kept: Vec<Caller> = (0..MAX_PER_ADDRESS).map(|_| callers.admit(greedy).unwrap()).collect();
        assert!(callers.admit(greedy).is_none());
        let _other = callers.admit(other).unwrap();
        kept.pop();
        assert!(callers.admit(greedy).is_some());
        kept.clear();
        assert_eq!(callers.0.lock().unwrap().len(), 1);
        // A reverse proxy on this machine brings everybody.
        for loopback in [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap(), "::ffff:127.0.0.1".parse().unwrap()] {
            kept.extend((0..2 * MAX_PER_ADDRESS).map(|_| callers.admit(loopback).unwrap()));
        }
    }
}
