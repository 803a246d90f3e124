//! Real nodes in network namespaces of their own, on a cable that can be pulled out and made narrow.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::process::Command;

use common::{Machine, equal, eventually};
use sync_core::testing::skipped;

/// Two namespaces and the cable between them, gone when dropped.
struct Cable {
    names: [String; 2],
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Cable {
    const ADDRESSES: [&'static str; 2] = ["10.213.7.1", "10.213.7.2"];

    /// None, with a word about it, where this is not permitted.
    fn new(test: &str) -> Option<Self> {
        let names = ["a", "b"].map(|end| format!("syncline-{test}-{}-{end}", std::process::id()));
        let cable = Self { names };
        // An interface's name has at most 15 bytes.
        let [near, far] = ["a", "b"].map(|end| format!("sl{}{end}", std::process::id() % 1_000_000));
        let [a, b] = &cable.names;
        let made = ip(&["netns", "add", a])
            && ip(&["netns", "add", b])
            && ip(&["link", "add", &near, "netns", a, "type", "veth", "peer", "name", &far, "netns", b])
            && [(a, &near, 0), (b, &far, 1)].into_iter().all(|(name, link, end)| {
                let address = format!("{}/24", Self::ADDRESSES[end]);
                ip(&["-n", name, "link", "set", link, "name", "cable"])
                    && ip(&["-n", name, "address", "add", &address, "dev", "cable"])
                    && ip(&["-n", name, "link", "set", "lo", "up"])
                    && ip(&["-n", name, "link", "set", "cable", "up"])
            });
        if !made {
            skipped("network namespaces with a cable between them cannot be made here");
        }
        made.then_some(cable)
    }

    fn machine(&self, end: usize) -> Machine {
        let wrapper = ["ip", "netns", "exec", self.names[end].as_str()].map(String::from).into();
        Machine { wrapper, ..Machine::new() }
    }

    fn set(&self, end: usize, what: &[&str]) {
        assert!(ip(&[&["-n", &self.names[end], "link", "set", "cable"], what].concat()), "{what:?}");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "delete", name]);
        }
    }
}

fn listens(end: usize, schemes: &[&str]) -> Vec<String> {
    let address = Cable::ADDRESSES[end];
    schemes.iter().flat_map(|scheme| ["--listen".into(), format!("{scheme}://{address}:0")]).collect()
}

fn share(machine: &Machine, end: usize, schemes: &[&str]) -> common::Up {
    let listens = listens(end, schemes);
    machine.share(&listens.iter().map(String::as_str).collect::<Vec<_>>())
}

fn join(machine: &Machine, end: usize, schemes: &[&str], ticket: &str) -> common::Up {
    let listens = listens(end, schemes);
    machine.join(ticket, &listens.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The cable is pulled out at the other machine's end, so that neither side is told; and put in again.
fn pulled_out(test: &str, schemes: &[&str]) {
    let Some(cable) = Cable::new(test) else { return };
    let (a, b) = (cable.machine(0), cable.machine(1));
    a.save("first", "1");
    let up_a = share(&a, 0, schemes);
    let _up_b = join(&b, 1, schemes, &up_a.field("ticket"));
    equal(&[&a, &b]);
    cable.set(1, &["down"]);
    a.save("while it was out, by a", vec![1; 100_000]);
    b.save("while it was out, by b", "b");
    let is_noticed = || a.json(["status"])["replicas"][0]["peers"][0]["synced"] == false;
    eventually("a notices that it is owed something", is_noticed, || a.done(["status"]));
    cable.set(1, &["up"]);
    equal(&[&a, &b]);
}

#[test]
fn b24_a_cable_that_was_pulled_out_and_put_in_again_is_a_pause_over_quic() {
    pulled_out("q", &["quic"]);
}

#[test]
fn b24_a_cable_that_was_pulled_out_and_put_in_again_is_a_pause_over_iroh() {
    pulled_out("i", &["iroh"]);
}

#[test]
fn b24_a_cable_that_was_pulled_out_and_put_in_again_is_a_pause_over_http() {
    pulled_out("h", &["http"]);
}

/// 1,280 bytes is what every network carries; QUIC needs 1,228 of them.
#[test]
fn b24_over_a_narrow_cable_everything_passes_on_each_transport() {
    for (test, scheme) in [("nq", "quic"), ("ni", "iroh"), ("nh", "http")] {
        let Some(cable) = Cable::new(test) else { return };
        for end in [0, 1] {
            cable.set(end, &["mtu", "1280"]);
        }
        let (a, b) = (cable.machine(0), cable.machine(1));
        a.save("large", vec![7; 300_000]);
        let up_a = share(&a, 0, &[scheme]);
        let _up_b = join(&b, 1, &[scheme], &up_a.field("ticket"));
        equal(&[&a, &b]);
    }
}

/// The story: the path becomes too narrow for QUIC in the middle. What cannot pass is noticed, and HTTP carries on.
#[test]
fn b12_a_cable_that_becomes_too_narrow_for_quic_leaves_http() {
    let Some(cable) = Cable::new("f") else { return };
    let (a, b) = (cable.machine(0), cable.machine(1));
    a.save("first", "1");
    let both = ["quic", "http"];
    let up_a = share(&a, 0, &both);
    let _up_b = join(&b, 1, &both, &up_a.field("ticket"));
    equal(&[&a, &b]);
    for end in [0, 1] {
        cable.set(end, &["mtu", "600"]);
    }
    a.save("large", vec![7; 200_000]);
    b.save("other", vec![8; 200_000]);
    equal(&[&a, &b]);
}
