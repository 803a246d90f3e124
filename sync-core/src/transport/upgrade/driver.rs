//! The one task of an upgraded connection: it moves bytes between the pipe, yamux and the streams.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::PollSender;

use super::{
    EXTRA_WINDOW, FAREWELL_DEADLINE, MAX_STREAMS, MAX_WAITING_STREAMS, Role, SILENT_TICKS, TICK,
    connection::End,
    noise::{Data, NoisePipe},
};
use crate::transport::CloseReason;

/// What the handle asks for. There are never more than the permits for open streams, and one close.
pub(super) enum Command {
    Open(oneshot::Sender<yamux::Stream>),
    Close(CloseReason),
}

pub(super) struct Driver<P> {
    yamux: yamux::Connection<Data<P>>,
    pipe: Arc<NoisePipe<P>>,
    commands: mpsc::UnboundedReceiver<Command>,
    accepted: PollSender<yamux::Stream>,
    ticks: Interval,
    silent_ticks: u32,
    end: watch::Sender<Option<End>>,
}

/// The handle's ends of a driver's channels.
pub(super) struct Ends {
    pub commands: mpsc::UnboundedSender<Command>,
    pub accepted: mpsc::Receiver<yamux::Stream>,
    pub end: watch::Receiver<Option<End>>,
}

impl<P: AsyncRead + AsyncWrite + Unpin> Driver<P> {
    pub fn new(pipe: Arc<NoisePipe<P>>, role: Role) -> (Self, Ends) {
        let mode = match role {
            Role::Dialer => yamux::Mode::Client,
            Role::Listener => yamux::Mode::Server,
        };
        let (commands_sender, commands) = mpsc::unbounded_channel();
        let (accepted_sender, accepted) = mpsc::channel(MAX_WAITING_STREAMS);
        let (end, end_receiver) = watch::channel(None);
        let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let driver = Self {
            yamux: yamux::Connection::new(Data(pipe.clone()), config(), mode),
            pipe,
            commands,
            accepted: PollSender::new(accepted_sender),
            ticks,
            silent_ticks: 0,
            end,
        };
        (driver, Ends { commands: commands_sender, accepted, end: end_receiver })
    }

    /// Drives the connection to its end.
    pub async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        // The end is known before the streams learn of it, so that none takes it for its own end of file.
        self.end.send_replace(Some(end.clone()));
        drop(self.yamux);
        if let End::Here(reason) = end {
            let mut reason = Some(reason);
            let farewell = poll_fn(|cx| self.pipe.poll_farewell(cx, &mut reason));
            // It is a courtesy: a pipe that takes no more is dropped all the same.
            if !matches!(tokio::time::timeout(FAREWELL_DEADLINE, farewell).await, Ok(Ok(()))) {
                tracing::debug!("the other end was not told that the connection is closed");
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Poll::Ready(end) = self.poll_commands(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = self.poll_streams(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = self.poll_ticks(cx) {
                return Poll::Ready(end);
            }
            match self.pipe.poll_drain(cx) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(Ok(false)) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(self.lost(error.to_string())),
            }
        }
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            match command {
                None => return Poll::Ready(End::Here(CloseReason::Done)),
                Some(Command::Close(reason)) => return Poll::Ready(End::Here(reason)),
                Some(Command::Open(reply)) => match self.yamux.poll_new_outbound(cx) {
                    // Nobody waits any more: the stream was never seen by the other end.
                    Poll::Ready(Ok(stream)) => drop(reply.send(stream)),
                    Poll::Ready(Err(error)) => return Poll::Ready(self.lost(error.to_string())),
                    Poll::Pending => {
                        unreachable!("there are fewer permits than yamux lets wait for an acknowledgement")
                    }
                },
            }
        }
        Poll::Pending
    }

    /// Lets yamux read and write, as long as there is room for a stream that it may bring.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let Poll::Ready(reserved) = self.accepted.poll_reserve(cx) {
            if reserved.is_err() {
                return Poll::Ready(End::Here(CloseReason::Done));
            }
            match self.yamux.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    if self.accepted.send_item(stream).is_err() {
                        return Poll::Ready(End::Here(CloseReason::Done));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.lost(error.to_string())),
                Poll::Ready(None) => return Poll::Ready(self.lost("the pipe ended".into())),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn poll_ticks(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.ticks.poll_tick(cx).is_ready() {
            match self.pipe.take_heard() {
                true => self.silent_ticks = 0,
                false => self.silent_ticks += 1,
            }
            if self.silent_ticks >= SILENT_TICKS {
                return Poll::Ready(End::Silent(TICK * SILENT_TICKS));
            }
            if !self.pipe.take_spoke()
                && let Err(error) = self.pipe.keep_alive()
            {
                return Poll::Ready(self.lost(error.to_string()));
            }
        }
        Poll::Pending
    }

    /// What the end of the pipe means: a farewell, or a loss.
    fn lost(&self, cause: String) -> End {
        match self.pipe.farewell() {
            Some(reason) => End::There(reason),
            None => End::Lost(cause),
        }
    }
}

/// The window's setters assert against each other: the number of streams goes first.
fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_STREAMS * yamux::DEFAULT_CREDIT as usize + EXTRA_WINDOW));
    config
}

const _: () = assert!(Duration::as_secs(&TICK) * (SILENT_TICKS as u64) < crate::transport::IDLE_DEADLINE.as_secs());
