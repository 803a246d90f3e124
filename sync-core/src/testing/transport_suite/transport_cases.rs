//! The cases of [`SyncTransport`](crate::transport::SyncTransport).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Broken, Pair, TransportFactory, broken, dial, ensure, ensure_kind, first, listen, next, soon, stream, within,
};
use crate::{
    address::PeerAddress,
    transport::{DIAL_DEADLINE, Incoming, TransportErrorKind},
};

pub async fn dial_reaches_a_listener(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let pair = Pair::connect(factory).await?;
    let (mut ours, mut theirs) = pair.stream().await?;
    soon("writing", ours.write_all(b"hello")).await?.map_err(|error| broken("writing", error))?;
    let mut heard = [0; 5];
    soon("reading", theirs.read_exact(&mut heard)).await?.map_err(|error| broken("reading", error))?;
    ensure(&heard == b"hello", || format!("the listener heard {heard:?}"))?;
    drop(pair.accepted);
    Ok(())
}

pub async fn port_zero_reports_the_real_port(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (listening, dialing) = (factory.transport().await, factory.transport().await);
    let (addresses, mut accepted) = listen(&listening).await?;
    for address in &addresses {
        ensure(address.url().port() != Some(0), || format!("{address} has port 0"))?;
        let schemes = listening.schemes();
        ensure(schemes.contains(&address.scheme()), || format!("{address} is of none of the schemes {schemes:?}"))?;
    }
    let here = dial(&dialing, first(&addresses)?).await?;
    let there = next(&mut accepted).await?;
    stream(&*here, &*there).await.map(|_| ())
}

pub async fn listen_twice_is_an_error_that_changes_nothing(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (listening, dialing) = (factory.transport().await, factory.transport().await);
    let (addresses, mut accepted) = listen(&listening).await?;
    let (second, mut to_second) = Incoming::channel();
    let outcome = soon("the second listen", listening.listen(second)).await?;
    ensure_kind("listening twice", outcome, TransportErrorKind::AlreadyListening)?;
    let here = dial(&dialing, first(&addresses)?).await?;
    let there = next(&mut accepted).await?;
    ensure(to_second.try_recv().is_err(), || "the refused listener got the connection".into())?;
    stream(&*here, &*there).await.map(|_| ())
}

pub async fn stop_when_stopped_is_an_error_that_changes_nothing(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (listening, dialing) = (factory.transport().await, factory.transport().await);
    let stopped = soon("stop_listening", listening.stop_listening()).await?;
    ensure_kind("stopping before listening", stopped, TransportErrorKind::NotListening)?;
    let (addresses, mut accepted) = listen(&listening).await?;
    let here = dial(&dialing, first(&addresses)?).await?;
    let there = next(&mut accepted).await?;
    soon("stop_listening", listening.stop_listening()).await?.map_err(|error| broken("stop_listening", error))?;
    let stopped = soon("stop_listening", listening.stop_listening()).await?;
    ensure_kind("stopping twice", stopped, TransportErrorKind::NotListening)?;
    // Connections go on when the listener stops.
    stream(&*here, &*there).await?;
    stream(&*there, &*here).await.map(|_| ())
}

pub async fn stop_frees_the_port(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (listening, dialing) = (factory.transport().await, factory.transport().await);
    let (before, accepted) = listen(&listening).await?;
    soon("stop_listening", listening.stop_listening()).await?.map_err(|error| broken("stop_listening", error))?;
    drop(accepted);
    let refused = within(DIAL_DEADLINE + Duration::from_secs(10), "dialling", dialing.dial(first(&before)?)).await?;
    ensure(refused.is_err(), || "the address could be dialled after stop_listening".into())?;
    let (after, mut accepted) = listen(&listening).await?;
    ensure(before == after, || format!("it listened at {before:?} before and listens at {after:?} now"))?;
    let here = dial(&dialing, first(&after)?).await?;
    let there = next(&mut accepted).await?;
    stream(&*here, &*there).await.map(|_| ())
}

pub async fn dial_fails_within_the_deadline(factory: &dyn TransportFactory) -> Result<(), Broken> {
    use TransportErrorKind::{ConnectionLost, Protocol, Refused, TimedOut, Unreachable};
    let dialing = factory.transport().await;
    for (address, kept) in factory.dead_addresses().await {
        let time = DIAL_DEADLINE + Duration::from_secs(10);
        let outcome = within(time, &format!("dialling {address}"), dialing.dial(&address)).await?;
        let Err(error) = outcome else { return Err(Broken(format!("dialling {address} succeeded"))) };
        ensure(matches!(error.kind, Unreachable | Refused | TimedOut | ConnectionLost | Protocol), || {
            format!("dialling {address} gave `{error}`, of a kind that does not say that nobody is there")
        })?;
        ensure(error.is_temporary(), || format!("`{error}` says that trying again is of no use"))?;
        drop(kept);
    }
    Ok(())
}

pub async fn a_cancelled_dial_leaves_no_connection(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let (listening, dialing) = (factory.transport().await, factory.transport().await);
    let (addresses, mut accepted) = listen(&listening).await?;
    let address = first(&addresses)?;
    // From before the first packet to after the last one.
    for microseconds in [0, 100, 300, 1_000, 3_000, 10_000] {
        let outcome = tokio::time::timeout(Duration::from_micros(microseconds), dialing.dial(address)).await;
        drop(outcome);
    }
    let here = dial(&dialing, address).await?;
    // One of what was accepted is that of the whole dial; the others end.
    let mut whole = None;
    while whole.is_none() {
        let there = next(&mut accepted).await?;
        match there.channel_binding() == here.channel_binding() {
            true => whole = Some(there),
            false => soon("the end of a connection whose dial was cancelled", there.closed()).await.map(|_| ())?,
        }
    }
    drop(here);
    Ok(())
}

pub async fn a_foreign_scheme_is_refused(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let dialing = factory.transport().await;
    let foreign: PeerAddress = "carrier-pigeon://loft/7".parse().expect("this is a URL");
    let outcome = soon("dialling a foreign scheme", dialing.dial(&foreign)).await?;
    ensure_kind("dialling a foreign scheme", outcome, TransportErrorKind::UnsupportedAddress)
}

pub async fn close_ends_everything(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let Pair { dialing, listening, addresses, here, there, .. } = Pair::connect(factory).await?;
    soon("close", listening.close()).await?;
    soon("the end of the connection at the closed end", there.closed()).await?;
    soon("the end of the connection at the other end", here.closed()).await?;
    let address = first(&addresses)?;
    ensure_kind("dial after close", listening.dial(address).await, TransportErrorKind::Closed)?;
    ensure_kind("listen after close", listening.listen(Incoming::channel().0).await, TransportErrorKind::Closed)?;
    ensure_kind("stop after close", listening.stop_listening().await, TransportErrorKind::Closed)?;
    soon("the second close", listening.close()).await?;
    let refused = within(DIAL_DEADLINE + Duration::from_secs(10), "dialling", dialing.dial(address)).await?;
    ensure(refused.is_err(), || "the address could be dialled after close".into())
}

pub async fn dropping_closes(factory: &dyn TransportFactory) -> Result<(), Broken> {
    let Pair { dialing, listening, addresses, here, there, .. } = Pair::connect(factory).await?;
    drop(listening);
    soon("the end of the connection at the dropped end", there.closed()).await?;
    soon("the end of the connection at the other end", here.closed()).await?;
    let refused = within(DIAL_DEADLINE + Duration::from_secs(10), "dialling", dialing.dial(first(&addresses)?)).await?;
    ensure(refused.is_err(), || "the address could be dialled after the transport was dropped".into())
}
