//! Two real nodes with a bad link between them, on each transport: packets are lost, late, doubled and overtaken. Over
//! iroh everything vanishes in the middle of the first sync, too, and one way falls silent and then the other; over the
//! others who dials again would find the way around the proxy, so that these are shown in one process
//! (`examples/tests/behaviours/faults.rs`).
//!
//! `FAULTS_SEED` says which seed (default 1).

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use common::{DEADLINE, Machine, Up, equal, eventually};
use sync_core::{
    model::Ticket,
    testing::{
        proxy::{Faults, TcpProxy, UdpProxy, Way},
        random::Random,
        skipped,
    },
};
use tokio::runtime::Runtime;

/// What the machines have at first: some files, and a larger one.
const FILES: usize = 30;
const FILE_LEN: usize = 20_000;
const LARGE_LEN: usize = 1_500_000;

/// What is written later, each time on each side.
const LATER_LEN: usize = 30_000;

/// Bytes that cannot be made smaller.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.bits() as u8).collect()
}

fn faults() -> Faults {
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("FAULTS_SEED={seed} plays it again");
    let delay = Duration::from_millis(20);
    Faults { seed, delay, loss_percent: 5, duplicate_percent: 10, reorder_percent: 10, cut_after: None }
}

fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        skipped("this machine has no IPv6 loopback");
    }
    has
}

/// A machine with files, and its node. It has IPv6 alone and the other IPv4: iroh finds no way around the proxy.
fn first(scheme: &str, seed: u64) -> (Machine, Up, SocketAddr) {
    let a = Machine::new();
    for n in 0..FILES {
        a.save(&format!("{n}"), bytes(seed + 1 + n as u64, FILE_LEN));
    }
    a.save("large", bytes(seed, LARGE_LEN));
    let up = a.share(&["--listen", &format!("{scheme}://[::1]:0")]);
    let address = up.address(scheme);
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    (a, up, SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
}

/// The second machine joins by this address.
fn second(scheme: &str, up: &Up, address: &str) -> (Machine, Up) {
    let b = Machine::new();
    let mut ticket: Ticket = up.field("ticket").parse().unwrap();
    ticket.addresses = vec![address.parse().unwrap()];
    let up = b.join(&ticket.to_string(), &["--listen", &format!("{scheme}://127.0.0.1:0")]);
    (b, up)
}

/// Both nodes have found the link dead. Its deadlines are half a minute and less.
fn dead(machines: [&Machine; 2]) {
    for machine in machines {
        let used = || machine.json(["status"])["replicas"][0]["peers"][0]["transport"].clone();
        let is_none = || used().as_str().unwrap_or_default().is_empty();
        eventually("the link is found dead", is_none, || machine.done(["status"]));
    }
}

fn same_roots(a: &Machine, b: &Machine) {
    let roots = || (a.root(), b.root());
    eventually("the roots are equal", || roots().0 == roots().1, || format!("{:?}", roots()));
}

/// Each machine gets something new, which must pass.
fn save_more(machines: [&Machine; 2], name: &str, seed: u64) {
    for (n, machine) in machines.into_iter().enumerate() {
        machine.save(&format!("{}, {name}", ["a", "b"][n]), bytes(seed + n as u64, LATER_LEN));
    }
}

/// How much the files weigh. All of it has passed the proxy, or there was a way around it.
fn weight(machine: &Machine) -> u64 {
    machine.files().values().map(|content| content.len() as u64).sum()
}

/// Two machines become equal through a proxy, and again after each has written something.
fn converge_through<P>(
    scheme: &str,
    start: impl AsyncFnOnce(SocketAddr, Faults) -> P,
    seen: impl Fn(&P) -> (SocketAddr, u64),
) {
    if !has_ipv6() {
        return;
    }
    let (faults, runtime) = (faults(), Runtime::new().unwrap());
    let (a, up_a, target) = first(scheme, faults.seed);
    let proxy = runtime.block_on(start(target, faults));
    let (b, _up_b) = second(scheme, &up_a, &format!("{scheme}://{}", seen(&proxy).0));
    equal(&[&a, &b]);
    save_more([&a, &b], "later", 1_000);
    equal(&[&a, &b]);
    same_roots(&a, &b);
    assert_eq!(a.files().len(), FILES + 1 + 2);
    assert!(seen(&proxy).1 > weight(&a), "they found a way around the proxy");
}

#[test]
fn b24_two_nodes_over_quic_converge_over_a_link_that_loses_doubles_and_reorders() {
    converge_through(
        "quic",
        async |target, faults| UdpProxy::start_with(target, faults).await.unwrap(),
        |proxy| (proxy.address(), proxy.passed()),
    );
}

/// A stream stalls for what is lost.
#[test]
fn b24_two_nodes_over_http_converge_over_a_link_that_stalls() {
    converge_through(
        "http",
        async |target, faults| TcpProxy::start_with(target, faults).await.unwrap(),
        |proxy| (proxy.address(), proxy.passed()),
    );
}

#[test]
fn b24_two_nodes_over_iroh_converge_over_a_link_that_loses_doubles_reorders_and_falls_silent() {
    if !has_ipv6() {
        return;
    }
    let (faults, runtime) = (faults(), Runtime::new().unwrap());
    let mut random = Random::new(faults.seed);
    let (a, up_a, target) = first("iroh", faults.seed);
    let proxy = runtime.block_on(UdpProxy::start_with(target, faults)).unwrap();
    let address = up_a.address("iroh");
    let (id, _) = address.split_once('?').unwrap();
    proxy.freeze_at(300_000 + random.below(1_000_000) as u64);
    let (b, _up_b) = second("iroh", &up_a, &format!("{id}?ip={}", proxy.address()));
    runtime.block_on(async { tokio::time::timeout(DEADLINE, proxy.interrupted()).await }).expect("it is in the middle");
    dead([&a, &b]);
    assert_ne!(a.files(), b.files(), "it was not in the middle");
    proxy.thaw();
    equal(&[&a, &b]);
    let mut ways = [Way::There, Way::Back];
    random.shuffle(&mut ways);
    for (n, open) in ways.into_iter().enumerate() {
        proxy.half_open(open);
        save_more([&a, &b], &format!("{open:?}"), 1_000 + 2 * n as u64);
        dead([&a, &b]);
        let (deaf, who) = if open == Way::There { (&b, "a") } else { (&a, "b") };
        assert_eq!(deaf.read(&format!("{who}, {open:?}")), None, "nothing passes that way");
        proxy.thaw();
        equal(&[&a, &b]);
    }
    same_roots(&a, &b);
    assert_eq!(a.files().len(), FILES + 1 + 2 * ways.len());
    assert!(proxy.passed() > weight(&a), "they found a way around the proxy");
}
